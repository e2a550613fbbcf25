"""The shape-constrained reference: the monotone surface nearest to the measured cells.

No family is assumed, only that more data and more model bytes do no harm: the least-squares
fit that rises along both axes of the grid, by Dykstra's alternating isotonic regressions
(Dykstra and Robertson 1982), read between the levels by bilinear interpolation in log bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

__all__ = ["Monotone", "fit_monotone"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Monotone:
    """``map`` (u, m) over rising ``upload_bytes`` (u,) and ``update_bytes`` (m,); mAP in [0, 1]."""

    upload_bytes: Floats
    update_bytes: Floats
    map: Floats

    def predict(self, upload: Floats | float, update: Floats | float) -> Floats:
        """mAP at (U, M), constant outside the measured range."""
        x, y = np.broadcast_arrays(np.asarray(upload, float), np.asarray(update, float))
        i, s = _bracket(self.upload_bytes, x)
        j, t = _bracket(self.update_bytes, y)
        i1 = np.minimum(i + 1, len(self.upload_bytes) - 1)
        j1 = np.minimum(j + 1, len(self.update_bytes) - 1)
        low = self.map[i, j] * (1 - t) + self.map[i, j1] * t
        high = self.map[i1, j] * (1 - t) + self.map[i1, j1] * t
        return np.asarray(low * (1 - s) + high * s)

    def room(self, upload: Floats | float, update: Floats | float) -> tuple[Floats, Floats]:
        """How much there is between measured levels for a curve to be wrong in, along the uploads
        and along the updates, in mAP: the rise from the level below (U, M) to the one above, times
        4t(1 − t) at the share t of the way (in log bytes; 0 at a level). Beyond the ends it grows
        over one more step to twice the last rise."""
        x, y = np.broadcast_arrays(np.asarray(upload, float), np.asarray(update, float))
        i, along_u = _hat(self.upload_bytes, x)
        j, along_m = _hat(self.update_bytes, y)
        u, m = self.upload_bytes, self.update_bytes
        i1, j1 = np.minimum(i + 1, len(u) - 1), np.minimum(j + 1, len(m) - 1)
        rise_u = self.predict(u[i1], y) - self.predict(u[i], y)
        rise_m = self.predict(x, m[j1]) - self.predict(x, m[j])
        return rise_u * along_u, rise_m * along_m


def _hat(levels: Floats, x: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Index of the level at or below x, and the weight of the rise from there (see above)."""
    i, inside = _bracket(levels, x)
    if len(levels) == 1:
        return i, np.zeros_like(inside)
    logs = np.log(np.maximum(levels, 1.0))
    step = np.maximum(logs[i + 1] - logs[i], 1e-12)
    beyond = np.abs(np.log(np.maximum(x, 1.0)) - (logs[i] + inside * step)) / step
    return i, 4 * inside * (1 - inside) + 2 * np.minimum(beyond, 1.0)


def _bracket(levels: Floats, x: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Index of the level at or below x, and the share of the way to the next, in log bytes."""
    logs = np.log(np.maximum(levels, 1.0))
    at = np.clip(np.log(np.maximum(x, 1.0)), logs[0], logs[-1])
    i = np.clip(np.searchsorted(logs, at, side="right") - 1, 0, max(len(logs) - 2, 0))
    if len(logs) == 1:
        return i, np.zeros_like(at)
    return i, (at - logs[i]) / np.maximum(logs[i + 1] - logs[i], 1e-12)


def fit_monotone(
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    upload_bytes: Floats,
    update_bytes: Floats,
    values: Floats,
    rounds: int = 100,
) -> Monotone:
    """Fit to cells (n,) at grid position (``rows``, ``columns``) with bytes and mAP ``values``.

    A level's bytes are the mean of its cells. Combinations that were not measured take what
    their neighbours allow (weight 1e-6). Levels must be numbered by rising bytes.
    """
    shape = (int(rows.max()) + 1, int(columns.max()) + 1)
    weight, total = np.zeros(shape), np.zeros(shape)
    np.add.at(weight, (rows, columns), 1.0)
    np.add.at(total, (rows, columns), values)
    mean = np.where(weight > 0, total / np.maximum(weight, 1.0), np.nan)
    mean = _filled(mean)
    weight = np.maximum(weight, 1e-6)

    fitted, by_row, by_column = mean.copy(), np.zeros(shape), np.zeros(shape)
    for _ in range(rounds):
        before = fitted
        turn = fitted - by_row
        fitted = np.stack(
            [isotonic_regression(turn[i], weights=weight[i]).x for i in range(shape[0])]
        )
        by_row = fitted - turn
        turn = fitted - by_column
        fitted = np.stack(
            [isotonic_regression(turn[:, j], weights=weight[:, j]).x for j in range(shape[1])],
            axis=1,
        )
        by_column = fitted - turn
        if np.abs(fitted - before).max() < 1e-10:
            break
    fitted = np.maximum.accumulate(np.maximum.accumulate(fitted, axis=0), axis=1)
    return Monotone(_level_means(rows, upload_bytes), _level_means(columns, update_bytes), fitted)


def _filled(mean: Floats) -> Floats:
    """Holes take row effect + column effect (the two-way table's additive guess)."""
    holes = np.isnan(mean)
    if not holes.any():
        return mean
    measured, there = np.where(holes, 0.0, mean), ~holes
    grand = measured.sum() / there.sum()
    row = np.where(there.any(1), measured.sum(1) / np.maximum(there.sum(1), 1), grand)
    column = np.where(there.any(0), measured.sum(0) / np.maximum(there.sum(0), 1), grand)
    return np.where(holes, row[:, None] + column[None, :] - grand, mean)


def _level_means(level: NDArray[np.int64], n_bytes: Floats) -> Floats:
    """Mean bytes of each level, made strictly rising."""
    count = np.bincount(level)
    means = np.bincount(level, weights=n_bytes) / np.maximum(count, 1)
    rising: Floats = np.maximum.accumulate(means)
    return rising + np.arange(len(means)) * 1e-6
