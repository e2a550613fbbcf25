"""The report's figures as plain plotly.js figures: ``{"data": [...], "layout": {...}}``.

Names that come from files are escaped, for plotly reads markup in text.
"""

from __future__ import annotations

import html
import math
from typing import Any

import numpy as np

from endedge.allocator.display import Axis, cells_along, rivals
from endedge.lab.benchmark.outcomes import Spread, spread
from endedge.lab.report.page_axes import (
    Figure,
    laid_out,
    linear_axis,
    log_axis,
    number_table,
    numbers,
    shaded,
)
from endedge.lab.report.results import Results, judged_name
from endedge.lab.report.style import (
    BANDWIDTH,
    BLACK,
    BLUE,
    FAMILIES,
    GREY,
    KNOWN,
    MAP,
    RED,
    UPDATE,
    UPLOAD,
    own,
    style,
    styles,
)
from endedge.lab.report.tabular import decimal
from endedge.lab.report.wording import counted, quantity

__all__ = [
    "contour",
    "curve",
    "policies",
    "policy",
    "regret",
    "returns",
    "surface",
]


def _labels(results: Results) -> list[str]:
    cells = results.surface.points()
    return [
        html.escape(
            f"{int(n):,} frames {codec}, {quantity(b, 'B')} budget, {counted(int(s), 'seed')}"
        )
        for n, codec, b, s in zip(
            cells.frames, cells.codec, cells.budget_bytes, cells.seeds, strict=True
        )
    ]


_FIT_HOVER = "fit: %{z:.1f} mAP<br>%{x:.3s}B up, %{y:.3s}B down<extra></extra>"


def surface(results: Results) -> Figure:
    """3-D: the fitted surface and the measured operating points (mean over seeds)."""
    cells = results.surface.points()
    u, m, z = results.fitted_grid(40)
    log = {"type": "log", "tickformat": "~s", "dtick": "D2", "gridcolor": "#cfd3d8"}
    measured = {
        "type": "scatter3d",
        "mode": "markers",
        "name": "measured",
        "text": _labels(results),
        "x": numbers(cells.upload_bytes),
        "y": numbers(cells.update_bytes),
        "z": numbers(100 * cells.map),
        "marker": {"size": 4, "color": RED, "line": {"color": "white", "width": 1}},
        "error_z": {
            "type": "data",
            "array": numbers(100 * np.nan_to_num(cells.map_error)),
            "color": RED,
            "thickness": 2,
        },
        "hovertemplate": "measured: %{z:.1f} mAP<br>%{text}<extra></extra>",
    }
    fit = {
        "type": "surface",
        "x": numbers(u),
        "y": numbers(m),
        "z": number_table(100 * z.T),
        "colorscale": "Cividis",
        "opacity": 0.9,
        "name": "fit",
        "showscale": False,
        "hovertemplate": _FIT_HOVER,
    }
    scene = {
        "xaxis": {"title": {"text": "frames up (B)"}, **log},
        "yaxis": {"title": {"text": "model down (B)"}, **log},
        "zaxis": {"title": {"text": "mAP (%)"}, "gridcolor": "#cfd3d8"},
        "camera": {"eye": {"x": -1.65, "y": -1.65, "z": 0.8}, "center": {"z": -0.12}},
        "aspectmode": "cube",
    }
    layout = {
        "scene": scene,
        "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
        "height": 440,
        "showlegend": False,
    }
    return {"data": [fit, measured], "layout": layout}


def contour(results: Results) -> Figure:
    """The same from above, with the path of best splits over the sweep of bandwidths."""
    cells, sending = results.surface.points(), results.sending
    u, m, z = results.fitted_grid(60)
    measured, z = 100 * cells.map, 100 * z.T
    low, high = float(min(z.min(), measured.min())), float(max(z.max(), measured.max()))
    white = {"color": "white", "width": 1.5}
    fit = {
        "type": "contour",
        "x": numbers(u),
        "y": numbers(m),
        "z": number_table(z),
        "name": "fit",
        "colorscale": "Cividis",
        "zmin": low,
        "zmax": high,
        "line": {"width": 0.5, "color": "white"},
        "contours": {"showlabels": True, "labelfont": {"color": "white", "size": 11}},
        "showscale": False,  # the points' scale is the same
        "hovertemplate": _FIT_HOVER,
    }
    points = {
        "type": "scatter",
        "mode": "markers",
        "name": "measured",
        "x": numbers(cells.upload_bytes),
        "y": numbers(cells.update_bytes),
        "text": _labels(results),
        "customdata": numbers(measured),
        "marker": {
            "size": 11,
            "color": numbers(measured),
            "colorscale": "Cividis",
            "cmin": low,
            "cmax": high,
            "colorbar": {"title": {"text": "mAP (%)"}, "thickness": 12},
            "line": white,
        },
        "hovertemplate": "measured: %{customdata:.1f} mAP<br>%{text}<extra></extra>",
    }
    path = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "best splits",
        "x": numbers([s.upload_bytes for s in sending]),
        "y": numbers([s.update_bytes for s in sending]),
        "text": [quantity(s.bandwidth_hz, "Hz") for s in sending],
        "line": {"color": RED, "width": 3},
        "marker": {"color": RED, "size": 8, "symbol": "diamond", "line": white},
        "hovertemplate": "%{text}: %{x:.3s}B up, %{y:.3s}B down<extra></extra>",
    }
    return {"data": [fit, points, path], "layout": laid_out(log_axis(UPLOAD), log_axis(UPDATE))}


def curve(results: Results, axis: Axis) -> Figure:
    """A(U) at the largest package or g(M) at the largest upload: families compared."""
    curves = results.curves
    x = results.sizes(axis)
    low, high = curves.interval(*results.along(axis, x))
    band = Spread(np.empty(0), 100 * low, 100 * high, 2)
    traces = [{**shaded(x, band, BLUE), "name": "90 % interval", "showlegend": True}]
    for (family, candidate), look in zip(rivals(curves, axis).items(), FAMILIES, strict=False):
        name, chosen = html.escape(family), candidate.joint == curves.joint
        y = 100 * np.clip(candidate.joint.value(*results.along(axis, x)), 0.0, 1.0)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": numbers(x),
                "y": numbers(y),
                "name": f"<b>{name}</b>" if chosen else name,
                "line": {"color": look.colour, "dash": look.dash, "width": 3 if chosen else 1.5},
                "hovertemplate": f"{name}: %{{y:.1f}} mAP at %{{x:.3s}}B<extra></extra>",
            }
        )
    reference = 100 * curves.reference.predict(*results.along(axis, x))
    seen = cells_along(results.surface, axis)
    labels = [
        f"{int(n):,} frames, seed {int(s)}" for n, s in zip(seen.frames, seen.seed, strict=True)
    ]
    traces += [
        {
            "type": "scatter",
            "mode": "lines",
            "x": numbers(x),
            "y": numbers(reference),
            "name": "monotone fit",
            "line": {"color": GREY, "width": 1.5, "dash": "dot"},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "measured",
            "text": labels,
            "x": numbers(seen.upload_bytes if axis == "data" else seen.update_bytes),
            "y": numbers(100 * seen.map),
            "marker": {"color": BLACK, "size": 6, "symbol": "circle-open", "line": {"width": 1.5}},
            "hovertemplate": "measured %{y:.1f} mAP<br>%{text}<extra></extra>",
        },
    ]
    layout = laid_out(log_axis(UPLOAD if axis == "data" else UPDATE), linear_axis(MAP))
    return {"data": traces, "layout": layout | _before(curves.m0)}


def _before(m0: float) -> dict[str, Any]:
    """A line at m0 with its name."""
    y = 100 * m0
    line = {"color": "#5f6368", "width": 1, "dash": "dash"}
    name = {
        "text": f"before any update {y:.1f}",
        "xref": "paper",
        "x": 1,
        "y": y,
        "yanchor": "bottom",
        "xanchor": "right",
        "showarrow": False,
        "font": {"size": 11, "color": "#5f6368"},
    }
    shape = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line}
    return {"shapes": [shape], "annotations": [name]}


def returns(results: Results) -> Figure:
    """What bandwidth buys: the fitted allocator's executed decisions, predicted and measured."""
    bench = results.benchmark
    x = bench.bandwidth_hz
    predicted, low, high = (100 * ends for ends in results.predicted)
    band = Spread(np.empty(0), low, high, 2)
    seen = spread(100 * bench.judged[bench.of("fitted")])
    error = {
        "type": "data",
        "symmetric": False,
        "array": numbers(seen.high - seen.mean),
        "arrayminus": numbers(seen.mean - seen.low),
        "thickness": 1.5,
        "width": 3,
    }
    traces = [
        {**shaded(x, band, BLUE), "name": "90 % interval", "showlegend": True},
        {
            "type": "scatter",
            "mode": "lines",
            "x": numbers(x),
            "name": "predicted",
            "y": numbers(predicted),
            "line": {"color": BLUE, "width": 3},
            "hovertemplate": "predicted %{y:.1f} mAP at %{x:.3s}Hz<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "x": numbers(bench.bandwidth_hz),
            "y": numbers(seen.mean),
            "name": "measured",
            "error_y": error,
            "marker": {"color": BLACK, "size": 7},
            "hovertemplate": "measured %{y:.1f} mAP at %{x:.3s}Hz<extra></extra>",
        },
    ]
    layout = laid_out(log_axis(BANDWIDTH), linear_axis(_judged(results)), height=400)
    return {"data": traces, "layout": layout | _before(results.curves.m0)}


def policies(results: Results) -> Figure:
    """Every policy's measured mAP against bandwidth, the interval of the fitted allocator."""
    bench = results.benchmark
    names = [bench.policies[k] for k in bench.drawn]
    order = sorted(names, key=lambda name: (name in KNOWN or own(name), names.index(name)))
    looks = styles(names)
    fitted = spread(100 * bench.judged[bench.of("fitted")])
    traces = (
        [shaded(bench.bandwidth_hz, fitted, style("fitted").colour)] if fitted.seeds > 1 else []
    )
    for name in order:  # the known ones on top
        look, shown = looks[name], html.escape(name)
        told = look.colour != GREY
        mean = 100 * bench.judged[bench.of(name)].mean(axis=1)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": numbers(bench.bandwidth_hz),
                "y": numbers(mean),
                "name": shown,
                "line": {"color": look.colour, "dash": look.dash, "width": look.width},
                "marker": {"size": 6 if told else 3, "color": look.colour},
                "hovertemplate": f"{shown}: %{{y:.2f}} mAP at %{{x:.3s}}Hz<extra></extra>",
                "legendrank": 1 + [*KNOWN, name].index(name),
            }
        )
    layout = laid_out(log_axis(BANDWIDTH), linear_axis(_judged(results)), height=480)
    layout["legend"] |= {"entrywidth": 130, "entrywidthmode": "pixels"}
    return {"data": traces, "layout": layout}


def _judged(results: Results) -> str:
    """The axis of the quantity that policies are judged by."""
    return f"{judged_name(results)} (%)" if results.benchmark.over_the_period else MAP


def policy(results: Results, name: str) -> Figure:
    """One policy with its interval over seeds, the oracle behind it: a small multiple."""
    bench = results.benchmark
    look = styles([name])[name]
    x, colour = bench.bandwidth_hz, BLUE if look.colour == GREY else look.colour
    mine = spread(100 * bench.judged[bench.of(name)])
    oracle = spread(100 * bench.judged[bench.of("oracle")])
    means = 100 * bench.judged[bench.drawn].mean(axis=2)
    pad = 0.12 * float(np.ptp(means)) + 0.1
    line = {"type": "scatter", "mode": "lines", "x": numbers(x), "showlegend": False}
    traces: list[dict[str, Any]] = [shaded(x, mine, colour)] if mine.seeds > 1 else []
    traces += [
        {
            **line,
            "y": numbers(oracle.mean),
            "line": {"color": BLACK, "width": 1.2, "dash": "dash"},
            "hovertemplate": "oracle %{y:.1f}<extra></extra>",
        },
        {
            **line,
            "y": numbers(mine.mean),
            "line": {"color": colour, "width": 2.5},
            "hovertemplate": "%{y:.1f} mAP at %{x:.3s}Hz<extra></extra>",
        },
    ]
    ticks = _round_ticks(float(x[0]), float(x[-1]))
    x_axis = linear_axis(
        "", type="log", tickformat="~s", tickvals=[ticks[0], ticks[-1]], tickangle=0
    )
    y_axis = linear_axis("", range=[float(means.min()) - pad, float(means.max()) + pad], nticks=4)
    layout = laid_out(x_axis, y_axis, height=160, margin={"l": 28, "r": 8, "t": 4, "b": 24})
    return {"data": traces, "layout": layout}


def _round_ticks(low: float, high: float) -> list[float]:
    """All 1, 2, 5 · 10^k in [low, high]; the ends where there is none."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [c * 10.0**e for e in exponents for c in (1, 2, 5) if low <= c * 10.0**e <= high]
    return found or [low, high]


def regret(results: Results) -> Figure:
    """Points lost to the oracle, policies by rising mean regret against bandwidth."""
    bench = results.benchmark
    rows = [k for k in bench.by_regret() if bench.policies[k] != "oracle"][::-1]
    mean = 100 * bench.regret[rows].mean(axis=2)
    data = {
        "type": "heatmap",
        "z": number_table(mean),
        "colorscale": "Cividis",
        "reversescale": True,
        "x": [quantity(b, "Hz") for b in bench.bandwidth_hz],
        "xgap": 2,
        "ygap": 2,
        "y": [html.escape(bench.policies[k]) for k in rows],
        "zmin": min(0.0, float(mean.min())),
        "text": [[decimal(v, 1) for v in row] for row in mean],
        "texttemplate": "%{text}",
        "textfont": {"size": 11},
        "colorbar": {"title": {"text": "points"}, "thickness": 12},
        "hovertemplate": "%{y} at %{x}: %{z:.2f} points lost<extra></extra>",
    }
    x = linear_axis("bandwidth of the link", type="category", tickangle=-45)
    layout = laid_out(x, linear_axis("", ticks="", type="category"), height=120 + 26 * len(rows))
    return {"data": [data], "layout": layout}
