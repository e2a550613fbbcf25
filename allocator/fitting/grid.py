"""Measured cells as a grid to fit: seeds averaged, dominated codecs left out, folds dealt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from endedge.allocator.accuracy.joint import Kind
from endedge.allocator.accuracy.monotone import Monotone, fit_monotone
from endedge.allocator.fitting.surface import Surface
from endedge.data.errors import BadInput

__all__ = ["Grid", "checkerboard"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FOLDS = 10


@dataclass(frozen=True)
class Grid:
    """The p operating points of a surface and the n cells (point x seed) behind them.

    ``upload``, ``update`` mean bytes and ``map`` mean accuracy (p,) of ``count`` seeds;
    ``row``, ``column`` (p,): rank of the upload and of the budget; ``fold`` (p,): which
    points are left out together; ``cells`` (n,): the accuracies, with their ``point`` and
    ``seed`` index (n,).
    """

    upload: Floats
    update: Floats
    map: Floats
    count: Floats
    row: Ints
    column: Ints
    fold: Ints
    cells: Floats
    point: Ints
    seed: Ints

    @classmethod
    def of(cls, surface: Surface) -> Grid:
        """Raises :class:`BadInput` for fewer than 3 upload sizes or 2 model budgets, and for
        cells of no bytes."""
        if (surface.upload_bytes <= 0).any() or (surface.update_bytes <= 0).any():
            raise BadInput("curves need upload_bytes > 0 and update_bytes > 0 in every cell")
        surface = surface.select(_undominated(surface))
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
            # Steps of 3 and 7 spread a fold: it never takes a whole row or column.
            fold=(3 * row + 7 * column) % _FOLDS,
            cells=surface.map,
            point=point,
            seed=np.unique(surface.seed, return_inverse=True)[1],
        )

    def __len__(self) -> int:
        return len(self.map)

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
        """Root mean squared error of the shape-constrained fit on folds that it did not see."""
        predicted = np.empty(len(self))
        for fold in np.unique(self.fold):
            out = self.fold == fold
            predicted[out] = self.monotone(~out).predict(self.upload[out], self.update[out])
        return math.sqrt(float(((predicted - self.map) ** 2).mean()))


def checkerboard(surface: Surface) -> NDArray[np.bool_]:
    """Half of the operating points (all their seeds), every other one along both axes (n,):
    fit on one half, judge on the other."""
    row = _ranked(_options(surface), surface.upload_bytes)
    column = _ranked(list(surface.budget_bytes), surface.update_bytes)
    return np.asarray((row + column) % 2 == 0)


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
