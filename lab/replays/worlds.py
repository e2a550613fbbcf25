"""What a simulated world answers to an update: rates measured in a table, and what is assumed.

Measured: of each operating point the mAP that one update from the table's starting point reached.
Nothing measured says what the second update on top of the first does. So every comparison has three
worlds, of which two are not what ``adaptive`` believes:

``shared``  an update gains the share r(U, M) of what is left to the place's ceiling; one r for all
            places. This is the policy's own law: the world in which it should do best.
``levels``  an update goes most of the way to the accuracy that such an update reached in the table,
            and no further: nothing adds up.
``own``     every place has rates of its own (what a byte of frames or of model is worth differs),
            ceilings drift, and what is learned in one place can harm another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from endedge.allocator import Curves, Points, Rules
from endedge.data.errors import BadInput
from endedge.lab.benchmark.table import Table
from endedge.lab.config import LinkConfig

__all__ = ["KINDS", "Ground", "World"]

Floats: TypeAlias = NDArray[np.float64]

KINDS = ("shared", "levels", "own")
REACHED = 0.9  # of what can be gained: assumed of the best that a table measured
PLACES = 3  # of a day on one table
TRAINING = 0.005  # mAP: deviation of one training
VERDICT = 0.008  # mAP: of the verdict on held-back frames
_LEAST_GAIN = 0.005  # mAP that a table has to gain anywhere
_TOWARDS = 0.7  # how far an update goes to its level, in ``levels``
_DRIFT = 0.004  # mAP a period: of ceilings, in ``own``


@dataclass(frozen=True)
class Ground:
    """Tables as what days are made of: ``points`` that all of them measured, and by seed of a table
    the ``map`` (tables, points) reached and the ``start`` (tables,)."""

    tables: tuple[Table, ...]
    points: Points
    seeds: tuple[int, ...]
    map: dict[int, Floats]
    start: dict[int, Floats]

    @classmethod
    def of(cls, tables: Sequence[Table]) -> Ground:
        """Raises :class:`BadInput` for tables that have no operating points in common, too few
        seeds in common, or in which no update gains anything."""
        first = tables[0]
        keys = [_keys(Points.of(t.cells)) for t in tables]
        common = set(keys[0]).intersection(*keys[1:])
        names = ", ".join(t.name for t in tables)
        if len(common) < 4:
            raise BadInput(
                f"{names}: {len(common)} operating points in common (frames, codec, budget); a day "
                "that moves between tables needs 4, so replay these one at a time"
            )
        points = Points.of(first.cells)
        rows = [i for i, key in enumerate(keys[0]) if key in common]
        points = _select(points, np.array(rows))
        seeds = sorted(set(first.seeds).intersection(*(t.seeds for t in tables[1:])))
        if not seeds:
            raise BadInput(f"{names}: no seed in common")
        found, start = {}, {}
        for seed in seeds:
            reached = [_reached(t, seed, points) for t in tables]
            found[seed] = np.stack([r for r, _ in reached])
            start[seed] = np.array([m0 for _, m0 in reached])
        for i, table in enumerate(tables):
            best = max(float((found[s][i] - start[s][i]).max()) for s in seeds)
            if best < _LEAST_GAIN:
                raise BadInput(f"table {table.name}: no update gains half a point; nothing to play")
        return cls(tuple(tables), points, tuple(seeds), found, start)

    @property
    def link(self) -> LinkConfig:
        return self.tables[0].link

    @cached_property
    def rules(self) -> Rules:
        return self.tables[0].rules

    def curves_for(self, seed: int) -> Curves:
        """Those of the first table that did not see ``seed``."""
        return self.tables[0].curves_for(seed)

    @cached_property
    def sweep(self) -> tuple[float, float]:
        """The bandwidths in Hz between which there is something to decide."""
        from endedge.lab.benchmark.benchmark import bandwidths

        hz = bandwidths(self.tables[0].cells, self.link, self.tables[0].curves_for(self.seeds[0]))
        return min(hz), max(hz)


class World:
    """The places of one day: ``rate`` (places, points), ``start`` and ``ceiling`` (places,)."""

    def __init__(self, kind: str, ground: Ground, seed: int, rng: np.random.Generator) -> None:
        if kind not in KINDS:
            raise BadInput(f"no world {kind!r}; there are {', '.join(KINDS)}")
        self.kind, self.points = kind, ground.points
        reached, start = ground.map[seed], ground.start[seed]
        gain = np.maximum((reached - start[:, None]).max(axis=1) / REACHED, _LEAST_GAIN)
        rate = np.clip((reached - start[:, None]) / gain[:, None], -0.3, 0.98)
        if len(start) == 1:  # places like the table's own, which is the first
            places = np.zeros(PLACES, dtype=int)
            gain = gain[places] * np.exp(np.r_[0.0, rng.normal(0, 0.4, PLACES - 1)])
            start = start[places] * np.exp(np.r_[0.0, rng.normal(0, 0.3, PLACES - 1)])
            rate = rate[places]
        self.start = np.minimum(start, 0.9)
        self.ceiling = np.minimum(self.start + gain, 0.97)
        self.transfer = rng.uniform(-0.15, 0.35) if kind != "own" else rng.uniform(-0.5, 0.2)
        if kind == "own":
            up = ground.points.upload_bytes / ground.points.upload_bytes.max()
            down = ground.points.update_bytes / ground.points.update_bytes.max()
            lean = rng.normal(0, 0.4, (len(self.start), 2))
            lean[0] = 0.0
            rate = rate * up ** lean[:, :1] * down ** lean[:, 1:]
            rate = np.clip(rate, -0.3, 0.98)
        self.rate = rate
        self._rng = rng

    def __len__(self) -> int:
        return len(self.start)

    def expected(self, accuracy: Floats, place: int, point: int) -> Floats:
        """(places,): the accuracy after an update of ``point`` made of frames of ``place``, on
        average, if it is sent."""
        rate = self.rate[place, point]
        after = accuracy.copy()
        if self.kind == "levels":
            level = self.start[place] + rate * (self.ceiling[place] - self.start[place])
            after[place] += _TOWARDS * (level - accuracy[place])
        else:
            after[place] += rate * (self.ceiling[place] - accuracy[place])
        moved = max(rate, 0.0) * self.transfer / 2
        others = np.arange(len(accuracy)) != place
        room = self.ceiling - accuracy if self.transfer > 0 else accuracy
        after[others] += moved * np.maximum(room[others], 0.0)
        return after

    def update(self, accuracy: Floats, place: int, point: int) -> tuple[Floats, bool]:
        """The accuracy after an update, and whether the edge held it back."""
        training, verdict = self._rng.normal(0, (TRAINING, VERDICT))
        after = self.expected(accuracy, place, point)
        after[place] += training
        if after[place] - accuracy[place] + verdict <= 0:
            return accuracy, True
        return np.clip(after, 0.0, 1.0), False

    def pass_period(self) -> None:
        """A period goes by."""
        if self.kind == "own":
            moved = self._rng.normal(0, _DRIFT, len(self))
            self.ceiling = np.clip(self.ceiling + moved, self.start, 0.97)


def _keys(points: Points) -> list[tuple[Any, ...]]:
    return list(zip(points.frames, points.codec, points.budget_bytes, strict=True))


def _select(points: Points, rows: NDArray[np.int64]) -> Points:
    return Points(**{name: getattr(points, name)[rows] for name in points.__dataclass_fields__})


def _reached(table: Table, seed: int, points: Points) -> tuple[Floats, float]:
    """mAP (points,) of the cells of ``seed``, and where they started; the mean of the other seeds
    where one was not measured."""
    mine = Points.of(table.cells.select(table.cells.seed == seed))
    every = Points.of(table.cells)
    own = dict(zip(_keys(mine), mine.map, strict=True))
    rest = dict(zip(_keys(every), every.map, strict=True))
    m0 = float(table.cells.m0[table.cells.seed == seed].mean())
    return np.array([own.get(key, rest[key]) for key in _keys(points)]), m0
