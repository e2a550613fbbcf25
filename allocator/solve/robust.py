"""Robust mode: the split whose lower quantile over the bootstrap curves is best."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from endedge.allocator.accuracy.fitted import Fitted
from endedge.allocator.problem import Budget, Link, Rules
from endedge.allocator.solve.optimum import Allocation, best_split, describe
from endedge.data.errors import BadInput

__all__ = ["allocate_robust", "best_quantile"]

Floats = NDArray[np.float64]

_ROOMS, _SHARES, _ZOOMS = 24, 96, 4


def allocate_robust(
    curves: Fitted, link: Link, rules: Rules | None = None, quantile: float = 0.1
) -> Allocation:
    """Like ``allocate``, maximising the ``quantile`` of the objective over the bootstrap
    curves; ``average_map`` is that quantile.

    A search by zooming grids: within about 1e-4 of the range of bytes, so within 1e-5 mAP
    where the quantile is smooth. Raises :class:`BadInput` for a quantile outside (0, 1) and
    for curves without replicates.
    """
    budget = Budget.of(link, rules or Rules(), curves)
    return describe(curves, link, budget, *best_quantile(curves, budget, quantile))


def best_quantile(curves: Fitted, budget: Budget, quantile: float) -> tuple[float, float, float]:
    """(U, M, quantile of the objective); (0, 0, stale mAP) when no update beats it."""
    if not 0 < quantile < 1:
        raise BadInput(f"quantile {quantile} must lie between 0 and 1")
    if not curves.replicates:
        raise BadInput("robust mode needs curves with bootstrap replicates; fit them with some")
    if budget.reason:
        return 0.0, 0.0, budget.stale

    def value(upload: Floats, update: Floats) -> Floats:
        drawn = budget.objective(curves.draws(upload, update), upload, update)
        return np.asarray(np.quantile(drawn, quantile, axis=0))

    start = best_split(curves.joint, budget)
    best = (0.0, 0.0, budget.stale)
    if start[0] > 0 or start[1] > 0:
        at_start = float(value(np.array([start[0]]), np.array([start[1]]))[0])
        best = max(best, (start[0], start[1], at_start), key=lambda found: found[2])

    u, m = budget.upload, budget.update
    least, most = budget.cost(u.low, m.low), min(budget.room, budget.cost(u.high, m.high))
    takes_time = budget.fresh_up > 0 or budget.fresh_down > 0
    rooms, shares = (least if takes_time else most, most), (0.0, 1.0)
    for _ in range(_ZOOMS):
        room = np.linspace(*rooms, _ROOMS if takes_time else 1)[:, None]
        share = np.linspace(*shares, _SHARES)[None, :]
        # The line of this room, from its end with least to its end with most upload.
        low = np.maximum(u.low, (room - budget.down * m.high) / budget.up)
        high = np.maximum(low, np.minimum(u.high, (room - budget.down * m.low) / budget.up))
        upload = low + (high - low) * share
        update = np.clip((room - budget.up * upload) / budget.down, m.low, m.high)
        found = value(upload.ravel(), update.ravel())
        k = int(np.argmax(found))
        if found[k] > best[2]:
            best = float(upload.ravel()[k]), float(update.ravel()[k]), float(found[k])
        i, j = divmod(k, _SHARES)
        rooms, shares = _around(room[:, 0], i), _around(share[0], j)
    return best


def _around(grid: Floats, i: int) -> tuple[float, float]:
    """The neighbours of entry i."""
    return float(grid[max(i - 1, 0)]), float(grid[min(i + 1, len(grid) - 1)])
