"""The report's tables, as values with the words for people."""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np

from endedge.lab.benchmark.outcomes import HINDSIGHT, Floats, Spread, spread
from endedge.lab.benchmark.ranking import winners
from endedge.lab.benchmark.robustness import Means, mean_by
from endedge.lab.report.results import Results, judged_name
from endedge.lab.report.tabular import Column, ReportTable, decimal
from endedge.lab.report.wording import bandwidth, byte_size, counted, hundredths, points, quantity

__all__ = [
    "classes",
    "costs",
    "facts",
    "families",
    "interval",
    "latencies",
    "regrets",
    "rounds",
    "standings",
    "studies",
    "version",
]

_SHOWN = ("fitted", "fitted-bytes", "robust", "monotone", "best-static", "equal")
_PACKAGES = ("endedge", "torch", "torchvision", "ultralytics", "pycocotools", "numpy", "scipy")


def interval(seen: Spread, signed: bool = False) -> str:
    """``[24.1, 24.9]`` in points, empty for one seed."""
    return "" if seen.seeds == 1 else _between((float(seen.low), float(seen.high)), signed)


def _between(ends: Sequence[float], signed: bool = False, places: int = 1) -> str:
    low, high = (decimal(100 * end, places, signed=signed) for end in ends)
    return "–" if low == "–" else f"[{low},\u00a0{high}]"


def _percent(value: float) -> str:
    return decimal(100 * value, 1)


def families(results: Results) -> ReportTable:
    """The best curve families by held-out error, and the monotone reference."""
    curves = results.curves
    rows: list[tuple[Any, ...]] = [
        (c.kind.composition, c.kind.data, c.kind.model, c.held_out, c.rmse, c.aicc)
        for c in curves.candidates[:8]
    ]
    nan = math.nan
    rows.append(("monotone reference", "none", "none", curves.reference_held_out, nan, nan))
    parameters = ", ".join(f"{k} = {v:.4g}" for k, v in curves.joint.parameters().items())
    return ReportTable(
        "families",
        (
            Column("composition", "composition"),
            Column("data family", "data_family"),
            Column("model family", "model_family"),
            Column("held-out error (points)", "held_out_map", hundredths),
            Column("in sample (points)", "rmse_map", hundredths),
            Column("AICc", "aicc", lambda v: decimal(v, 0)),
        ),
        rows,
        chosen=0,
        note=f"The best {min(8, len(curves.candidates))} of {len(curves.candidates)} that were "
        "tried, by held-out error (whole levels left out). "
        f"Chosen: {curves.joint.kind}, {parameters}.",
    )


def regrets(results: Results) -> ReportTable:
    """Every policy over the whole sweep, least regret first."""
    bench = results.benchmark
    rows, chosen = [], -1
    for place, k in enumerate(bench.by_regret()):
        name = bench.policies[k]
        chosen = place if name == "fitted" else chosen
        mean = spread(bench.regret[k].mean(axis=0))
        by_bandwidth = bench.regret[k].mean(axis=1)
        worst = int(by_bandwidth.argmax())
        loses = float(by_bandwidth[worst]) > 0
        rows.append(
            (
                name + (" (hindsight)" if name in HINDSIGHT else ""),
                float(bench.judged[k].mean()),
                float(mean.mean),
                (float(mean.low), float(mean.high)),
                float(by_bandwidth[worst]) if loses else math.nan,
                float(bench.bandwidth_hz[worst]) if loses else math.nan,
            )
        )
    return ReportTable(
        "regrets",
        (
            Column("policy", "policy"),
            Column(f"mean {judged_name(results)} (%)", "map", hundredths),
            Column("mean regret (points)", "regret_map", hundredths),
            Column("interval", ("regret_low_map", "regret_high_map"), _between),
            Column("worst", "worst_regret_map", hundredths),
            Column("at", "worst_bandwidth_hz", bandwidth),
        ),
        rows,
        chosen,
        f"Interval: {spread(bench.judged[0]).what}. Hindsight: the policy saw the accuracies that "
        "it is judged by. The oracle is chosen on the mean over seeds, so in a single seed a "
        "policy can be ahead of it.",
    )


def costs(results: Results) -> ReportTable:
    """What a day of updates takes at each bandwidth, and what it brings."""
    period_s = results.channel.period_s
    a_day = 86400 / period_s
    rows = [
        (
            c.bandwidth_hz,
            c.upload_bytes * a_day,
            c.update_bytes * a_day,
            c.edge_s,
            period_s / c.edge_s if c.edge_s > 0 else math.nan,
            float(c.gain.mean),
            (float(c.gain.low), float(c.gain.high)),
            c.points_per_mb,
        )
        for c in results.costs
    ]
    return ReportTable(
        "costs",
        (
            Column("bandwidth", "bandwidth_hz", bandwidth),
            Column("up a day", "upload_bytes_per_day", byte_size),
            Column("down a day", "update_bytes_per_day", byte_size),
            Column("edge time an update", "edge_s", lambda v: quantity(v, "s")),
            Column("devices per edge", "devices_per_edge", lambda v: decimal(v, 1)),
            Column("gain", "gain_map", points),
            Column("interval", ("gain_low_map", "gain_high_map"), lambda v: _between(v, True)),
            Column("points a MB", "points_per_mb", lambda v: decimal(v, 1)),
        ),
        rows,
        note=f"The fitted allocator's updates as executed, one every {quantity(period_s, 's')}. "
        "Edge time: fine-tuning, distilling and packing on the machine that measured. Devices per "
        "edge: as many as one such machine can serve. Gain: over no update. Points a MB: gain for "
        "the traffic of one update.",
    )


def standings(results: Results) -> ReportTable:
    """The best honest policy at every bandwidth, and who cannot be told from it; nobody is named
    where there was nothing to gain."""
    bench = results.benchmark
    at = {float(hz): k for k, hz in enumerate(bench.bandwidth_hz)}
    rows = []
    for w in winners(bench):
        headroom = bench.to_win(at[w.bandwidth_hz])
        won = headroom.claims
        rows.append(
            (
                w.bandwidth_hz,
                headroom.mean,
                w.policy if won else f"– ({headroom.standing})",
                w.regret if won else math.nan,
                (", ".join(w.tied) or "–") if won else "–",
                float(w.lead.mean),
                (float(w.lead.low), float(w.lead.high)),
            )
        )
    return ReportTable(
        "standings",
        (
            Column("bandwidth", "bandwidth_hz", bandwidth),
            Column("to win (points)", "headroom_map", hundredths),
            Column("best policy", "winner"),
            Column("regret (points)", "regret_map", hundredths),
            Column("not clearly worse", "not_clearly_worse"),
            Column("fitted over best static", "fitted_over_static_map", points),
            Column(
                "interval",
                ("fitted_over_static_low_map", "fitted_over_static_high_map"),
                lambda v: _between(v, True),
            ),
        ),
        rows,
        note="Policies without hindsight, at the bandwidths at which an update can be sent. To "
        "win: the oracle over the best split fixed in advance; where that is not above its error, "
        "nobody has won. Differences are paired over seeds: "
        f"{spread(bench.regret[0]).what}. Clear: the interval leaves out zero; two seeds that "
        "agree do so by chance half of the time.",
    )


def studies(results: Results) -> list[tuple[str, ReportTable]]:
    """(title, table) of each study that the folder has."""
    trials = results.trials
    regret, worth = mean_by(trials, lambda t: t.regret), mean_by(trials, lambda t: t.average_map)
    arms = list(dict.fromkeys((t.study, t.arm) for t in trials))

    def row(value: Means, keys: Sequence[tuple[str, str, str]]) -> list[float]:
        return [float(value[key]) for key in keys]

    held = [a for a in arms if a[0] in ("points", "seeds")]
    wrong = [a for a in arms if a[0] == "error"]
    links = [a for a in arms if a not in held and a not in wrong]
    draws = results.config.benchmark.error_draws if results.config else 0
    off = f"Every parameter off by a random factor of about the size named, {draws} times."
    blind = "points: fitted to every other operating point. seeds: fitted to the other seeds."
    found = []
    for name, title, some, note in (
        ("heldout", "Curves that never saw the cells they decide about", held, blind),
        ("errors", "Curves that are wrong", wrong, off),
        ("scenarios", "Other links", links, "One key of the link changed, all else equal."),
    ):
        if not some:
            continue
        shown = [policy for policy in _SHOWN if (*some[0], policy) in regret]
        columns = [
            Column("study", "study"),
            Column("case", "case"),
            Column("oracle mAP (%)", "oracle_map", hundredths),
            *(Column(policy, f"{policy}_regret_map", hundredths) for policy in shown),
        ]
        rows = [
            [*arm, *row(worth, [(*arm, "oracle")]), *row(regret, [(*arm, name) for name in shown])]
            for arm in some
        ]
        note += " Mean regret over the sweep, in points of mAP, on the measured grid."
        found.append((title, ReportTable(name, columns, rows, note=note)))
    return found


def latencies(results: Results) -> ReportTable:
    """Each model and engine that was timed, with what it detects there."""
    rows = [
        (
            r.model,
            r.runtime,
            f"{r.imgsz} px, {counted(r.threads, 'thread')}",
            (r.latency_s, r.low_s, r.high_s),
            1 / r.latency_s,
            math.nan if r.map is None else r.map,
            r.machine,
        )
        for r in results.latencies
    ]

    def milliseconds(values: Sequence[float]) -> str:
        median, low, high = (decimal(1000 * v, 1) for v in values)
        return f"{median} ({low} to {high})"

    return ReportTable(
        "latency",
        (
            Column("model", "model"),
            Column("engine", "runtime"),
            Column("input", "input"),
            Column("ms a frame (10th to 90th %)", ("latency_s", "low_s", "high_s"), milliseconds),
            Column("frames/s", "frames_per_s", lambda v: decimal(v, 1)),
            Column("mAP (%)", "map", _percent),
            Column("machine", "machine"),
        ),
        rows,
        note="One frame at a time, letterboxed picture to boxes; mAP of that engine's own answers.",
    )


def rounds(results: Results) -> ReportTable:
    """Each upload size: mAP before, of the student on the device, of the teacher; the cost."""
    codecs = len({r.codec for r in results.rounds}) > 1
    budget = quantity(max(r.budget_bytes for r in results.rounds), "B")
    rows = [
        (
            r.frames,
            *([r.codec] if codecs else []),
            r.upload_bytes,
            _mean(r.m0),
            _mean(r.student),
            float(r.gain.mean()),
            _mean(r.teacher),
            r.edge_s,
            r.held_back,
        )
        for r in results.rounds
    ]
    return ReportTable(
        "rounds",
        (
            Column("frames", "frames", lambda n: f"{n:,}"),
            *([Column("codec", "codec")] if codecs else []),
            Column("upload", "upload_bytes", byte_size),
            Column("before (m0)", ("m0", "m0_sd"), _plus_minus),
            Column(f"student in {budget}", ("map", "map_sd"), _plus_minus),
            Column("gain", "gain_map", points),
            Column("teacher", ("teacher_map", "teacher_map_sd"), _plus_minus),
            Column("edge time", "edge_s", lambda v: quantity(v, "s")),
            Column("held back", "held_back", lambda n: str(n) if n else "–"),
        ),
        rows,
        note="mAP50-95 (%) on the device's evaluation frames, mean ± standard deviation over "
        "seeds. The student is the decoded package on the device. Edge time: fine-tuning, "
        "distilling and packing. Held back: updates, of all budgets, that the held-back frames "
        "showed to be no better; they are not sent and the device keeps m0.",
    )


def classes(results: Results) -> ReportTable:
    """AP of each class before and after the largest update, the most changed first."""
    found = results.classes
    return ReportTable(
        "classes",
        (
            Column("class", "class"),
            Column("objects", "objects", lambda n: f"{n:,}"),
            Column("before (%)", "ap_before", _percent),
            Column("after (%)", "ap_after", _percent),
            Column("change", "change_ap", points),
            Column("interval", ("change_low_ap", "change_high_ap"), lambda v: _between(v, True)),
        ),
        [
            (
                c.name,
                c.objects,
                float(c.before.mean()),
                float(c.after.mean()),
                float(c.change.mean),
                (float(c.change.low), float(c.change.high)),
            )
            for c in found
        ],
        note="AP50-95 of each class on the device's evaluation frames: the decoded package of the "
        "largest round, as evaluated on the device, against the model before any update. "
        + (f"Interval: {found[0].change.what}." if found else ""),
    )


def _mean(values: Floats) -> tuple[float, float]:
    """Mean and standard deviation of what is known."""
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return math.nan, math.nan
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else math.nan


def _plus_minus(values: Sequence[float]) -> str:
    mean, sd = values
    return _percent(mean) + ("" if math.isnan(sd) else f" ± {_percent(sd)}")


def version(package: str) -> str:
    """The version of an installed package; "none" where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def facts(results: Results) -> dict[str, str]:
    """What this was made from and with."""
    curves, link, config = results.curves, results.channel, results.config
    versions = [f"{package} {version(package)}" for package in _PACKAGES]
    found = {
        "surface.csv (SHA-256)": results.surface.sha256(),
        "curves": f"{curves.joint.kind}, {len(curves.replicates)} bootstrap replicates",
        "link": f"{link.schedule}, {quantity(link.period_s, 's')} a period, "
        f"{link.up_bit_per_s_per_hz:g} bit/s/Hz up, {link.down_bit_per_s_per_hz:g} bit/s/Hz down",
    }
    if config is not None:
        found["detectors"] = (
            f"teacher {config.weights.teacher}, student {', '.join(config.weights.student)}, "
            f"{config.data.image_side} px"
        )
    else:
        found |= {name.replace("_", " "): str(value) for name, value in results.about.items()}
    return found | {
        "this page made with": ", ".join([*versions, f"Python {platform.python_version()}"])
    }
