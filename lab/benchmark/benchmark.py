"""Policies against each other on measured accuracy, over a sweep of bandwidths.

A policy answers with bytes each way, which are carried out by a round that really ran, seed by
seed (paired: the same frames and the same starting weights under every policy). What a split
comes down to is for the setup to say: the largest measured upload and package within it, or a
round made for it (exact.py). Regret is what the oracle's round was worth minus what the
policy's was, and the oracle is the best operating point that was run and fits.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from endedge.allocator import (
    Allocation,
    Budget,
    Curves,
    Known,
    OperatingPoint,
    Points,
    Range,
    Rules,
    Split,
    Surface,
    allocate,
    best_split,
)
from endedge.allocator.csv_files import dicts_csv
from endedge.allocator.policies import decide, registry
from endedge.allocator.solve.search import worth
from endedge.data.errors import BadInput
from endedge.lab.config import Config, LinkConfig

__all__ = [
    "BenchmarkRow",
    "BenchmarkSetup",
    "Decision",
    "Hindsight",
    "allocation_csv",
    "bandwidths",
    "benchmark",
    "by_cells",
    "captured",
    "executable",
    "outcomes",
    "planned",
    "predicted_headroom",
    "rules_of",
    "sendable",
    "split_sweep",
]

ORACLE, UNLUCKY = "oracle", "oracle-other-seeds"
STATIC = "static-other-seeds"
_FINE = 64  # bandwidths at which the sweep looks for something to decide


@dataclass(frozen=True)
class BenchmarkRow:
    """One policy at one bandwidth with one seed: what it asked for, what was executed (0 frames:
    no update), the mAP the device had then (``average_map``: over the period, where the link's
    objective is that), and the regret to the oracle's of that seed."""

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
    average_map: float
    regret: float


@dataclass(frozen=True)
class Decision:
    """What a policy asked for, and what that comes down to (None: no update)."""

    bandwidth_hz: float
    policy: str
    split: Split
    point: OperatingPoint | None


@dataclass(frozen=True)
class BenchmarkSetup:
    """What policies are told: curves, link, rules, the sweep, and the ``options`` that can be
    executed; ``round_down`` gives the option that a split comes down to (default:
    ``Points.fitting``)."""

    curves: Curves
    link: LinkConfig
    rules: Rules
    bandwidths_hz: tuple[float, ...]
    options: Points
    round_down: Callable[[Split], int | None] | None = None

    def decide(self, policy: str, bandwidth_hz: float) -> Decision:
        """Ask one policy. Raises :class:`BadInput` for an answer that the link cannot carry."""
        known = Known(
            self.link.at(bandwidth_hz),
            self.curves,
            self.options,
            np.random.default_rng([zlib.crc32(policy.encode()), round(bandwidth_hz)]),
            self.rules,
            self.bandwidths_hz,
            self.round_down,
        )
        split = decide(policy, known)
        return Decision(bandwidth_hz, policy, split, self.executed(split))

    def executed(self, split: Split) -> OperatingPoint | None:
        """What a split comes down to: the answer of ``known.executes``; None: no update."""
        if not split.sends:
            return None
        round_down = self.round_down or (
            lambda s: self.options.fitting(s.upload_bytes, s.update_bytes, s.codec, s.student)
        )
        row = round_down(split)
        return None if row is None else self.options.point(row)

    def decisions(self, policies: Iterable[str] | None = None) -> list[Decision]:
        """Ask every registered policy (or ``policies``) at every bandwidth; not the oracle,
        whose answer is known only when all the others were executed."""
        names = [name for name in (policies or registry()) if name != ORACLE]
        return [self.decide(name, hz) for hz in self.bandwidths_hz for name in names]


def bandwidths(
    surface: Surface, link: LinkConfig, curves: Curves | None = None
) -> tuple[float, ...]:
    """The sweep in Hz, from just too little for any measured round to everything: log-spaced, or,
    with ``curves``, by rule where there is something to decide. Half of the weight is then spread
    evenly and half by what the curves' best split is ahead of the one share that is best, by the
    same curves, over the whole range; no measured accuracy has a say."""
    low, high = link.sweep_hz(surface.upload_bytes, surface.update_bytes)
    if curves is None:
        return tuple(float(b) for b in np.geomspace(low, high, link.bandwidths))
    fine = np.geomspace(low, high, _FINE)
    ahead = predicted_headroom(curves, link, rules_of(link, surface), fine)
    weight = np.full(_FINE, 0.5 / _FINE)
    weight += 0.5 * ahead / ahead.sum() if ahead.sum() > 0 else 0.5 / _FINE
    reached = np.concatenate([[0.0], np.cumsum((weight[1:] + weight[:-1]) / 2)])
    wanted = np.linspace(0.0, reached[-1], link.bandwidths)
    return tuple(float(b) for b in np.exp(np.interp(wanted, reached, np.log(fine))))


def predicted_headroom(
    curves: Curves, link: LinkConfig, rules: Rules, sweep: NDArray[np.float64]
) -> NDArray[np.float64]:
    """At each bandwidth, by the curves alone: the best split over the share that is best in the
    mean of them all (mAP, >= 0)."""
    shares, best, fixed = np.linspace(0.0, 1.0, 21), [], []
    for hz in sweep:
        budget = Budget.of(link.at(float(hz)), rules, curves)
        best.append(best_split(curves.joint, budget)[2])
        splits = [budget.with_share(float(share)) for share in shares]
        up, down = (
            np.array([getattr(s, n) for s in splits]) for n in ("upload_bytes", "update_bytes")
        )
        sent = worth(curves.joint, budget, up, down) if not budget.reason else budget.stale
        fixed.append(np.broadcast_to(sent, shares.shape))
    table = np.array(fixed)
    return np.asarray(np.maximum(np.array(best) - table[:, int(table.mean(axis=0).argmax())], 0.0))


def rules_of(link: LinkConfig, surface: Surface | None = None) -> Rules:
    """The rules of a period. Edge time that is ``measured`` is fixed plus a time per uploaded
    byte, the least-squares fit (neither negative) to the cells' stages.

    Raises :class:`BadInput` when it was not measured.
    """
    fixed, per_byte = link.edge_s, 0.0
    if fixed == "measured":
        if surface is None:
            raise BadInput("link.edge_s = measured, but there is no surface with the seconds")
        seconds = surface.seconds_teacher + surface.seconds_student + surface.seconds_pack
        timed = np.isfinite(seconds)
        if not timed.any():
            raise BadInput("link.edge_s = measured, but the surface has no seconds of the stages")
        columns = np.stack([np.ones(timed.sum()), surface.upload_bytes[timed]], axis=1)
        scale = columns.max(axis=0)
        fitted = nnls(columns / scale, seconds[timed])[0] / scale
        fixed, per_byte = float(fitted[0]), float(fitted[1])
    return Rules(
        schedule=link.schedule,
        edge_s=fixed / link.edge_speed,
        edge_s_per_upload_byte=per_byte / link.edge_speed,
        apply_s=link.apply_s,
        objective=link.objective,
    )


def captured(surface: Surface, link: LinkConfig) -> Surface:
    """The cells whose frames the device captures in a period."""
    if link.captured_frames is None:
        return surface
    there = surface.frames <= link.captured_frames
    if not there.any():
        raise BadInput(
            f"link.captured_frames = {link.captured_frames}, but the smallest measured upload "
            f"has {surface.frames.min():.0f} frames"
        )
    return surface.select(there)


def sendable(surface: Surface, fewest_frames: int) -> Surface:
    """The cells that can end in an update: from fewer than ``fewest_frames`` the edge never sends
    one (``held_back`` of the configuration), which everybody knows. All, where none can."""
    enough = surface.frames >= fewest_frames
    return surface.select(enough) if enough.any() else surface


def executable(rules: Rules, points: Points) -> Rules:
    """``rules`` with the bytes that rounds were measured at as limits, so that the least that a
    policy may choose is a round that every seed can execute."""
    least = points.budget_bytes == points.budget_bytes.min()
    return replace(
        rules,
        upload_limits=Range(float(points.upload_bytes.min()), float(points.upload_bytes.max())),
        update_limits=Range(
            float(points.update_bytes[least].max()), float(points.update_bytes.max())
        ),
    )


def planned(config: Config, surface: Surface) -> Rules:
    """The rules of a results folder: its link's, within the bytes that were measured and that can
    end in an update. Every stage, the report and ``endedge allocate`` plan with these."""
    cells = sendable(captured(surface, config.link), config.fewest_frames)
    return executable(rules_of(config.link, surface), Points.of(cells))


def split_sweep(
    curves: Curves, link: LinkConfig, rules: Rules, sweep: Sequence[float]
) -> list[Allocation]:
    """The fitted allocator's answer at every bandwidth."""
    return [allocate(curves, link.at(b), rules) for b in sweep]


def benchmark(
    surface: Surface, curves: Curves, link: LinkConfig, rules: Rules, sweep: Sequence[float]
) -> list[BenchmarkRow]:
    """Every registered policy at every bandwidth, executed on the measured grid."""
    setup = BenchmarkSetup(curves, link, rules, tuple(sweep), Points.of(surface))
    return outcomes(setup, surface, setup.decisions())


def by_cells(points: Points, cells: Surface) -> Points:
    """The operating points of ``cells`` with their accuracies alone, but with the bytes that
    ``points`` has of them: who knows other seeds does not thereby fit into a thinner link."""
    theirs = Points.of(cells)
    keys = ("frames", "codec", "budget_bytes")
    row = {k: i for i, k in enumerate(zip(*(getattr(points, n) for n in keys), strict=True))}
    rows = [row[k] for k in zip(*(getattr(theirs, n) for n in keys), strict=True)]
    up, down = points.upload_bytes[rows], points.update_bytes[rows]
    return replace(theirs, upload_bytes=up, update_bytes=down)


@dataclass(frozen=True)
class Hindsight:
    """What the measured accuracies say, by bandwidth: the ``best`` decision over all seeds, and
    for each seed, by what the others measured (none of a single seed), the best one and the one
    share that is best for the whole sweep: the best split that was fixed in advance."""

    best: dict[float, Decision]
    others: dict[float, list[tuple[int, Decision]]]

    @classmethod
    def of(cls, setup: BenchmarkSetup, surface: Surface) -> Hindsight:
        """Among all cells of ``surface``."""

        points = Points.of(surface)

        def among(cells: Surface) -> BenchmarkSetup:
            return replace(setup, options=by_cells(points, cells), round_down=None)

        seeds = sorted({int(s) for s in surface.seed})
        every = among(surface)
        rest = {s: among(surface.select(surface.seed != s)) for s in seeds if len(seeds) > 1}
        sweep = setup.bandwidths_hz
        others: dict[float, list[tuple[int, Decision]]] = {hz: [] for hz in sweep}
        for seed, game in rest.items():
            for hz in sweep:
                lucky, fixed = game.decide(ORACLE, hz), game.decide("best-static", hz)
                if setup.round_down is None:  # the share is theirs, the rounding everybody's
                    fixed = replace(fixed, point=setup.executed(fixed.split))
                others[hz].append((seed, replace(lucky, policy=UNLUCKY)))
                others[hz].append((seed, replace(fixed, policy=STATIC)))
        return cls({hz: every.decide(ORACLE, hz) for hz in sweep}, others)


def outcomes(
    setup: BenchmarkSetup,
    surface: Surface,
    decisions: Sequence[Decision],
    hindsight: Hindsight | None = None,
) -> list[BenchmarkRow]:
    """What ``decisions`` gave with every seed of ``surface``, which holds their cells, and what
    the oracle would have chosen among all of its cells (``hindsight``, where it is known already).
    The best of many noisy means is lucky: ``oracle-other-seeds`` chooses for each seed by the
    others, and is not; ``static-other-seeds`` is a yardstick: one share for the whole sweep,
    chosen by the others.

    Raises :class:`BadInput` for a decision whose cell is not there.
    """
    seeds = sorted({int(s) for s in surface.seed})
    m0 = {s: float(surface.m0[surface.seed == s].mean()) for s in seeds}

    def run(decision: Decision, seed: int, best: dict[int, float]) -> BenchmarkRow:
        point, split = decision.point, decision.split
        stale = m0[seed] if setup.rules.stale_map is None else setup.rules.stale_map
        frames, codec, budget_bytes, up, down, reached, average = 0, "", 0, 0.0, 0.0, stale, stale
        if point is not None:
            frames, codec, budget_bytes = point.frames, point.codec, int(point.budget_bytes)
            key = (seed, frames, codec, budget_bytes)
            if key not in surface.row_of:
                raise BadInput(f"{decision.policy} chose {key[1:]}, not measured with seed {seed}")
            row = surface.row_of[key]
            up, down = float(surface.upload_bytes[row]), float(surface.update_bytes[row])
            reached = float(surface.map[row])
            here = setup.link.at(decision.bandwidth_hz)
            budget = Budget.of(here, setup.rules, setup.curves)
            average = stale + (reached - stale) * budget.fresh_share(up, down)
        return BenchmarkRow(
            decision.bandwidth_hz,
            decision.policy,
            seed,
            split.upload_bytes,
            split.update_bytes,
            frames,
            codec,
            budget_bytes,
            up,
            down,
            reached,
            average,
            best.get(seed, average) - average,
        )

    hindsight = hindsight or Hindsight.of(setup, surface)
    asked: dict[float, list[Decision]] = {}
    for d in decisions:
        asked.setdefault(d.bandwidth_hz, []).append(d)
    rows: list[BenchmarkRow] = []
    for bandwidth_hz in setup.bandwidths_hz:
        best = hindsight.best[bandwidth_hz]
        worth = {seed: run(best, seed, {}).average_map for seed in seeds}
        here = asked.get(bandwidth_hz, [])
        rows += [run(d, seed, worth) for d in (*here, best) for seed in seeds]
        others = hindsight.others[bandwidth_hz]
        for name in (UNLUCKY, STATIC):
            rows += [run(d, seed, worth) for seed, d in others if d.policy == name]
    return rows


def allocation_csv(allocations: Sequence[Allocation]) -> str:
    """The text of ``allocation.csv``: the fitted allocator over the sweep of bandwidths."""
    return dicts_csv(
        [
            {
                "bandwidth_hz": a.link.bandwidth_hz,
                "uplink_hz": a.uplink_hz,
                "downlink_hz": a.downlink_hz,
                "upload_bytes": a.upload_bytes,
                "update_bytes": a.update_bytes,
                "frames": a.frames,
                "budget_bytes": "" if a.update is None else a.update.budget_bytes,
                "predicted_map": a.predicted_map,
                "low": a.interval[0],
                "high": a.interval[1],
                "upload_value": a.upload_value,
                "update_value": a.update_value,
                "regime": a.regime,
                "extrapolates": int(a.extrapolates),
            }
            for a in allocations
        ]
    )
