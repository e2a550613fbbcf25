"""A fleet as menus: for every device, the rounds that were measured at every pace, with what they
cost and what they are worth by the curves, by its own measured cells, and by other seeds."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from endedge.allocator import Points, Surface
from endedge.allocator.solve.turns import EVERY, Pace, kept_gain
from endedge.lab.benchmark.benchmark import rules_of, sendable
from endedge.lab.benchmark.table import Table

__all__ = ["Menus", "Sort", "Timing", "Unit"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Unit:
    """One device: the number of its member, its weight, the seed of its table that judges it, and
    the replicate of that (a scene of its own; None: the evaluation frames as they are)."""

    member: int
    weight: float
    seed: int
    replicate: int | None = None


@dataclass(frozen=True)
class Timing:
    """What time does: the paces that there are and the share of a gain kept from one period to the
    next; ``trainers``: edges that train one upload at a time (None: as many as it takes)."""

    paces: tuple[Pace, ...]
    keep: float = 0.0
    trainers: int | None = 1

    @cached_property
    def gains(self) -> Floats:
        """The gain of each pace (P,)."""
        return np.array([kept_gain(pace, self.keep) for pace in self.paces])


class Sort:
    """Devices of one table: its measured points (J,), and accuracies by seed."""

    def __init__(self, table: Table) -> None:
        self.table, self.link = table, table.link
        self.cells: Surface = sendable(table.surface, table.fewest_frames)
        self.points = Points.of(self.cells)
        self.rules = rules_of(table.link, table.surface)
        rates = self.link.up_bit_per_s_per_hz, self.link.down_bit_per_s_per_hz
        up, down = (8.0 / (self.link.period_s * rate) for rate in rates)
        self.hertz = up * self.points.upload_bytes + down * self.points.update_bytes
        self.seconds = np.asarray(
            self.rules.edge_s + self.rules.edge_s_per_upload_byte * self.points.upload_bytes
        )
        average = self.rules.objective == "average"
        self.fresh = 1.0 - self.rules.apply_s / self.link.period_s if average else 1.0
        keys = zip(self.points.frames, self.points.codec, self.points.budget_bytes, strict=True)
        self.row_of = {key: j for j, key in enumerate(keys)}
        own = zip(self.cells.frames, self.cells.codec, self.cells.budget_bytes, strict=True)
        self._point = np.array([self.row_of[key] for key in own])
        self._drawn = table.replicates.of(self.cells) if table.replicates else np.zeros((0, 0))
        self._by_seed: dict[int, tuple[Floats, float]] = {}
        self._predicted: dict[int, tuple[Floats, float]] = {}

    @cached_property
    def able(self) -> Points:
        """What a device can be asked to do in one period."""
        return Points.of(self.table.cells)

    def stale(self, m0: Any) -> Any:
        """What a device has without an update."""
        return m0 if self.rules.stale_map is None else self.rules.stale_map + 0.0 * m0

    def measured(self, seed: int, replicate: int | None = None) -> tuple[Floats, float]:
        """mAP (J,) of the cells of a seed, m0 where it has none, and m0."""
        if replicate is None:
            if seed not in self._by_seed:
                mine = self.cells.seed == seed
                m0 = float(self.cells.m0[mine].mean())
                self._by_seed[seed] = self._spread(mine, self.cells.map, m0), m0
            return self._by_seed[seed]
        drawn, m0_drawn = self.draws(seed)
        return drawn[:, replicate], float(m0_drawn[replicate])

    def draws(self, seed: int) -> tuple[Floats, Floats]:
        """The same on every draw of the evaluation frames: (J, R), (R,)."""
        assert self.table.replicates is not None
        m0 = 1e-4 * self.table.replicates.m0
        found = np.broadcast_to(m0, (len(self.points), len(m0))).copy()
        mine = self.cells.seed == seed
        found[self._point[mine]] = self._drawn[mine]
        return found, np.asarray(m0)

    def others(self, seed: int) -> tuple[Floats, float] | None:
        """mAP (J,) and m0 by all other seeds; None where there are none."""
        rest = [s for s in self.table.seeds if s != seed]
        if not rest:
            return None
        found = [self.measured(s) for s in rest]
        return np.mean([f for f, _ in found], axis=0), float(np.mean([m for _, m in found]))

    def predicted(self, seed: int) -> tuple[Floats, float]:
        """mAP (J,) and m0 by curves that did not see the seed."""
        if seed not in self._predicted:
            curves = self.table.curves_for(seed)
            value = curves.joint.value(self.points.upload_bytes, self.points.update_bytes)
            self._predicted[seed] = np.clip(value, 1e-4, 1.0), curves.m0
        return self._predicted[seed]

    def allowed(self, pace: Pace) -> NDArray[np.bool_]:
        """The points that a device has the frames for, and a trainer the time (J,)."""
        able = self.seconds <= self.link.period_s
        if self.link.captured_frames is not None:
            periods = pace.cycle if pace.way == "stretch" else 1
            able &= self.points.frames <= self.link.captured_frames * periods
        return able

    def _spread(self, mine: NDArray[np.bool_], values: Floats, m0: float) -> Floats:
        found = np.full(len(self.points), m0)
        found[self._point[mine]] = values[mine]
        return found


class Menus:
    """Entries of ``units``: entry 0 is no update, then every point at every pace. ``hertz`` and
    ``seconds`` (K, E) of one update; ``judged``, ``believed``, ``others`` (K, E): mAP over time, by
    the device's own cells, by its curves, by other seeds (None where a table has one seed);
    ``allowed`` (K, E); ``line`` (K,): a random order of the devices, where one is asked for."""

    def __init__(
        self, sorts: Sequence[Sort], units: Sequence[Unit], kept: Timing, trial: int = 0
    ) -> None:
        self.sorts, self.units, self.kept = sorts, units, kept
        self.line: Ints = np.random.default_rng([0x11E, trial]).permutation(len(units))
        self.most = max(len(s.points) for s in sorts)
        self.pace = (Pace(), *(p for p in kept.paces for _ in range(self.most)))
        self.cycle = np.array([p.cycle for p in self.pace], dtype=float)
        self.weight = np.array([u.weight for u in units])
        self.member = np.array([u.member for u in units])
        fixed = {m: self._fixed(sorts[m]) for m in sorted({u.member for u in units})}
        self.hertz, self.seconds, allowed = (
            np.stack([fixed[u.member][k] for u in units]) for k in range(3)
        )
        self.allowed = allowed > 0
        self.timed = bool(self.seconds.any()) and kept.trainers is not None
        period_s = sorts[0].link.period_s
        self.room_s = kept.trainers * period_s if self.timed and kept.trainers else math.inf
        told: dict[tuple[int, int], tuple[Floats, Floats | None]] = {}
        for u in units:
            if (key := (u.member, u.seed)) not in told:
                sort = sorts[u.member]
                rest = sort.others(u.seed)
                told[key] = (
                    self._worth(sort, *sort.predicted(u.seed)),
                    None if rest is None else self._worth(sort, *rest),
                )
        self.believed = np.stack([told[u.member, u.seed][0] for u in units])
        rest_of = [told[u.member, u.seed][1] for u in units]
        known = [r for r in rest_of if r is not None]
        self.others = np.stack(known) if len(known) == len(units) else None
        self.judged = np.stack(
            [
                self._worth(sorts[u.member], *sorts[u.member].measured(u.seed, u.replicate))
                for u in units
            ]
        )

    def __len__(self) -> int:
        return len(self.units)

    @property
    def mean_hertz(self) -> Floats:
        """Hertz (K, E) over a cycle."""
        return np.asarray(self.hertz / self.cycle)

    @property
    def mean_seconds(self) -> Floats:
        return np.asarray(self.seconds / self.cycle)

    def masked(self, value: Floats) -> Floats:
        """−inf where an entry is not allowed."""
        return np.where(self.allowed, value, -np.inf)

    def every_period(self) -> Menus:
        """The same without turns."""
        found = copy.copy(self)
        found.allowed = self.allowed & np.array([pace == EVERY for pace in self.pace])
        return found

    def entry(self, unit: int, row: int | None, pace: int = 0) -> int:
        """The entry of a point (None: no update) at a pace."""
        return 0 if row is None else 1 + pace * self.most + row

    def point_of(self, entry: int) -> tuple[int | None, Pace]:
        """The row of its table's points (None: no update), and the pace."""
        return (None if entry == 0 else (entry - 1) % self.most), self.pace[entry]

    def draws(self, choice: Ints) -> Floats | None:
        """mAP over time of each device on every draw of the evaluation frames (K, R), the same draw
        for all devices of a table; None where a table has no replicates."""
        tables = [self.sorts[u.member].table.replicates for u in self.units]
        if any(t is None for t in tables) or any(u.replicate is not None for u in self.units):
            return None
        count = min(len(t.m0) for t in tables if t is not None)
        found = []
        cache: Mapping[tuple[int, int], tuple[Floats, Floats]] = {
            (u.member, u.seed): self.sorts[u.member].draws(u.seed) for u in self.units
        }
        for u, entry in zip(self.units, choice, strict=True):
            (cells, m0), sort = cache[u.member, u.seed], self.sorts[u.member]
            before = sort.stale(m0)[:count]
            row, _ = self.point_of(int(entry))
            if row is None:
                found.append(before)
                continue
            gain = self.kept.gains[(int(entry) - 1) // self.most] * sort.fresh
            found.append(before + (cells[row, :count] - before) * gain)
        return np.stack(found)

    def _fixed(self, sort: Sort) -> tuple[Floats, Floats, Floats]:
        """Hertz, seconds and whether allowed (E,): of all devices of a table."""
        hertz, seconds, allowed = np.zeros((3, len(self.pace)))
        allowed[0] = 1.0
        for k, pace in enumerate(self.kept.paces):
            at = slice(1 + k * self.most, 1 + k * self.most + len(sort.points))
            hertz[at], seconds[at] = sort.hertz, sort.seconds
            allowed[at] = sort.allowed(pace)
        return hertz, seconds, allowed

    def _worth(self, sort: Sort, accuracy: Floats, m0: float) -> Floats:
        """mAP over time (E,) of accuracies (J,)."""
        stale = float(sort.stale(m0))
        found = np.full(len(self.pace), stale)
        for k, gain in enumerate(self.kept.gains):
            at = slice(1 + k * self.most, 1 + k * self.most + len(accuracy))
            found[at] = stale + (accuracy - stale) * (sort.fresh * gain)
        return found
