"""What each figure draws, as a table: the CSV beside it on the page, the LaTeX of a paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from endedge.allocator.display import Axis, cells_along
from endedge.lab.benchmark.outcomes import HINDSIGHT, Floats, spread
from endedge.lab.report.results import Results, judged_name
from endedge.lab.report.tabular import Column, ReportTable, decimal
from endedge.lab.report.wording import (
    bandwidth,
    byte_size,
    counted,
    hundredths,
    percent,
    quantity,
    share_of,
)

__all__ = ["FIGURE_TABLES", "curve", "parameters", "policies", "regret", "surface"]


def _plus_minus(values: Sequence[float]) -> str:
    """``24.30 ± 0.40``: the mean and half of its interval over seeds."""
    mean, low, high = values
    return hundredths(mean) + ("" if math.isnan(low) else f" ± {hundredths((high - low) / 2)}")


def _interval(ends: Sequence[float]) -> str:
    low, high = (decimal(100 * end, 1) for end in ends)
    return f"[{low}, {high}]"


def surface(results: Results) -> ReportTable:
    """Every measured operating point, mean over seeds, and what the fit says of it."""
    cells = results.surface.points()
    fitted = results.curves.predict(cells.upload_bytes, cells.update_bytes)
    rows = [
        (int(n), str(codec), up, down, (accuracy, error), float(fit), int(s))
        for n, codec, up, down, accuracy, error, fit, s in zip(
            cells.frames,
            cells.codec,
            cells.upload_bytes,
            cells.update_bytes,
            cells.map,
            cells.map_error,
            fitted,
            cells.seeds,
            strict=True,
        )
    ]

    def shown(values: Sequence[float]) -> str:
        mean, error = values
        return hundredths(mean) + ("" if math.isnan(error) else f" ± {hundredths(error)}")

    return ReportTable(
        "surface",
        (
            Column("frames", "frames", lambda n: f"{n:,}"),
            Column("codec", "codec"),
            Column("upload", "upload_bytes", byte_size),
            Column("package", "update_bytes", byte_size),
            Column("mAP (%)", ("map", "map_standard_error"), shown),
            Column("fit (%)", "fitted_map", hundredths),
            Column("seeds", "seeds"),
        ),
        rows,
        note="Measured operating points: mean mAP50-95 over seeds ± its standard error; the "
        f"fitted surface there ({results.curves.joint.kind}).",
    )


def curve(results: Results, axis: Axis) -> ReportTable:
    """A(U) at the largest package, or g(M) at the largest upload: measured, and by the fit."""
    seen = cells_along(results.surface, axis)
    sizes = seen.upload_bytes if axis == "data" else seen.update_bytes
    groups = dict.fromkeys(zip(seen.frames, seen.codec, seen.budget_bytes, strict=True))
    rows = []
    for frames, codec, budget in groups:
        here = (seen.frames == frames) & (seen.codec == codec) & (seen.budget_bytes == budget)
        size = float(sizes[here].mean())
        at = results.along(axis, np.array([size]))
        low, high = results.curves.interval(*at)
        found = spread(seen.map[here])
        measured = tuple(float(v) for v in (found.mean, found.low, found.high))
        fit = float(results.curves.predict(*at)[0])
        rows.append((int(frames), size, measured, fit, (float(low[0]), float(high[0]))))
    first, name = ("upload", "upload_bytes") if axis == "data" else ("package", "update_bytes")
    seeds = spread(seen.map[: len({int(s) for s in seen.seed})])
    return ReportTable(
        f"{axis}-curve",
        (
            Column("frames", "frames", lambda n: f"{n:,}"),
            Column(first, name, byte_size),
            Column("measured (%)", ("map", "map_low", "map_high"), _plus_minus),
            Column("fit (%)", "fitted_map", hundredths),
            Column("90 % interval", ("fitted_low_map", "fitted_high_map"), _interval),
        ),
        sorted(rows, key=lambda row: row[1]),
        note=f"mAP50-95 at the largest {'package' if axis == 'data' else 'upload'}; measured: "
        f"{seeds.what}; fit: {results.curves.joint.kind}.",
    )


def share(results: Results) -> ReportTable:
    """The fitted allocator's split at every bandwidth of the sweep."""
    rows = [
        (
            s.bandwidth_hz,
            s.uplink_share,
            s.downlink_share,
            s.upload_bytes,
            s.update_bytes,
            s.predicted_map,
            "no update" if s.regime == "none" else s.regime,
        )
        for s in results.steps
    ]
    return ReportTable(
        "share",
        (
            Column("bandwidth", "bandwidth_hz", bandwidth),
            Column("uplink", "uplink_share", share_of),
            Column("downlink", "downlink_share", share_of),
            Column("frames up", "upload_bytes", byte_size),
            Column("model down", "update_bytes", byte_size),
            Column("predicted mAP (%)", "predicted_map", percent),
            Column("regime", "regime"),
        ),
        rows,
        note="Shares of the bandwidth that the fitted allocator gives to each direction.",
    )


def _picked(results: Results) -> list[int]:
    """Three bandwidths at which an update can be sent: the first, the middle, the last."""
    fits = np.flatnonzero(results.benchmark.updates)
    if not len(fits):
        return []
    return sorted({int(fits[k]) for k in (0, len(fits) // 2, len(fits) - 1)})


def policies(results: Results, names: Sequence[str] = ()) -> ReportTable:
    """mAP of every policy (or of ``names``) at three bandwidths, its mean, its regret."""
    bench, picked = results.benchmark, _picked(results)

    def cell(values: Floats) -> tuple[float, float, float]:
        seen = spread(values)
        return float(seen.mean), float(seen.low), float(seen.high)

    rows = [
        (
            bench.policies[k] + ("*" if bench.policies[k] in HINDSIGHT else ""),
            *(cell(bench.judged[k, b]) for b in picked),
            cell(bench.judged[k].mean(axis=0)),
            cell(bench.regret[k].mean(axis=0)),
        )
        for k in bench.by_regret()
        if not names or bench.policies[k] in names
    ]

    def column(title: str, name: str) -> Column:
        return Column(title, (name, f"{name}_low", f"{name}_high"), _plus_minus)

    return ReportTable(
        "policies",
        (
            Column("policy", "policy"),
            *(
                column(bandwidth(hz), f"map_at_{hz:.0f}_hz")
                for hz in (bench.bandwidth_hz[b] for b in picked)
            ),
            column("mean", "map"),
            column("regret", "regret_map"),
        ),
        rows,
        note=f"{judged_name(results)} (50-95) in %, regret in points; "
        f"{spread(bench.judged[0]).what}"
        f"; mean over {counted(len(bench.bandwidth_hz), 'bandwidth')}; * in hindsight.",
    )


def regret(results: Results, names: Sequence[str] = ()) -> ReportTable:
    """Points lost to the oracle, policy by bandwidth."""
    bench = results.benchmark
    mean = bench.regret.mean(axis=2)
    return ReportTable(
        "regret",
        (
            Column("policy", "policy"),
            *(
                Column(bandwidth(hz), f"regret_map_at_{hz:.0f}_hz", hundredths)
                for hz in bench.bandwidth_hz
            ),
        ),
        [
            (bench.policies[k], *(float(v) for v in mean[k]))
            for k in bench.by_regret()
            if bench.policies[k] != "oracle" and (not names or bench.policies[k] in names)
        ],
        note="Regret to the best measured operating point that fits, in points of mAP, mean over "
        f"{counted(len(bench.seeds), 'seed')}.",
    )


def parameters(results: Results) -> ReportTable:
    """mAP against what of the model was transmitted, one row an operating point."""
    s, rows = results.surface, []
    for frames, codec, budget in dict.fromkeys(zip(s.frames, s.codec, s.budget_bytes, strict=True)):
        here = (s.frames == frames) & (s.codec == codec) & (s.budget_bytes == budget)
        cells, found = s.select(here), spread(s.map[here])
        rows.append(
            (
                int(frames),
                float(cells.parameters.mean()),
                float(cells.bits.mean()),
                float(cells.update_bytes.mean()),
                8 * float(cells.update_bytes.mean()) / 32,
                tuple(float(v) for v in (found.mean, found.low, found.high)),
            )
        )
    return ReportTable(
        "parameters",
        (
            Column("frames", "frames", lambda n: f"{n:,}"),
            Column("parameters", "parameters", lambda v: quantity(v, "")),
            Column("bits each", "bits_per_parameter", lambda v: decimal(v, 2)),
            Column("package", "update_bytes", byte_size),
            Column("as 32-bit parameters", "parameters_32_bit", lambda v: quantity(v, "")),
            Column("mAP (%)", ("map", "map_low", "map_high"), _plus_minus),
        ),
        rows,
        note="Parameters transmitted (numbers in the package that are not zero, of a delta: that "
        "change; all of the network where that was not counted), the mean bits of each, and the "
        "32-bit parameters that take "
        f"as many bytes; mAP50-95: {spread(s.map[: len({int(v) for v in s.seed})]).what}.",
    )


FIGURE_TABLES: dict[str, Callable[[Results], ReportTable]] = {
    "surface": surface,
    "data-curve": lambda results: curve(results, "data"),
    "model-curve": lambda results: curve(results, "model"),
    "share": share,
    "policies": policies,
    "regret": regret,
    "parameters": parameters,
}
