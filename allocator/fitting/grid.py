"""Measured cells as a grid to fit: seeds averaged, dominated codecs left out, folds dealt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from endedge.allocator.accuracy.joint import Kind
from endedge.allocator.accuracy.monotone import Monotone, fit_monotone
from endedge.allocator.fitting.surface import Surface
from endedge.data.errors import BadInput

__all__ = ["Grid", "checkerboard", "falling", "usable"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FOLDS = 5  # of the levels of one axis


@dataclass(frozen=True)
class Grid:
    """The p operating points of a surface and the n cells (point x seed) behind them.

    ``upload``, ``update`` mean bytes and ``map`` mean accuracy (p,) of ``count`` seeds;
    ``row``, ``column`` (p,): rank of the upload and of the budget; ``folds`` (f, p): points
    that are left out together, whole levels of one axis; ``cells`` (n,): the accuracies, with
    their ``point`` and ``seed`` index (n,); ``luck`` (r, p): how far each point is off its
    accuracy on r draws of the evaluation frames, the same draws for all (r may be 0).
    """

    upload: Floats
    update: Floats
    map: Floats
    count: Floats
    row: Ints
    column: Ints
    folds: NDArray[np.bool_]
    cells: Floats
    point: Ints
    seed: Ints
    luck: Floats

    @classmethod
    def of(cls, surface: Surface, drawn: Floats | None = None) -> Grid:
        """Raises :class:`BadInput` for fewer than 3 upload sizes or 2 model budgets, and for
        cells of no bytes."""
        if (surface.upload_bytes <= 0).any() or (surface.update_bytes <= 0).any():
            raise BadInput("curves need upload_bytes > 0 and update_bytes > 0 in every cell")
        surface = replace(surface, update_bytes=usable(surface.update_bytes, surface.budget_bytes))
        kept = _undominated(surface)
        luck = np.zeros((0, int(kept.sum())))
        if drawn is not None:
            luck = (np.asarray(drawn)[kept] - surface.map[kept, None]).T
        surface = surface.select(kept)
        row_of = _ranked(_options(surface), surface.upload_bytes)
        column_of = _ranked(list(surface.budget_bytes), surface.update_bytes)
        rows, columns = int(row_of.max()) + 1, int(column_of.max()) + 1
        if rows < 3 or columns < 2:
            raise BadInput(
                "curves need at least 3 upload sizes and 2 model budgets; "
                f"the surface has {rows} and {columns}"
            )
        places, point = np.unique(row_of * columns + column_of, return_inverse=True)
        row, column = places // columns, places % columns

        def mean(values: Floats) -> Floats:
            return np.asarray(np.bincount(point, weights=values) / np.bincount(point))

        return cls(
            upload=mean(surface.upload_bytes),
            update=mean(surface.update_bytes),
            map=mean(surface.map),
            count=np.bincount(point).astype(float),
            row=row,
            column=column,
            folds=np.concatenate([_interior(row), _interior(column)]),
            cells=surface.map,
            point=point,
            seed=np.unique(surface.seed, return_inverse=True)[1],
            luck=np.array([mean(row) for row in luck]).reshape(len(luck), len(places)),
        )

    def __len__(self) -> int:
        return len(self.map)

    @property
    def row_folds(self) -> int:
        """How many of the folds are of uploads; the others are of budgets."""
        return len(_interior(self.row))

    @property
    def variance(self) -> float:
        """The variance of one cell around the mean of its point; 0 where no point has two."""
        mean = np.bincount(self.point, weights=self.cells) / self.count
        spare = len(self.cells) - len(self)
        return float(((self.cells - mean[self.point]) ** 2).sum()) / spare if spare else 0.0

    def identifies(self, kind: Kind) -> bool:
        """Whether there are as many sizes and points as the families have parameters."""
        free = kind.free
        return bool(
            free[:4].sum() <= self.row.max() + 1
            and free[4:6].sum() <= self.column.max() + 1
            and free.sum() < len(self)
        )

    def monotone(self, kept: NDArray[np.bool_] | slice = slice(None)) -> Monotone:
        """The shape-constrained fit of all points, or of those ``kept``."""
        row, column = (np.unique(x[kept], return_inverse=True)[1] for x in (self.row, self.column))
        return fit_monotone(row, column, self.upload[kept], self.update[kept], self.map[kept])

    def monotone_held_out(self) -> float:
        """Root mean squared error of the shape-constrained fit on levels that it did not see."""
        errors = [
            self.monotone(~out).predict(self.upload[out], self.update[out]) - self.map[out]
            for out in self.folds
        ]
        return math.sqrt(float((np.concatenate(errors) ** 2).mean())) if errors else math.nan


def usable(update_bytes: Floats, budget_bytes: Floats) -> Floats:
    """The bytes at which a curve takes a package (n,): its own; those of its budget where it
    needed less than half of them (an input adapter alone is 350 B, whatever is allowed). Such a
    package would come in any larger budget, too, and a curve that saw it at its own size alone
    would promise more there than the packer can send."""
    return np.where(2 * update_bytes < budget_bytes, budget_bytes, update_bytes)


def _interior(level: Ints) -> NDArray[np.bool_]:
    """The levels of one axis but the first and the last, dealt into at most five folds (f, p): a
    curve is judged by sizes that it did not see, between sizes that it did. Neighbours are left out
    together only where there are too few levels to do otherwise."""
    top = int(level.max())
    folds = min(_FOLDS, top - 1)
    inside = (level > 0) & (level < top)
    dealt = np.array([inside & (level % folds == k) for k in range(folds)], dtype=np.bool_)
    return dealt.reshape(-1, len(level))


def checkerboard(surface: Surface) -> NDArray[np.bool_]:
    """Half of the operating points (all their seeds), every other one along both axes (n,):
    fit on one half, judge on the other."""
    row = _ranked(_options(surface), surface.upload_bytes)
    column = _ranked(list(surface.budget_bytes), surface.update_bytes)
    return np.asarray((row + column) % 2 == 0)


def falling(surface: Surface) -> str:
    """Where accuracy falls with more frames, in a sentence; empty where it does not.

    Uploads of one codec are compared with every larger one, paired by budget and seed: the largest
    fall that is above two standard errors and above 0.1 points. Cells of a seed share their frames,
    so seeds are averaged first and the error is over seeds where there are several.
    """
    worst, said = -1e-3, ""
    for codec in dict.fromkeys(surface.codec.tolist()):
        cells: dict[float, dict[tuple[float, float], float]] = {}
        for i in np.flatnonzero(surface.codec == codec):
            at = cells.setdefault(float(surface.frames[i]), {})
            at[float(surface.seed[i]), float(surface.budget_bytes[i])] = float(surface.map[i])
        sizes = sorted(cells)
        for few, many in ((a, b) for i, a in enumerate(sizes) for b in sizes[i + 1 :]):
            by_seed: dict[float, list[float]] = {}
            for key in cells[few].keys() & cells[many].keys():
                by_seed.setdefault(key[0], []).append(cells[many][key] - cells[few][key])
            gains = np.array([np.mean(v) for v in by_seed.values()])
            if len(gains) == 1:
                gains = np.array(next(iter(by_seed.values())))
            if len(gains) < 2:
                continue
            gain, error = float(gains.mean()), float(gains.std(ddof=1)) / math.sqrt(len(gains))
            if gain < worst and gain < -2 * error:
                worst = gain
                said = (
                    f"accuracy falls with more frames: {many:,.0f} frames ({codec}) end "
                    f"{-100 * gain:.1f} ± {100 * error:.1f} points below {few:,.0f}"
                )
    return said


def _options(surface: Surface) -> list[tuple[float, str]]:
    return list(zip(surface.frames.tolist(), surface.codec.tolist(), strict=True))


def _ranked(keys: Sequence[object], n_bytes: Floats) -> Ints:
    """Number the distinct keys 0, 1, … by rising mean bytes; one number a cell."""
    number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    index = np.array([number[key] for key in keys])
    means = np.bincount(index, weights=n_bytes) / np.bincount(index)
    rank = np.empty(len(number), dtype=np.int64)
    rank[np.argsort(means, kind="stable")] = np.arange(len(number))
    return np.asarray(rank[index])


def _undominated(surface: Surface) -> NDArray[np.bool_]:
    """Leave out uploads that another codec beats with fewer bytes.

    A(U) is the accuracy of the best (N, codec) for U bytes. An option goes when one of
    another codec costs no more and is better by more than a standard error over the cells
    (budget, seed) that both have; options of one codec all stay, so a curve may start below m0.
    """
    options = _options(surface)
    cells: dict[tuple[float, str], dict[tuple[float, float], int]] = {}
    for i, option in enumerate(options):
        cells.setdefault(option, {})[surface.budget_bytes[i], surface.seed[i]] = i
    cost = {o: float(surface.upload_bytes[list(c.values())].mean()) for o, c in cells.items()}

    def beaten(option: tuple[float, str], other: tuple[float, str]) -> bool:
        if other[1] == option[1] or cost[other] > cost[option]:
            return False
        shared = cells[option].keys() & cells[other].keys()
        if len(shared) < 2:
            return False
        gain = np.array(
            [surface.map[cells[other][k]] - surface.map[cells[option][k]] for k in shared]
        )
        return bool(gain.mean() > gain.std(ddof=1) / math.sqrt(len(gain)))

    gone = {o for o in cells if any(beaten(o, other) for other in cells)}
    return np.array([o not in gone for o in options])
