"""The report's figures as plain plotly.js figures: ``{"data": [...], "layout": {...}}``.

Colours are those of Okabe and Ito (2008), told apart by colour-blind readers; surfaces use
cividis. Names that come from files are escaped, for plotly reads markup in text.
"""

from __future__ import annotations

import html
import math
from typing import Any, TypeAlias

import numpy as np

from endedge.allocator import Candidate
from endedge.lab import findings
from endedge.lab.results import Floats, Results, Spread, spread

__all__ = [
    "BLACK", "BLUE", "GREEN", "GREY", "ORANGE", "PINK", "RED", "SKY", "STYLES",
    "contour", "curve_bands", "data_curve", "model_curve", "policies", "policy", "regret",
    "rivals", "surface",
]  # fmt: skip

Figure: TypeAlias = dict[str, Any]

BLACK, ORANGE, SKY, GREEN = "#000000", "#e69f00", "#56b4e9", "#009e73"
BLUE, RED, PINK, GREY = "#0072b2", "#d55e00", "#cc79a7", "#8a8f98"
UP, DOWN = BLUE, ORANGE  # the two directions, wherever they appear

# (colour, plotly dash, width): the policies that a reader looks for; others are thin and grey.
STYLES: dict[str, tuple[str, str, float]] = {
    "oracle": (BLACK, "dash", 2.0),
    "fitted": (RED, "solid", 3.0),
    "equal": (BLUE, "solid", 2.0),
    "best-static": (GREEN, "dashdot", 2.0),
    "data-only": (SKY, "dot", 2.0),
    "model-only": (ORANGE, "dot", 2.0),
}
_OTHERS = (GREY, "solid", 1.2)
_FAMILIES = ((BLUE, "solid"), (RED, "dash"), (GREEN, "dot"), (PINK, "dashdot"), (ORANGE, "longdash"))
_STEPS = 120


def _axis(title: str, **more: Any) -> dict[str, Any]:
    return {
        "title": {"text": title, "standoff": 8}, "gridcolor": "#e6e8eb", "zeroline": False,
        "linecolor": "#9aa0a6", "ticks": "outside", "tickcolor": "#9aa0a6", "automargin": True,
        **more,
    }  # fmt: skip


def _log(title: str, unit: str) -> dict[str, Any]:
    return _axis(title, type="log", tickformat="~s", ticksuffix=unit, dtick="D2", nticks=8)


def _layout(x: dict[str, Any], y: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "xaxis": x, "yaxis": y, "margin": {"l": 56, "r": 12, "t": 12, "b": 48}, "height": 420,
        "legend": {"orientation": "h", "y": -0.22, "x": 0}, "hovermode": "closest", **more,
    }  # fmt: skip


def _numbers(values: Any) -> list[float | None]:
    """Six digits are more than a screen shows; NaN is null in JSON."""
    return [float(f"{v:.6g}") if math.isfinite(v) else None for v in np.asarray(values).ravel()]


def _table(values: Floats) -> list[list[float | None]]:
    return [_numbers(row) for row in values]


def _sizes(low: float, high: float, n: int = _STEPS) -> Floats:
    return np.geomspace(max(low, 1.0), max(high, low * 1.001, 1.0), n)


_UPLOAD, _UPDATE = "frames uploaded per period (bytes)", "model package per period (bytes)"
_MAP = "mAP50-95 on the device (%)"


def surface(results: Results) -> Figure:
    """3-D: the fitted surface and the measured operating points (mean over seeds)."""
    curves, cells = results.curves, results.surface.points()
    u = _sizes(curves.upload_range.low, curves.upload_range.high, 40)
    m = _sizes(curves.update_range.low, curves.update_range.high, 40)
    z = 100 * curves.predict(u[:, None], m[None, :]).T
    log = {"type": "log", "tickformat": "~s", "ticksuffix": "B", "gridcolor": "#cfd3d8", "nticks": 5}
    return {
        "data": [
            {
                "type": "surface", "x": _numbers(u), "y": _numbers(m), "z": _table(z),
                "colorscale": "Cividis", "opacity": 0.85, "name": "fit", "showscale": False,
                "hovertemplate": "fit: %{z:.1f} mAP<br>%{x:.3s}B up, %{y:.3s}B down<extra></extra>",
            },
            {
                "type": "scatter3d", "mode": "markers", "name": "measured",
                "x": _numbers(cells.upload_bytes), "y": _numbers(cells.update_bytes),
                "z": _numbers(100 * cells.map), "text": _labels(results),
                "marker": {"size": 4, "color": RED, "line": {"color": "#ffffff", "width": 1}},
                "error_z": {"type": "data", "array": _numbers(100 * np.nan_to_num(cells.map_error)),
                            "color": RED, "thickness": 2},
                "hovertemplate": "measured: %{z:.1f} mAP<br>%{text}<extra></extra>",
            },
        ],
        "layout": {
            "scene": {
                "xaxis": {"title": {"text": "frames up"}, **log},
                "yaxis": {"title": {"text": "model down"}, **log},
                "zaxis": {"title": {"text": "mAP (%)"}, "gridcolor": "#cfd3d8"},
                "camera": {"eye": {"x": -1.6, "y": -1.6, "z": 0.8}}, "dragmode": "orbit",
                "aspectmode": "cube",
            },
            "margin": {"l": 0, "r": 0, "t": 0, "b": 0}, "height": 480, "showlegend": False,
        },
    }  # fmt: skip


def contour(results: Results) -> Figure:
    """The same from above, with the path of best splits over the sweep of bandwidths."""
    curves, cells = results.curves, results.surface.points()
    u = _sizes(curves.upload_range.low, curves.upload_range.high, 60)
    m = _sizes(curves.update_range.low, curves.update_range.high, 60)
    z = 100 * curves.predict(u[:, None], m[None, :]).T
    measured = 100 * cells.map
    low, high = float(min(z.min(), measured.min())), float(max(z.max(), measured.max()))
    sending = [s for s in results.steps if s.regime != "none"]
    return {
        "data": [
            {
                "type": "contour", "x": _numbers(u), "y": _numbers(m), "z": _table(z),
                "colorscale": "Cividis", "zmin": low, "zmax": high, "name": "fit",
                "contours": {"showlabels": True, "labelfont": {"color": "#ffffff", "size": 11}},
                "line": {"width": 0.5, "color": "#ffffff"}, "showlegend": False,
                "colorbar": {"title": {"text": "mAP (%)"}, "thickness": 12, "len": 0.9},
                "hovertemplate": "fit: %{z:.1f} mAP<br>%{x:.3s}B up, %{y:.3s}B down<extra></extra>",
            },
            {
                "type": "scatter", "mode": "markers", "name": "measured (same colours)",
                "x": _numbers(cells.upload_bytes), "y": _numbers(cells.update_bytes),
                "text": _labels(results), "customdata": _numbers(measured),
                "marker": {"size": 11, "color": _numbers(measured), "colorscale": "Cividis",
                           "cmin": low, "cmax": high, "line": {"color": "#ffffff", "width": 1.5}},
                "hovertemplate": "measured: %{customdata:.1f} mAP<br>%{text}<extra></extra>",
            },
            {
                "type": "scatter", "mode": "lines+markers", "name": "best split as the link widens",
                "x": _numbers([s.upload_bytes for s in sending]),
                "y": _numbers([s.update_bytes for s in sending]),
                "text": [findings.quantity(s.bandwidth_hz, "Hz") for s in sending],
                "line": {"color": RED, "width": 3},
                "marker": {"color": RED, "size": 7, "symbol": "diamond",
                           "line": {"color": "#ffffff", "width": 1}},
                "hovertemplate": "%{text}: %{x:.3s}B up, %{y:.3s}B down<extra></extra>",
            },
        ],
        "layout": _layout(_log(_UPLOAD, "B"), _log(_UPDATE, "B"), height=460),
    }  # fmt: skip


def _labels(results: Results) -> list[str]:
    cells = results.surface.points()
    return [
        html.escape(
            f"{int(n):,} frames {codec}, {findings.quantity(b, 'B')} budget, {int(s)} seeds"
        )
        for n, codec, b, s in zip(
            cells.frames, cells.codec, cells.budget_bytes, cells.seeds, strict=True
        )
    ]


def curve_bands(results: Results, axis: str) -> tuple[Floats, Floats, Floats, Floats]:
    """Bytes along ``axis`` ("data" or "model") with the other at its largest: the chosen fit
    and its 90 % interval (bytes, fit, low, high)."""
    curves = results.curves
    if axis == "data":
        x = _sizes(curves.upload_range.low, curves.upload_range.high)
        pair = x, np.full_like(x, curves.update_range.high)
    else:
        x = _sizes(curves.update_range.low, curves.update_range.high)
        pair = np.full_like(x, curves.upload_range.high), x
    low, high = curves.interval(*pair)
    return x, curves.predict(*pair), low, high


def rivals(results: Results, axis: str) -> dict[str, Candidate]:
    """The best candidate of each family of one curve, best first."""
    best: dict[str, Candidate] = {}
    for candidate in results.curves.candidates:  # sorted by held-out error
        best.setdefault(candidate.kind.data if axis == "data" else candidate.kind.model, candidate)
    return best


def _curve(results: Results, axis: str, title: str) -> Figure:
    curves, cells = results.curves, results.surface
    x, fit, low, high = curve_bands(results, axis)
    full_u, full_m = curves.upload_range.high, curves.update_range.high
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "lines", "x": [*_numbers(x), *_numbers(x[::-1])],
            "y": [*_numbers(100 * low), *_numbers(100 * high[::-1])], "fill": "toself",
            "fillcolor": "rgba(0,114,178,0.18)", "line": {"width": 0}, "hoverinfo": "skip",
            "name": "90 % interval of the chosen fit",
        }
    ]  # fmt: skip
    for (family, candidate), (colour, dash) in zip(
        rivals(results, axis).items(), _FAMILIES, strict=False
    ):
        joint = candidate.joint
        y = joint.value(x, full_m) if axis == "data" else joint.value(full_u, x)
        chosen = joint == curves.joint
        traces.append(
            {
                "type": "scatter", "mode": "lines", "x": _numbers(x),
                "y": _numbers(100 * np.clip(y, 0, 1)),
                "name": html.escape(family) + (" (chosen)" if chosen else ""),
                "line": {"color": colour, "dash": dash, "width": 3 if chosen else 1.5},
                "hovertemplate": f"{html.escape(family)}: %{{y:.1f}} mAP at %{{x:.3s}}B<extra></extra>",
            }
        )  # fmt: skip
    reference = (
        curves.reference.predict(x, full_m) if axis == "data" else curves.reference.predict(full_u, x)
    )
    traces.append(
        {
            "type": "scatter", "mode": "lines", "x": _numbers(x), "y": _numbers(100 * reference),
            "name": "monotone reference", "line": {"color": GREY, "width": 1.5, "dash": "dot"},
            "hoverinfo": "skip",
        }
    )  # fmt: skip
    if axis == "data":
        here = np.zeros(len(cells), bool)
        for key in set(zip(cells.frames, cells.codec, strict=True)):
            same = (cells.frames == key[0]) & (cells.codec == key[1])
            here |= same & (cells.budget_bytes == cells.budget_bytes[same].max())
        bytes_ = cells.upload_bytes[here]
    else:
        here = cells.upload_bytes >= cells.upload_bytes.max() * 0.999
        frames = cells.frames[cells.upload_bytes.argmax()]
        codec = cells.codec[cells.upload_bytes.argmax()]
        here = (cells.frames == frames) & (cells.codec == codec)
        bytes_ = cells.update_bytes[here]
    labels = [
        f"{int(n):,} frames, seed {int(s)}"
        for n, s in zip(cells.frames[here], cells.seed[here], strict=True)
    ]
    traces.append(
        {
            "type": "scatter", "mode": "markers", "x": _numbers(bytes_),
            "y": _numbers(100 * cells.map[here]), "name": "measured, one point a seed",
            "text": labels,
            "marker": {"color": BLACK, "size": 6, "symbol": "circle-open", "line": {"width": 1.5}},
            "hovertemplate": "measured %{y:.1f} mAP<br>%{text}<extra></extra>",
        }
    )  # fmt: skip
    m0 = 100 * curves.m0
    layout = _layout(_log(title, "B"), _axis(_MAP))
    layout["shapes"] = [_line(m0)]
    layout["annotations"] = [_note(f"before any update {m0:.1f}", m0)]
    return {"data": traces, "layout": layout}


def _line(y: float) -> dict[str, Any]:
    return {
        "type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y,
        "line": {"color": "#5f6368", "width": 1, "dash": "dash"},
    }  # fmt: skip


def _note(text: str, y: float) -> dict[str, Any]:
    return {
        "text": text, "xref": "paper", "x": 1, "y": y, "xanchor": "right", "yanchor": "bottom",
        "showarrow": False, "font": {"size": 11, "color": "#5f6368"},
    }  # fmt: skip


def data_curve(results: Results) -> Figure:
    """A(U): accuracy against uploaded bytes at the largest package; families compared."""
    return _curve(results, "data", _UPLOAD)


def model_curve(results: Results) -> Figure:
    """g(M): accuracy against package bytes at the largest upload; families compared."""
    return _curve(results, "model", _UPDATE)


def policies(results: Results) -> Figure:
    """Every policy's measured mAP against bandwidth; intervals for those people look for."""
    bench = results.benchmark
    order = sorted(
        range(len(bench.policies)), key=lambda k: (bench.policies[k] in STYLES, -k)
    )  # the known ones on top
    traces = []
    for k in order:
        name = bench.policies[k]
        colour, dash, width = STYLES.get(name, _OTHERS)
        seen = spread(100 * bench.map[k])
        trace: dict[str, Any] = {
            "type": "scatter", "mode": "lines+markers", "x": _numbers(bench.bandwidth_hz),
            "y": _numbers(seen.mean), "name": html.escape(name),
            "line": {"color": colour, "dash": dash, "width": width},
            "marker": {"size": 5 if name in STYLES else 3, "color": colour},
            "hovertemplate": f"{html.escape(name)}: %{{y:.2f}} mAP at %{{x:.3s}}Hz<extra></extra>",
            "legendrank": 1 + [*STYLES, name].index(name),
        }  # fmt: skip
        traces.append(trace)
    return {
        "data": [*_band(bench.bandwidth_hz, "fitted", results), *traces],
        "layout": _layout(_log("bandwidth of the link (Hz)", "Hz"), _axis(_MAP), height=460),
    }


def _band(x: Floats, name: str, results: Results) -> list[dict[str, Any]]:
    bench = results.benchmark
    seen = spread(100 * bench.map[bench.of(name)])
    return [] if seen.seeds < 2 else [_fill(x, seen, STYLES.get(name, _OTHERS)[0])]


def _fill(x: Floats, seen: Spread, colour: str) -> dict[str, Any]:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return {
        "type": "scatter", "mode": "lines", "x": [*_numbers(x), *_numbers(x[::-1])],
        "y": [*_numbers(seen.low), *_numbers(seen.high[::-1])], "fill": "toself",
        "fillcolor": f"rgba({red},{green},{blue},0.2)", "line": {"width": 0},
        "hoverinfo": "skip", "showlegend": False,
    }  # fmt: skip


def policy(results: Results, name: str) -> Figure:
    """One policy with its interval over seeds, the oracle behind it: a small multiple."""
    bench = results.benchmark
    x = bench.bandwidth_hz
    colour = STYLES.get(name, (BLUE, "", 0.0))[0]
    mine = spread(100 * bench.map[bench.of(name)])
    oracle = spread(100 * bench.map[bench.of("oracle")])
    everything = 100 * bench.map.mean(axis=2)
    pad = 0.06 * float(np.ptp(everything)) + 0.1
    span = [float(everything.min()) - pad, float(everything.max()) + 2 * pad]
    line = {"type": "scatter", "mode": "lines", "x": _numbers(x), "showlegend": False}
    traces: list[dict[str, Any]] = [_fill(x, mine, colour)] if mine.seeds > 1 else []
    traces += [
        {**line, "y": _numbers(oracle.mean), "line": {"color": BLACK, "width": 1.2, "dash": "dash"},
         "hovertemplate": "oracle %{y:.1f}<extra></extra>"},
        {**line, "y": _numbers(mine.mean), "line": {"color": colour, "width": 2.5},
         "hovertemplate": "%{y:.1f} mAP at %{x:.3s}Hz<extra></extra>"},
    ]  # fmt: skip
    x_axis = _axis("", type="log", tickformat="~s", ticksuffix="Hz", nticks=4)
    layout = _layout(x_axis, _axis("", range=span, nticks=4), height=170)
    layout["margin"] = {"l": 30, "r": 6, "t": 4, "b": 28}
    return {"data": traces, "layout": layout}


def regret(results: Results) -> Figure:
    """Points lost to the oracle, policies by rising mean regret against bandwidth."""
    bench = results.benchmark
    rows = [k for k in bench.by_regret() if bench.policies[k] != "oracle"][::-1]
    mean = 100 * bench.regret[rows].mean(axis=2)
    return {
        "data": [
            {
                "type": "heatmap", "z": _table(mean), "colorscale": "Cividis", "reversescale": True,
                "x": [findings.quantity(b, "Hz") for b in bench.bandwidth_hz],
                "y": [html.escape(bench.policies[k]) for k in rows], "xgap": 2, "ygap": 2,
                "texttemplate": "%{z:.1f}", "textfont": {"size": 11},
                "colorbar": {"title": {"text": "points"}, "thickness": 12},
                "hovertemplate": "%{y} at %{x}: %{z:.2f} points lost<extra></extra>",
            }
        ],
        "layout": _layout(
            _axis("bandwidth of the link", type="category", tickangle=-45), _axis("", ticks=""),
            height=120 + 26 * len(rows),
        ),
    }  # fmt: skip


