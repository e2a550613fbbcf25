"""Several results folders on one page: what each measured, and what they were asked for."""

from __future__ import annotations

import html
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from endedge.allocator.display import Axis, cells_along
from endedge.data.errors import BadInput
from endedge.data.storage import write_atomic
from endedge.lab.benchmark.outcomes import Spread, spread
from endedge.lab.report.captions import headline
from endedge.lab.report.page import shell
from endedge.lab.report.page_axes import Figure, laid_out, linear_axis, log_axis, numbers, shaded
from endedge.lab.report.results import Results
from endedge.lab.report.style import BANDWIDTH, FAMILIES, MAP, SHARE, UPDATE, UPLOAD, Style
from endedge.lab.report.tabular import Column, ReportTable, decimal
from endedge.lab.report.wording import counted, percent, points, quantity, share_of

__all__ = ["comparison", "write_comparison"]


@dataclass(frozen=True)
class _Run:
    """One results folder: ``letter`` and ``name`` by which the page calls it."""

    letter: str
    name: str
    results: Results
    look: Style

    @property
    def label(self) -> str:
        return f"{self.letter} {self.name}"


def write_comparison(results: Mapping[str, Results], out: Path) -> Path:
    """Write :func:`comparison` to ``out`` and return it."""
    write_atomic(out, comparison(results).encode())
    return out


def comparison(results: Mapping[str, Results]) -> str:
    """The page for two to five results by the name of their folder.

    Raises :class:`BadInput` for more, or fewer.
    """
    if not 2 <= len(results) <= len(FAMILIES):
        raise BadInput(f"{len(results)} folders; 2 to {len(FAMILIES)} can be compared")
    short = {folder: Path(folder).name or folder for folder in results}
    unique = len(set(short.values())) == len(short)
    runs = [
        _Run(letter, short[folder] if unique else folder, one, look)
        for letter, (folder, one), look in zip(
            string.ascii_uppercase, results.items(), FAMILIES, strict=False
        )
    ]
    figures = {
        "returns": _returns(runs),
        "share": _shares(runs),
        "data-curve": _curves(runs, "data"),
        "model-curve": _curves(runs, "model"),
    }
    return shell(
        "compare.html",
        " · ".join(run.name for run in runs),
        " · ".join(run.label for run in runs),
        {"figures": figures},
        sections=_SECTIONS,
        headline=_best(runs),
        lead=_caution(runs),
        over=", ".join(dict.fromkeys(spread(run.results.benchmark.judged[0]).what for run in runs)),
        says={
            "returns": _widest(runs),
            "share": _share_takeaway(runs),
            "data": _gain_takeaway(runs),
            "model": _size_takeaway(runs),
        },
        data={name: _drawn(name, figure) for name, figure in figures.items()},
        numbers=_numbers_table(runs),
        regrets=_policies_table(runs),
        differences=_differences(runs),
    )


_SECTIONS = {
    "bandwidth": "What bandwidth buys",
    "curves": "The two curves",
    "numbers": "In numbers",
    "asked": "What was asked for",
}


def _drawn(name: str, figure: Figure) -> ReportTable:
    """The lines and points of a figure, one row each; mAP and shares in %."""
    rows = [
        (html.unescape(trace["name"]), float(x), float(y))
        for trace in figure["data"]
        if "name" in trace
        for x, y in zip(trace["x"], trace["y"], strict=True)
        if y is not None
    ]
    x = "bandwidth_hz" if name in ("returns", "share") else "bytes"
    y = "uplink_share_percent" if name == "share" else "map_percent"
    return ReportTable(name, (Column("run", "run"), Column("x", x), Column("y", y)), rows)


def _fitted(run: _Run) -> Spread:
    bench = run.results.benchmark
    return spread(100 * bench.judged[bench.of("fitted")])


def _line(run: _Run, x: Any, y: Any, unit: str, **more: Any) -> dict[str, Any]:
    name = html.escape(run.label)
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": numbers(x),
        "y": numbers(y),
        "name": name,
        "line": {"color": run.look.colour, "dash": run.look.dash, "width": 2.5},
        "marker": {"color": run.look.colour, "size": 6},
        "hovertemplate": f"{name}: %{{y:.1f}} at %{{x:.3s}}{unit}<extra></extra>",
        **more,
    }


def _returns(runs: Sequence[_Run]) -> Figure:
    traces, before = [], []
    for run in runs:
        seen, x = _fitted(run), run.results.benchmark.bandwidth_hz
        traces += [shaded(x, seen, run.look.colour)] if seen.seeds > 1 else []
        traces.append(_line(run, x, seen.mean, "Hz"))
        y = 100 * run.results.curves.m0
        before.append(
            {
                "type": "line",
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "y0": y,
                "y1": y,
                "line": {"color": run.look.colour, "width": 1, "dash": "dash"},
            }
        )
    layout = laid_out(log_axis(BANDWIDTH), linear_axis(MAP), shapes=before)
    return {"data": traces, "layout": layout}


def _shares(runs: Sequence[_Run]) -> Figure:
    traces = [
        _line(
            run,
            [s.bandwidth_hz for s in run.results.sending],
            [100 * s.uplink_share for s in run.results.sending],
            "Hz",
        )
        for run in runs
    ]
    y = linear_axis(SHARE.replace("share", "uplink's share"), range=[0, 100])
    return {"data": traces, "layout": laid_out(log_axis(BANDWIDTH), y, height=360)}


def _curves(runs: Sequence[_Run], axis: Axis) -> Figure:
    traces = []
    for run in runs:
        results = run.results
        x = results.sizes(axis)
        at = results.along(axis, x)
        low, high = results.curves.interval(*at)
        traces.append(shaded(x, Spread(x, 100 * low, 100 * high, 2), run.look.colour))
        traces.append(_line(run, x, 100 * results.curves.predict(*at), "B", mode="lines"))
        seen = cells_along(results.surface, axis)
        sizes = seen.upload_bytes if axis == "data" else seen.update_bytes
        points_ = _line(run, sizes, 100 * seen.map, "B", mode="markers", showlegend=False)
        points_["marker"] = {"color": run.look.colour, "symbol": "circle-open", "size": 7}
        traces.append(points_)
    label = UPLOAD if axis == "data" else UPDATE
    return {"data": traces, "layout": laid_out(log_axis(label), linear_axis(MAP))}


def _common(runs: Sequence[_Run]) -> tuple[float, float] | None:
    """The bandwidths (Hz, from and to) at which every run sends updates."""
    sending = [[s.bandwidth_hz for s in run.results.sending] for run in runs]
    if not all(sending):
        return None
    low, high = max(s[0] for s in sending), min(s[-1] for s in sending)
    return (low, high) if low <= high else None


def _telling(runs: Sequence[_Run]) -> float | None:
    """The bandwidth at which the runs differ most and clearly, else the middle one."""
    common = _common(runs)
    if common is None:
        return None
    sweep = np.geomspace(*common, 200)
    apart, sure = _apart(runs, sweep)
    if not sure.any():
        return float(np.sqrt(common[0] * common[1]))
    return float(sweep[int(np.where(sure, apart, -np.inf).argmax())])


def _apart(runs: Sequence[_Run], sweep: Any) -> tuple[Any, Any]:
    """At each bandwidth: best less worst run (points), and whether their bands are apart."""
    logs = np.log(sweep)
    means, lows, highs = [], [], []
    for run in runs:
        seen, known = _fitted(run), np.log(run.results.benchmark.bandwidth_hz)
        means.append(np.interp(logs, known, seen.mean))
        lows.append(np.interp(logs, known, seen.low))
        highs.append(np.interp(logs, known, seen.high))
    mean, low, high = np.array(means), np.array(lows), np.array(highs)
    best, worst = mean.argmax(axis=0), mean.argmin(axis=0)
    at = np.arange(len(sweep))
    return np.ptp(mean, axis=0), low[best, at] > high[worst, at]  # one seed: NaN, never sure


def _at(run: _Run, bandwidth_hz: float) -> float:
    """mAP measured for the fitted allocator, between the bandwidths of the sweep."""
    bench = run.results.benchmark
    mean = bench.judged[bench.of("fitted")].mean(axis=1)
    return float(np.interp(np.log(bandwidth_hz), np.log(bench.bandwidth_hz), mean))


def _best(runs: Sequence[_Run]) -> str:
    at = _telling(runs)
    if at is None:
        return "At no bandwidth do all of them send updates"
    said = ", ".join(f"{run.label} {percent(_at(run, at))}" for run in runs)
    gap = _at(runs[-1], at) - _at(runs[0], at)
    last = f": {points(gap)} from {runs[0].letter} to {runs[-1].letter}" if len(runs) == 2 else ""
    return f"At {quantity(at, 'Hz')} the device reaches {said} mAP{last}"


def _widest(runs: Sequence[_Run]) -> str:
    """Where the measured curves lie furthest apart, of the bandwidths that all runs know."""
    low = max(run.results.benchmark.bandwidth_hz[0] for run in runs)
    high = min(run.results.benchmark.bandwidth_hz[-1] for run in runs)
    if low > high:
        return "The sweeps of bandwidths do not overlap"
    sweep = np.geomspace(low, high, 200)
    apart, sure = _apart(runs, sweep)
    at = int(apart.argmax())
    if apart[at] < 0.05:
        return "The runs agree at every bandwidth"
    best = max(runs, key=lambda run: _at(run, float(sweep[at])))
    gap = points(float(apart[at]) / 100).removeprefix("+")
    says = f"{best.label} ahead" if sure[at] else "within the bands"
    return f"They differ most at {quantity(sweep[at], 'Hz')}: {gap}, {says}"


def _caution(runs: Sequence[_Run]) -> str:
    same = "The bandwidth is that at which their bands are furthest apart, else the middle one. "
    same = same if _common(runs) else ""
    frames = {_frames(run.results) for run in runs}
    if len(frames) > 1:
        return same + (
            "The runs do not evaluate on the same frames (their data sections differ), so a "
            "difference of mAP is also one of frames."
        )
    seeds = min(len(run.results.benchmark.seeds) for run in runs)
    return same + (
        f"The same frames. With {counted(seeds, 'seed')} in the smallest run, differences "
        "within the bands are noise."
    )


def _frames(results: Results) -> str:
    """What was evaluated on, as far as the results know."""
    if results.config is not None:
        return results.config.data.model_dump_json()
    return str(results.about.get("evaluated_on", results.name))


def _share_takeaway(runs: Sequence[_Run]) -> str:
    at = _telling(runs)
    if at is None:
        return "At no bandwidth do all of them split the link"
    said = [f"{run.label} {share_of(run.results.split_at(at).uplink_share)}" for run in runs]
    return f"At {quantity(at, 'Hz')} frames take {', '.join(said)} of the link"


def _gain_takeaway(runs: Sequence[_Run]) -> str:
    tops = [run.results.surface.points().map.max() - run.results.curves.m0 for run in runs]
    said = [f"{run.label} {points(float(gain))}" for run, gain in zip(runs, tops, strict=True)]
    return f"The best measured round brings {', '.join(said)}"


def _size_takeaway(runs: Sequence[_Run]) -> str:
    said = []
    for run in runs:
        curves, sizes = run.results.curves, run.results.sizes("model", 400)
        gain = curves.predict(*run.results.along("model", sizes)) - curves.m0
        enough = float(sizes[np.argmax(gain >= 0.9 * gain[-1])]) if gain[-1] > 5e-4 else np.nan
        said.append(f"{run.label} {quantity(enough, 'B')}")
    return f"90\u00a0% of the gain needs a package of {', '.join(said)}"


def _numbers_table(runs: Sequence[_Run]) -> ReportTable:
    rows = []
    for run in runs:
        results, found = run.results, headline(run.results)
        bench, cells = results.benchmark, results.surface.points()
        best = int(np.argmax(cells.map))
        rows.append(
            (
                run.label,
                results.curves.m0,
                float(cells.map[best]),
                int(cells.frames[best]),
                float(cells.update_bytes[best]),
                float(bench.regret[bench.of("fitted")].mean()),
                np.nan if found is None else float(found.over_sweep.mean),
                len(results.surface),
                len(bench.seeds),
            )
        )
    return ReportTable(
        "runs",
        (
            Column("run", "run"),
            Column("before (mAP %)", "m0", percent),
            Column("best (mAP %)", "best_map", percent),
            Column("with frames", "frames", lambda n: f"{n:,}"),
            Column("and a package of", "update_bytes", lambda v: quantity(v, "B")),
            Column("regret (points)", "regret_map", _fine),
            Column("over equal split", "over_equal_map", points),
            Column("cells", "cells"),
            Column("seeds", "seeds"),
        ),
        rows,
        note="Regret and the lead over the equal split are means over each run's own sweep.",
    )


def _fine(value: float) -> str:
    return decimal(100 * value, 2)


def _policies_table(runs: Sequence[_Run]) -> ReportTable:
    by_run = [
        {b.policies[k]: float(b.regret[k].mean()) for k in b.drawn}
        for b in (run.results.benchmark for run in runs)
    ]
    names = sorted(
        dict.fromkeys(name for one in by_run for name in one),
        key=lambda name: min(one.get(name, np.inf) for one in by_run),
    )
    columns = [Column(run.label, f"{run.label}: regret_map", _fine) for run in runs]
    rows = [(name, *(one.get(name, np.nan) for one in by_run)) for name in names]
    return ReportTable(
        "regrets", (Column("policy", "policy"), *columns), rows, names.index("fitted")
    )


def _differences(runs: Sequence[_Run]) -> tuple[str, ReportTable | None]:
    flat = [dict(_flat(_settings(run.results))) for run in runs]
    keys = [k for k in dict.fromkeys(k for one in flat for k in one) if k != "name"]
    rows = [
        (key, *values)
        for key in keys
        if len(set(values := [str(one.get(key, "–")) for one in flat])) > 1
    ]
    if not rows:
        return "The configurations are the same", None
    title = f"{len(rows)} configuration key{'s differ' if len(rows) > 1 else ' differs'}"
    columns = (Column("key", "key"), *(Column(run.label, run.label) for run in runs))
    return title, ReportTable("differences", columns, rows)


def _settings(results: Results) -> dict[str, Any]:
    if results.config is not None:
        return results.config.model_dump(mode="json")
    return {**results.about, "link": results.channel.model_dump(mode="json")}


def _flat(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
