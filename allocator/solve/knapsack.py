"""K devices with discrete menus of operating points on one band (multiple-choice knapsack)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from endedge.data.errors import BadInput

__all__ = ["MenuAllocation", "allocate_menus"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MenuAllocation:
    """``choice`` (K,): each device's entry; ``objective``: the sum of their values; no choice
    is better than ``bound``; ``price`` in value per Hz."""

    choice: NDArray[np.int64]
    objective: float
    bound: float
    price: float
    used_hz: float


def allocate_menus(cost_hz: Floats, value: Floats, bandwidth_hz: float) -> MenuAllocation:
    """Choose one entry a device so that costs stay within ``bandwidth_hz``.

    ``cost_hz``, ``value`` (K, J): hertz and weighted mAP of every entry; each row needs one of
    cost 0 (no update); pad short menus with value -inf. Bisection on one price; what is left
    of the band then goes to the upgrades that fit, the best per hertz first. The answer is at
    most the gain of one device below the optimum (Sinha and Zoltners 1979), and ``bound``
    says how much. Raises :class:`BadInput` for shapes that differ, NaN, negative costs, or a
    row without an entry of cost 0.
    """
    cost, worth = np.asarray(cost_hz, float), np.asarray(value, float)
    if cost.ndim != 2 or cost.shape != worth.shape or cost.size == 0:
        raise BadInput(f"cost {cost.shape} and value {worth.shape} must be equal (K, J) tables")
    if not (np.isfinite(cost).all() and (cost >= 0).all()) or np.isnan(worth).any():
        raise BadInput("costs must be finite and >= 0, values must not be NaN")
    if not ((cost == 0) & np.isfinite(worth)).any(axis=1).all():
        raise BadInput("every device needs an entry of cost 0: no update")
    if not (math.isfinite(bandwidth_hz) and bandwidth_hz >= 0):
        raise BadInput(f"bandwidth_hz = {bandwidth_hz} must be finite and >= 0")
    rows = np.arange(len(cost))
    free = np.where(cost == 0, worth, -np.inf).argmax(axis=1)
    bound = math.inf

    def answer(price: float) -> NDArray[np.int64]:
        nonlocal bound
        surplus = worth - price * cost
        choice = surplus.argmax(axis=1)
        bound = min(bound, price * bandwidth_hz + float(surplus[rows, choice].sum()))
        return np.asarray(choice)

    choice = answer(0.0)
    low, high = 0.0, 0.0
    if cost[rows, choice].sum() > bandwidth_hz:
        gain, paid = worth - worth[rows, free][:, None], np.maximum(cost, 1e-300)
        high = 2.0 * float(np.where((cost > 0) & (gain > 0), gain / paid, 0.0).max())
        choice = free
        for _ in range(100):
            price = (low + high) / 2
            trial = answer(price)
            if cost[rows, trial].sum() > bandwidth_hz:
                low = price
            else:
                high, choice = price, trial
            if high - low <= 1e-15 * high:
                break
        choice = _upgrade(cost, worth, choice, bandwidth_hz)
    objective = float(worth[rows, choice].sum())
    used = float(cost[rows, choice].sum())
    return MenuAllocation(choice, objective, max(bound, objective), high, used)


def _upgrade(
    cost: Floats, worth: Floats, choice: NDArray[np.int64], band: float
) -> NDArray[np.int64]:
    """Spend what is left on single upgrades, the best per hertz first, while any fits."""
    choice, rows = choice.copy(), np.arange(len(cost))
    left = band - float(cost[rows, choice].sum())
    for _ in range(100):
        more, gain = cost - cost[rows, choice][:, None], worth - worth[rows, choice][:, None]
        fits = (gain > 0) & (more <= left)
        if not fits.any():
            break
        per_hz = np.where(fits, gain / np.maximum(more, 1e-300), -np.inf)
        k, j = np.unravel_index(int(per_hz.argmax()), per_hz.shape)
        left -= float(more[k, j])
        choice[k] = j
    return choice
