"""The best split by any value of two sizes in bytes: bracket, refine, polish.

A grid over the splits *brackets* the best hill, finer grids around its top *refine* it, and a
parabola through the last three points *polishes* it. The grid is finest where a direction has few
bytes. The report's page does the same (lab/report/assets/solver.js); branch and bound, which
proves its answers, is what the tests hold both to (docs/curves.md has the figures).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from endedge.allocator.accuracy.joint import Joint
from endedge.allocator.accuracy.shapes import Number
from endedge.allocator.problem import Budget, Range

__all__ = ["Best", "best_by", "best_split", "worth"]

Floats = NDArray[np.float64]
Best: TypeAlias = tuple[float, float, float]  # U, M and their value
Ends: TypeAlias = tuple[Floats, Floats, Floats, Floats]


def _spread(count: int) -> Floats:
    """``count`` shares from 0 to 1, even in their logits between the two ends."""
    logits = np.linspace(-14.0, 14.0, count - 2)
    return np.concatenate([[0.0], 1.0 / (1.0 + np.exp(-logits)), [1.0]])


_SPLITS, _FINER = _spread(160), np.linspace(0.0, 1.0, 33)
_COARSE, _ROOMS, _FINE = _spread(64), _spread(100), np.linspace(0.0, 1.0, 17)


def worth(joint: Joint, budget: Budget, upload: Number, update: Number) -> Number:
    """Φ(U, M): the objective, mAP averaged over the period (or final), not clipped."""
    return budget.objective(joint.value(upload, update), upload, update)


def best_split(joint: Joint, budget: Budget) -> Best:
    """(U, M, objective) of the best split; (0, 0, stale mAP) when no update beats it."""
    capped, most = budget, budget.update.high
    if joint.kind.model_shape.has_corner:  # beyond it bytes bring nothing: an end, not a kink
        most = min(max(joint.m0_bytes, budget.update.low), most)
        capped = replace(budget, update=Range(budget.update.low, most))
    upload, update, value = best_by(
        lambda upload, update: worth(joint, budget, upload, update), capped
    )
    if 0 < update == most < budget.update.high and not budget.takes_time:
        left = (budget.room - budget.up * upload) / budget.down  # no use to anybody else
        update = max(update, min(left, budget.update.high))
    return upload, update, value


def best_by(value: Callable[[Number, Number], Number], budget: Budget) -> Best:
    """(U, M, ``value``) of the best split; (0, 0, stale mAP) when no update beats that.

    ``value`` takes arrays of U and M in bytes and gives mAP. Where bytes take no time, more are
    never worse: all of the room is shared out. Otherwise how much of it is used is searched, too.
    """
    nothing = (0.0, 0.0, budget.stale)
    if budget.reason:
        return nothing
    least, most = budget.cost(budget.upload.low, budget.update.low), budget.room
    most = min(most, budget.cost(budget.upload.high, budget.update.high))
    if budget.takes_time:
        best = _best_room(value, budget, least, most)
    else:
        best = _best_share(value, _ends(budget, np.array([[most]])))
    return best if best[2] > budget.stale else nothing


def _best_share(value: Callable[[Number, Number], Number], ends: Ends) -> Best:
    """The best point of one line."""
    shares = _SPLITS
    for finer in (_FINER, _FINER, None):
        upload, update = _between(ends, shares)
        values = value(upload, update)[0]
        top = int(values.argmax())
        if finer is not None:
            shares = _around(shares, top, finer, 1)
    best = float(upload[0, top]), float(update[0, top]), float(values[top])
    if 0 < top < len(shares) - 1:
        before, here, after = values[top - 1 : top + 2].tolist()
        bend = before - 2.0 * here + after
        if bend < 0.0:
            step = 0.5 * (before - after) / bend * (shares[1] - shares[0])
            upload, update = _between(ends, np.array([shares[top] + step]))
            polished = float(upload[0, 0]), float(update[0, 0]), float(value(upload, update)[0, 0])
            best = max(best, polished, key=lambda split: split[2])
    return best


def _best_room(
    value: Callable[[Number, Number], Number], budget: Budget, least: float, most: float
) -> Best:
    """The best point of all lines of ``least`` to ``most`` room: from the best of the first grid,
    and from the best of those with least upload, which a ridge beside them may hide."""

    def on(used: Floats, shares: Floats) -> tuple[Floats, Floats, Floats]:
        ends = _ends(budget, (least + (most - least) * used)[:, None])
        upload, update = _between(ends, shares)
        return upload, update, value(upload, update)

    best = (0.0, 0.0, -math.inf)
    first = on(_ROOMS, _COARSE)
    for width in (len(_COARSE), 1):
        used, shares, grid = _ROOMS, _COARSE[:width], tuple(table[:, :width] for table in first)
        for _ in range(6):
            upload, update, values = grid
            i, j = divmod(int(values.argmax()), len(shares))
            here = float(upload[i, j]), float(update[i, j]), float(values[i, j])
            best = max(best, here, key=lambda split: split[2])
            shares, used = _around(shares, j, _FINE, 3), _around(used, i, _FINE, 3)
            grid = on(used, shares)
    return best


def _ends(budget: Budget, room: Floats) -> Ends:
    """U and M (n, 1) at the end with least upload of each line of constant ``room`` (n, 1), and
    what they gain on the way to its end with least package."""
    u, m = budget.upload, budget.update
    low = np.maximum(u.low, (room - budget.down * m.high) / budget.up)
    high = np.maximum(low, np.minimum(u.high, (room - budget.down * m.low) / budget.up))
    update = np.clip((room - budget.up * low) / budget.down, m.low, m.high)
    least = np.clip((room - budget.up * high) / budget.down, m.low, m.high)
    return low, update, high - low, least - update


def _between(ends: Ends, shares: Floats) -> tuple[Floats, Floats]:
    """U and M (n, s) at ``shares`` (s,) of the way from one end to the other."""
    upload, update, more_upload, more_update = ends
    return upload + more_upload * shares, update + more_update * shares


def _around(grid: Floats, i: int, finer: Floats, steps: int) -> Floats:
    """A ``finer`` grid from so many ``steps`` before entry i to as many after it."""
    low, high = grid[max(i - steps, 0)], grid[min(i + steps, len(grid) - 1)]
    return np.asarray(low + (high - low) * finer)
