"""Policies against each other on measured accuracy, over a sweep of bandwidths.

A policy answers with bytes each way. The device then does what fits: the largest measured
upload and package under these caps, a round that really ran, seed by seed (paired: the same
frames and the same starting weights under every policy). Regret is the oracle's mAP minus
the policy's, and the oracle is the best measured operating point that fits.
"""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from endedge.allocator import (
    Allocation,
    Curves,
    Known,
    Link,
    Points,
    Range,
    Rules,
    Surface,
    allocate,
)
from endedge.allocator.policies import decide, registry
from endedge.data.units import BadInput, hz_for_bytes
from endedge.lab.config import Link as LinkConfig

__all__ = [
    "Outcome",
    "allocation_csv",
    "bandwidths",
    "benchmark",
    "executable",
    "outcomes_csv",
    "split_sweep",
    "summary",
]


@dataclass(frozen=True)
class Outcome:
    """One policy at one bandwidth with one seed: what it asked for, what was executed (0 frames:
    no update), the mAP the device had then, and the regret to the oracle's of that seed."""

    bandwidth_hz: float
    policy: str
    seed: int
    asked_upload_bytes: float
    asked_update_bytes: float
    frames: int
    codec: str
    budget_bytes: int
    upload_bytes: float
    update_bytes: float
    map: float
    regret: float


def bandwidths(surface: Surface, link: LinkConfig) -> tuple[float, ...]:
    """The sweep in Hz, log-spaced: from just too little for any measured round to everything."""
    need = [
        hz_for_bytes(up, link.up_bit_per_s_per_hz, link.period_s)
        + hz_for_bytes(down, link.down_bit_per_s_per_hz, link.period_s)
        for up, down in zip(surface.upload_bytes, surface.update_bytes, strict=True)
    ]
    low = link.bandwidth_low_hz or 0.8 * min(need)
    high = link.bandwidth_high_hz or 1.25 * max(need)
    return tuple(float(b) for b in np.geomspace(low, high, link.bandwidths))


def executable(rules: Rules, points: Points) -> Rules:
    """``rules`` with the bytes that rounds were measured at as limits, so that the least that a
    policy may choose is a round that every seed can execute."""
    least = points.budget_bytes == points.budget_bytes.min()
    fewest = points.frames == points.frames.min()
    return replace(
        rules,
        upload_limits=Range(
            float(points.upload_bytes[fewest].max()), float(points.upload_bytes.max())
        ),
        update_limits=Range(
            float(points.update_bytes[least].max()), float(points.update_bytes.max())
        ),
    )


def split_sweep(
    curves: Curves, link: LinkConfig, rules: Rules, sweep: Sequence[float]
) -> list[Allocation]:
    """The fitted allocator's answer at every bandwidth."""
    return [allocate(curves, _link(link, b), rules) for b in sweep]


def benchmark(
    surface: Surface, curves: Curves, link: LinkConfig, rules: Rules, sweep: Sequence[float]
) -> list[Outcome]:
    """Every registered policy at every bandwidth, executed for every seed of the surface."""
    points = Points.of(surface)
    row_of = {
        (int(s), int(f), str(c), int(b)): i
        for i, (s, f, c, b) in enumerate(
            zip(surface.seed, surface.frames, surface.codec, surface.budget_bytes, strict=True)
        )
    }
    seeds = sorted({int(s) for s in surface.seed})
    m0 = {s: float(surface.m0[surface.seed == s].mean()) for s in seeds}
    outcomes: list[Outcome] = []
    for bandwidth in sweep:
        executed: dict[tuple[str, int], Outcome] = {}
        for name in registry():
            rng = np.random.default_rng([zlib.crc32(name.encode()), round(bandwidth)])
            known = Known(_link(link, bandwidth), curves, points, rng, rules, tuple(sweep))
            split = decide(name, known)
            at = points.fitting(split.upload_bytes, split.update_bytes) if split.sends else None
            for seed in seeds:
                chosen = None if at is None else points.point(at)
                row = (
                    None
                    if chosen is None
                    else row_of[seed, chosen.frames, chosen.codec, int(chosen.budget_bytes)]
                )
                executed[name, seed] = Outcome(
                    bandwidth, name, seed, split.upload_bytes, split.update_bytes,
                    0 if chosen is None else chosen.frames,
                    "" if chosen is None else chosen.codec,
                    0 if chosen is None else int(chosen.budget_bytes),
                    0.0 if row is None else float(surface.upload_bytes[row]),
                    0.0 if row is None else float(surface.update_bytes[row]),
                    m0[seed] if row is None else float(surface.map[row]),
                    0.0,
                )  # fmt: skip
        outcomes += [
            Outcome(**{**vars(o), "regret": executed["oracle", seed].map - o.map})
            for (_, seed), o in executed.items()
        ]
    return outcomes


def _link(link: LinkConfig, bandwidth_hz: float) -> Link:
    return Link(bandwidth_hz, link.period_s, link.up_bit_per_s_per_hz, link.down_bit_per_s_per_hz)


def outcomes_csv(outcomes: Sequence[Outcome]) -> str:
    """The text of ``benchmark.csv``: one row a policy, bandwidth and seed."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [f.name for f in fields(Outcome)]
    writer.writerow(names)
    writer.writerows([getattr(o, name) for name in names] for o in outcomes)
    return out.getvalue()


def allocation_csv(allocations: Sequence[Allocation]) -> str:
    """The text of ``allocation.csv``: the fitted allocator over the sweep of bandwidths."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["bandwidth_hz", "uplink_hz", "downlink_hz", "upload_bytes", "update_bytes", "frames",
         "budget_bytes", "predicted_map", "low", "high", "upload_value", "update_value", "regime",
         "extrapolates"]
    )  # fmt: skip
    for a in allocations:
        low, high = a.interval
        writer.writerow(
            [a.link.bandwidth_hz, a.uplink_hz, a.downlink_hz, a.upload_bytes, a.update_bytes,
             a.frames, "" if a.update is None else a.update.budget_bytes, a.predicted_map, low,
             high, a.upload_value, a.update_value, a.regime, int(a.extrapolates)]
        )  # fmt: skip
    return out.getvalue()


def summary(path: Path) -> str:
    """``benchmark.csv`` as a small table: mean mAP and regret of each policy over the sweep."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [
                (r["policy"], float(r["map"]), float(r["regret"])) for r in csv.DictReader(file)
            ]
    except (OSError, KeyError, ValueError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read {path} ({error}); run 'endedge bench' first") from None
    lines = [f"{'policy':24} {'mAP':>7} {'regret':>7}   mean over bandwidths and seeds"]
    by_policy: dict[str, list[tuple[float, float]]] = {}
    for name, value, regret in rows:
        by_policy.setdefault(name, []).append((value, regret))
    means = {name: np.mean(values, axis=0) for name, values in by_policy.items()}
    for name, (value, regret) in sorted(means.items(), key=lambda item: -item[1][0]):
        lines.append(f"{name:24} {100 * value:7.2f} {100 * regret:7.2f}")
    return "\n".join(lines)
