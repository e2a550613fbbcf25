"""Policies on a table, scored in a second: what there was to win, and who won how much of it.

For each seed a policy decides by curves that never saw that seed, and is judged by the cells of
that seed. The oracle takes the best of those very cells, so nothing is above it; it is lucky, and
``oracle-other-seeds``, which chooses by the others, is not. ``static-other-seeds`` is the best
split fixed in advance: one share for the whole sweep, chosen by the other seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from endedge.allocator import Budget, Points, registry
from endedge.lab.benchmark.benchmark import (
    ORACLE,
    STATIC,
    UNLUCKY,
    BenchmarkSetup,
    bandwidths,
    by_cells,
    predicted_headroom,
)
from endedge.lab.benchmark.headroom import Contrast, Judged
from endedge.lab.benchmark.table import Table

__all__ = ["Score", "score"]

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Score(Judged):
    """``worth`` (policies, bandwidths, seeds): the judged mAP of every policy; ``draws`` the same
    with a last axis of replicates, None where the table has none."""

    table: Table
    policies: tuple[str, ...]
    bandwidth_hz: tuple[float, ...]
    worth: Floats
    draws: Floats | None

    def headroom(self, at: int | None = None) -> Contrast:
        """The oracle over the best split fixed in advance."""
        return self.contrast(ORACLE, self.fixed, at)

    def honest_headroom(self, at: int | None = None) -> Contrast:
        """The same of the oracle that chooses by other seeds (one seed: of the oracle)."""
        oracle = UNLUCKY if UNLUCKY in self.policies else ORACLE
        return self.contrast(oracle, self.fixed, at)

    @property
    def fixed(self) -> str:
        """The best split fixed in advance; the equal one where there is one seed only."""
        return STATIC if STATIC in self.policies else "equal"

    @property
    def unrounded(self) -> float:
        """By the curves alone, without rounding: the best split over the best fixed share, mean
        over the sweep (mAP). What is won beyond it is won by hitting measured sizes."""
        curves = self.table.curves_for(self.table.seeds[0])
        sweep = np.array(self.bandwidth_hz)
        return float(predicted_headroom(curves, self.table.link, self.table.rules, sweep).mean())

    def caught(self, policy: str) -> tuple[float, float, float]:
        """The share of the headroom over the sweep that ``policy`` catches, and its 90 % interval
        (NaN where there is no headroom). Below 0: the split fixed in advance was better."""
        most, mine = self.headroom().mean, self.contrast(policy, self.fixed)
        if most < 5e-5:
            return (float("nan"),) * 3
        half = mine.half()
        return mine.mean / most, (mine.mean - half) / most, (mine.mean + half) / most

    def regret(self, policy: str) -> tuple[float, float]:
        """Mean over the sweep and worst bandwidth of what ``policy`` loses to the oracle (mAP)."""
        i, best = self.policies.index(policy), self.policies.index(ORACLE)
        by_bandwidth = (self.worth[best] - self.worth[i]).mean(axis=1)
        return float(by_bandwidth.mean()), float(by_bandwidth.max())

    def ranking(self) -> list[str]:
        """Policies by mean regret, least first."""
        return sorted(self.policies, key=lambda name: self.regret(name)[0])


def score(table: Table, policies: Sequence[str] = (), bandwidths_hz: Sequence[float] = ()) -> Score:
    """Play ``policies`` (default: all that are registered) on ``table`` over ``bandwidths_hz``
    (default: the table's sweep). ``equal`` is always played, for it is what others are held to."""
    sweep = tuple(bandwidths_hz) or bandwidths(
        table.cells, table.link, table.curves_for(table.seeds[0])
    )
    names = [n for n in dict.fromkeys((*(policies or registry()), "equal")) if n != ORACLE]
    cells, rules, seeds = table.cells, table.rules, table.seeds
    points = Points.of(cells)
    reps = None if table.replicates is None else table.replicates.of(cells)
    m0_draws = None if table.replicates is None else 1e-4 * table.replicates.m0
    worth: dict[str, list[list[float]]] = {}
    drawn: dict[str, list[list[Floats]]] = {}
    for seed in seeds:
        curves = table.curves_for(seed)
        game = BenchmarkSetup(curves, table.link, rules, sweep, points)
        mine, rest = cells.select(cells.seed == seed), cells.select(cells.seed != seed)
        # In hindsight is by these very cells, so that nothing is above it.
        knowing = replace(game, options=by_cells(points, mine))
        others = replace(game, options=by_cells(points, rest)) if len(rest) else None
        m0 = float(mine.m0.mean())
        for hz in sweep:
            budget = Budget.of(table.link.at(hz), rules, curves)
            asked = [(n, (knowing if n == "best-static" else game).decide(n, hz)) for n in names]
            asked.append((ORACLE, knowing.decide(ORACLE, hz)))
            if others is not None:
                asked.append((UNLUCKY, others.decide(ORACLE, hz)))
                fixed = others.decide("best-static", hz)
                asked.append((STATIC, replace(fixed, point=game.executed(fixed.split))))
            for name, decision in asked:
                point = decision.point  # None: no update, or not measured with that seed
                key = point and (seed, point.frames, point.codec, int(point.budget_bytes))
                row = cells.row_of.get(key) if key else None
                stale = m0 if rules.stale_map is None else rules.stale_map
                fresh, reached = 0.0, stale
                if row is not None:
                    up, down = float(cells.upload_bytes[row]), float(cells.update_bytes[row])
                    fresh = budget.fresh_share(up, down)
                    reached = float(cells.map[row])
                worth.setdefault(name, []).append([stale + (reached - stale) * fresh])
                if reps is not None and m0_draws is not None:
                    before = m0_draws if rules.stale_map is None else np.full_like(m0_draws, stale)
                    after = before if row is None else reps[row]
                    drawn.setdefault(name, []).append([before + (after - before) * fresh])
    shape = (len(worth), len(seeds), len(sweep))
    values = np.array(list(worth.values())).reshape(shape).swapaxes(1, 2)
    draws = None
    if drawn:
        draws = np.array(list(drawn.values())).reshape(*shape, -1).swapaxes(1, 2)
    return Score(table, tuple(worth), sweep, values, draws)
