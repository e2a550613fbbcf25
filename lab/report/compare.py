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
from endedge.lab.report.captions import headline, percent, points, quantity, share_of
from endedge.lab.report.page import card, figure, shell
from endedge.lab.report.page_figures import Figure, laid_out, linear_axis, log_axis, numbers, shaded
from endedge.lab.report.results import Results
from endedge.lab.report.style import BANDWIDTH, FAMILIES, MAP, SHARE, UPDATE, UPLOAD, Style
from endedge.lab.report.tables import table, text

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
    over = ", ".join(dict.fromkeys(spread(run.results.benchmark.judged[0]).what for run in runs))
    main = [
        figure(
            "returns",
            _widest(runs),
            "mAP (over the period, where that is judged) when the fitted allocator's "
            f"split was carried out. Bands: {over}. Dashed: before any update.",
        ),
        figure(
            "share",
            _share_takeaway(runs),
            "The uplink's share of the bandwidth in the fitted "
            "allocator's answers (rows of allocation.csv).",
        ),
        "<div class=two>",
        figure(
            "data-curve",
            _gain_takeaway(runs),
            "Accuracy against uploaded bytes at the largest "
            "package: the chosen fit, its 90 % interval, each cell a point.",
        ),
        figure(
            "model-curve",
            _size_takeaway(runs),
            "Accuracy against package bytes at the largest upload, likewise.",
        ),
        "</div>",
        card("In numbers", _numbers_table(runs)),
        card("Mean regret to each run's own oracle (points)", _policies_table(runs)),
        card(*_differences(runs)),
    ]
    title = f"<h1>{text(_best(runs))}</h1><p class=lead>{text(_caution(runs))}</p>"
    return shell(
        " · ".join(run.name for run in runs),
        " · ".join(run.label for run in runs),
        title,
        "\n".join(main),
        {"figures": figures},
    )


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


def _common(runs: Sequence[_Run]) -> float | None:
    """A bandwidth (Hz) in the middle of those at which every run sends updates."""
    sending = [[s.bandwidth_hz for s in run.results.sending] for run in runs]
    if not all(sending):
        return None
    low, high = max(s[0] for s in sending), min(s[-1] for s in sending)
    return float(np.sqrt(low * high)) if low <= high else None


def _at(run: _Run, bandwidth_hz: float) -> float:
    """mAP measured for the fitted allocator, between the bandwidths of the sweep."""
    bench = run.results.benchmark
    mean = bench.judged[bench.of("fitted")].mean(axis=1)
    return float(np.interp(np.log(bandwidth_hz), np.log(bench.bandwidth_hz), mean))


def _best(runs: Sequence[_Run]) -> str:
    at = _common(runs)
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
    measured = np.array([[_at(run, float(b)) for b in sweep] for run in runs])
    apart = np.ptp(measured, axis=0)
    at = int(apart.argmax())
    best = runs[int(measured[:, at].argmax())]
    if apart[at] < 5e-4:
        return "The runs agree at every bandwidth"
    gap = points(float(apart[at])).removeprefix("+")
    return f"They differ most at {quantity(sweep[at], 'Hz')}: {gap}, {best.label} ahead"


def _caution(runs: Sequence[_Run]) -> str:
    frames = {run.results.config.data.model_dump_json() for run in runs}
    if len(frames) > 1:
        return (
            "The runs do not evaluate on the same frames (their data sections differ), so a "
            "difference of mAP is also one of frames."
        )
    seeds = min(len(run.results.benchmark.seeds) for run in runs)
    return (
        f"The same frames. With {seeds} seed{'s' * (seeds > 1)} in the smallest run, differences "
        "within the bands are noise."
    )


def _share_takeaway(runs: Sequence[_Run]) -> str:
    at = _common(runs)
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


def _numbers_table(runs: Sequence[_Run]) -> str:
    rows = []
    for run in runs:
        results, found = run.results, headline(run.results)
        bench, cells = results.benchmark, results.surface.points()
        best = int(np.argmax(cells.map))
        regret = 100 * float(bench.regret[bench.of("fitted")].mean())
        rows.append(
            (
                run.label,
                percent(results.curves.m0),
                percent(float(cells.map[best])),
                f"{int(cells.frames[best]):,} frames, {quantity(cells.update_bytes[best], 'B')}",
                f"{regret:.2f}",
                "–" if found is None else points(float(found.over_sweep.mean)),
                f"{len(results.surface)} / {len(bench.seeds)}",
            )
        )
    header = (
        "run",
        "before (mAP %)",
        "best (mAP %)",
        "with",
        "regret (points)",
        "over equal split",
        "cells / seeds",
    )
    note = "Regret and the lead over the equal split are means over each run's own sweep."
    return table(header, rows, note=note)


def _policies_table(runs: Sequence[_Run]) -> str:
    by_run = [
        {b.policies[k]: 100 * float(b.regret[k].mean()) for k in b.drawn}
        for b in (run.results.benchmark for run in runs)
    ]
    names = sorted(
        dict.fromkeys(name for one in by_run for name in one),
        key=lambda name: min(float(one.get(name, np.inf)) for one in by_run),
    )
    rows = [
        (name, *(f"{one[name]:.2f}" if name in one else "–" for one in by_run)) for name in names
    ]
    return table(("policy", *(run.label for run in runs)), rows, names.index("fitted"))


def _differences(runs: Sequence[_Run]) -> tuple[str, str]:
    flat = [dict(_flat(run.results.config.model_dump(mode="json"))) for run in runs]
    keys = [k for k in dict.fromkeys(k for one in flat for k in one) if k != "name"]
    rows = [
        (key, *values)
        for key in keys
        if len(set(values := [str(one.get(key, "–")) for one in flat])) > 1
    ]
    if not rows:
        same = "What differs then is code, machine, or how much was measured."
        return "The configurations are the same", f"<p class=note>{same}</p>"
    title = f"{len(rows)} configuration key{'s differ' if len(rows) > 1 else ' differs'}"
    return title, table(("key", *(run.label for run in runs)), rows)


def _flat(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
