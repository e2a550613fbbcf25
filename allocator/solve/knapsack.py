"""K devices with discrete menus of operating points on one band (multiple-choice knapsack).

Two things may be scarce, the band and the seconds of the edge that trains: then there are two
prices, found one inside the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from endedge.data.errors import BadInput

__all__ = ["MenuAllocation", "allocate_greedily", "allocate_menus", "allocate_worst"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_POLISHED = 24  # fleets up to this size are polished by exchange between pairs
_RATES = (0.0, 0.25, 1.0, 4.0, 16.0)  # seconds against hertz, where both are scarce


@dataclass(frozen=True)
class MenuAllocation:
    """``choice`` (K,): each device's entry; ``objective``: the sum of their values (of
    :func:`allocate_worst`: the least); no choice is better than ``bound``; ``price`` in value
    per Hz, ``price_s`` in value per second of the edge."""

    choice: Ints
    objective: float
    bound: float
    price: float
    used_hz: float
    price_s: float = 0.0
    used_s: float = 0.0


def allocate_menus(
    cost_hz: Floats,
    value: Floats,
    bandwidth_hz: float,
    edge_s: Floats | None = None,
    room_s: float = math.inf,
) -> MenuAllocation:
    """Choose one entry a device so that costs stay within ``bandwidth_hz``, and the edge's work
    within ``room_s``.

    ``cost_hz``, ``value``, ``edge_s`` (K, J): hertz, weighted mAP and seconds of the edge of every
    entry; each row needs one of cost 0 (no update); pad short menus with value -inf. Bisection on
    one price, or on two; what is left of the band then goes to the upgrades that fit, the best per
    hertz first, and up to 24 devices are polished by the best exchange between every pair. The
    answer is at most the gain of one device below the optimum where the band alone is scarce
    (Sinha and Zoltners 1979), and ``bound`` says how much. Raises :class:`BadInput` for shapes that
    differ, NaN, negative costs, or a row without an entry of cost 0.

    Args:
        cost_hz: (K, J) hertz of every entry, >= 0.
        value: (K, J) weighted mAP of every entry; -inf where a menu has fewer.
        bandwidth_hz: of all devices together, >= 0.
        edge_s: (K, J) seconds of the edge (None: its work takes no time).
        room_s: seconds that the edge has.
    """
    menus = _Menus.checked(cost_hz, value, bandwidth_hz, edge_s, room_s)
    choice, price, price_s = _priced(menus)
    if len(choice) and not menus.everything:
        choice = _upgraded(menus, choice)
        if len(choice) <= _POLISHED:
            choice = _exchanged(menus, choice)
    objective, used_hz, used_s = menus.totals(choice)
    bound = max(menus.bound, objective)
    return MenuAllocation(choice, objective, bound, price, used_hz, price_s, used_s)


def allocate_worst(
    cost_hz: Floats,
    value: Floats,
    bandwidth_hz: float,
    edge_s: Floats | None = None,
    room_s: float = math.inf,
) -> MenuAllocation:
    """As :func:`allocate_menus`, but the device that ends with the least value counts; what is
    left then raises the sum. Exact where the band alone is scarce. ``price``: NaN."""
    menus = _Menus.checked(cost_hz, value, bandwidth_hz, edge_s, room_s)
    levels = np.unique(menus.worth[np.isfinite(menus.worth)])
    levels = levels[levels <= menus.worth.max(axis=1).min()]  # all can reach
    low, high = 0, len(levels) - 1
    best, proven = _cheapest(menus, levels[0])[0], high
    while low <= high:
        middle = (low + high) // 2
        cheapest, possible = _cheapest(menus, levels[middle])
        if cheapest is not None:
            best, low = cheapest, middle + 1
        else:
            high = middle - 1
            if not possible:
                proven = min(proven, middle - 1)
    choice = _free(menus) if best is None else best
    choice = _upgraded(menus, choice)
    _, used_hz, used_s = menus.totals(choice)
    objective = float(menus.of(menus.worth, choice).min())
    bound = max(float(levels[max(proven, 0)]), objective)
    return MenuAllocation(choice, objective, bound, math.nan, used_hz, math.nan, used_s)


class _Menus:
    """The menus, and the least dual ``bound`` so far."""

    def __init__(
        self, cost: Floats, worth: Floats, band: float, seconds: Floats, room_s: float
    ) -> None:
        self.cost, self.worth, self.seconds = cost, worth, seconds
        self.band, self.room_s = band, room_s
        self.rows = np.arange(len(cost))
        self.bound, self.everything = math.inf, False

    @classmethod
    def checked(
        cls,
        cost_hz: Floats,
        value: Floats,
        bandwidth_hz: float,
        edge_s: Floats | None,
        room_s: float,
    ) -> _Menus:
        cost, worth = np.asarray(cost_hz, float), np.asarray(value, float)
        seconds = np.zeros_like(cost) if edge_s is None else np.asarray(edge_s, float)
        if cost.ndim != 2 or cost.shape != worth.shape or cost.size == 0:
            raise BadInput(f"cost {cost.shape} and value {worth.shape} must be equal (K, J) tables")
        if seconds.shape != cost.shape:
            raise BadInput(f"edge_s {seconds.shape} and cost {cost.shape} must be equal tables")
        for what in (cost, seconds):
            if not (np.isfinite(what).all() and (what >= 0).all()):
                raise BadInput("costs must be finite and >= 0, values must not be NaN")
        if np.isnan(worth).any():
            raise BadInput("costs must be finite and >= 0, values must not be NaN")
        if not ((cost == 0) & (seconds == 0) & np.isfinite(worth)).any(axis=1).all():
            raise BadInput("every device needs an entry of cost 0: no update")
        if not (math.isfinite(bandwidth_hz) and bandwidth_hz >= 0):
            raise BadInput(f"bandwidth_hz = {bandwidth_hz} must be finite and >= 0")
        if not room_s >= 0:
            raise BadInput(f"room_s = {room_s} must be >= 0")
        return cls(cost, worth, bandwidth_hz, seconds, room_s)

    def of(self, table: Floats, choice: Ints) -> Floats:
        return np.asarray(table[self.rows, choice])

    def totals(self, choice: Ints) -> tuple[float, float, float]:
        """Value, hertz and seconds of a choice."""
        value, hertz, seconds = (
            float(self.of(table, choice).sum()) for table in (self.worth, self.cost, self.seconds)
        )
        return value, hertz, seconds

    def answer(self, price: float, price_s: float) -> Ints:
        """Every device's best entry at these prices; weak duality then bounds any choice."""
        surplus = self.worth - price * self.cost
        if price_s:
            surplus -= price_s * self.seconds
        choice = surplus.argmax(axis=1)
        paid = price * self.band + (price_s * self.room_s if price_s else 0.0)
        self.bound = min(self.bound, paid + float(self.of(surplus, choice).sum()))
        return np.asarray(choice)

    def dearest(self, cost: Floats) -> float:
        """A price at which nobody takes what costs."""
        gain = self.worth - self.of(self.worth, _free(self))[:, None]
        worthwhile = (cost > 0) & (gain > 0)
        return 2.0 * float(np.where(worthwhile, gain / np.maximum(cost, 1e-300), 0.0).max())


def _free(menus: _Menus) -> Ints:
    """The best entry of each device that costs nothing."""
    free = (menus.cost == 0) & (menus.seconds == 0)
    return np.asarray(np.where(free, menus.worth, -np.inf).argmax(axis=1))


def _priced(menus: _Menus) -> tuple[Ints, float, float]:
    """A choice that fits, and the two prices that led to it."""

    def at(price_s: float) -> tuple[Ints, float]:
        def answer(price: float) -> tuple[Ints, bool]:
            choice = menus.answer(price, price_s)
            return choice, bool(menus.of(menus.cost, choice).sum() <= menus.band)

        return _least(answer, lambda: menus.dearest(menus.cost), _free(menus))

    choice, price = at(0.0)
    if menus.of(menus.seconds, choice).sum() <= menus.room_s:
        menus.everything = price == 0.0
        return choice, price, 0.0
    prices = {0.0: price}

    def within(price_s: float) -> tuple[Ints, bool]:
        choice, prices[price_s] = at(price_s)
        return choice, bool(menus.of(menus.seconds, choice).sum() <= menus.room_s)

    choice, price_s = _least(within, lambda: menus.dearest(menus.seconds), _free(menus), 40)
    return choice, prices.get(price_s, 0.0), price_s


def _least(
    answer: Callable[[float], tuple[Ints, bool]],
    dearest: Callable[[], float],
    nothing: Ints,
    rounds: int = 100,
) -> tuple[Ints, float]:
    """The choice at the least price whose answer fits, by bisection, and that price."""
    choice, fits = answer(0.0)
    if fits:
        return choice, 0.0
    low, high, choice = 0.0, dearest(), nothing
    for _ in range(rounds):
        price = (low + high) / 2
        trial, fits = answer(price)
        if fits:
            high, choice = price, trial
        else:
            low = price
        if high - low <= 1e-11 * high:
            break
    return choice, high


def allocate_greedily(
    cost_hz: Floats,
    value: Floats,
    bandwidth_hz: float,
    edge_s: Floats | None = None,
    room_s: float = math.inf,
    *,
    worst_first: bool = False,
) -> MenuAllocation:
    """From no update at all, the upgrade with the most value a hertz that fits comes next; of the
    device that has least, where ``worst_first``. No bound (infinite) and no price (NaN)."""
    menus = _Menus.checked(cost_hz, value, bandwidth_hz, edge_s, room_s)
    choice = _upgraded(menus, _free(menus), worst_first)
    objective, used_hz, used_s = menus.totals(choice)
    return MenuAllocation(choice, objective, math.inf, math.nan, used_hz, math.nan, used_s)


def _upgraded(menus: _Menus, choice: Ints, worst_first: bool = False) -> Ints:
    """Spend what is left on single upgrades, the best per hertz first, while any fits."""
    cost, worth, seconds = menus.cost, menus.worth, menus.seconds
    choice, timed = choice.copy(), math.isfinite(menus.room_s)
    _, used_hz, used_s = menus.totals(choice)

    def look(at: slice | int, own: Ints | int) -> tuple[Ints, Floats]:
        """The best upgrade of some devices that fits now, and its value a hertz (−inf: none)."""
        rows = menus.rows[at]
        more = cost[at] - cost[rows, own][..., None]
        gain = worth[at] - worth[rows, own][..., None]
        fits = (gain > 1e-12) & (used_hz + more <= menus.band)
        if timed:
            fits &= used_s + seconds[at] - seconds[rows, own][..., None] <= menus.room_s
        rate = np.where(fits, gain / np.maximum(more, 1e-9), -np.inf)
        return np.asarray(rate.argmax(axis=-1)), np.asarray(rate.max(axis=-1))

    best, rate = look(slice(None), choice)
    while rate.max() > -np.inf:
        k = int(rate.argmax())
        if worst_first:
            now = np.where(rate > -np.inf, menus.of(worth, choice), np.inf)
            k = int(now.argmin())
        i, j = int(choice[k]), int(best[k])
        hertz, needed_s = used_hz + cost[k, j] - cost[k, i], used_s + seconds[k, j] - seconds[k, i]
        if hertz <= menus.band and not (timed and needed_s > menus.room_s):
            choice[k], used_hz, used_s = j, float(hertz), float(needed_s)
        best[k], rate[k] = look(k, int(choice[k]))  # its next one, or another that still fits
    return choice


def _exchanged(menus: _Menus, choice: Ints) -> Ints:
    """Choose two devices anew with what they have and nobody has, pair by pair, to the end."""
    choice = choice.copy()
    cost, worth, seconds = menus.cost, menus.worth, menus.seconds
    for _ in range(10):
        better = False
        for i in range(len(choice)):
            for j in range(i):
                rest = np.ones(len(choice), dtype=bool)
                rest[[i, j]] = False
                left = menus.band - float(menus.of(cost, choice)[rest].sum())
                fits = cost[i][:, None] + cost[j] <= left
                if math.isfinite(menus.room_s):
                    left_s = menus.room_s - float(menus.of(seconds, choice)[rest].sum())
                    fits &= seconds[i][:, None] + seconds[j] <= left_s
                both = np.where(fits, worth[i][:, None] + worth[j], -np.inf)
                best = int(both.argmax())
                if both.flat[best] > worth[i, choice[i]] + worth[j, choice[j]] + 1e-15:
                    choice[i], choice[j] = divmod(best, len(worth[j]))
                    better = True
        if not better:
            break
    return choice


def _cheapest(menus: _Menus, level: float) -> tuple[Ints | None, bool]:
    """The cheapest entries of at least this value, where they fit; and, where they do not, whether
    others might: seconds are weighed against hertz in several ways."""
    reach = menus.worth >= level
    two = math.isfinite(menus.room_s)
    hertz = menus.cost / menus.band if menus.band > 0 else np.where(menus.cost > 0, 2.0, 0.0)
    possible = True
    for rate in _RATES if two else (0.0,):
        paid, have = hertz, 1.0
        if rate:
            idle = np.where(menus.seconds > 0, 2.0, 0.0)
            share = menus.seconds / menus.room_s if menus.room_s > 0 else idle
            paid, have = hertz + rate * share, 1.0 + rate
        choice = np.asarray(np.where(reach, paid, np.inf).argmin(axis=1))
        _, used_hz, used_s = menus.totals(choice)
        if used_hz <= menus.band and used_s <= menus.room_s:
            return choice, True
        possible &= float(menus.of(paid, choice).sum()) <= have * (1 + 1e-12)
    return None, possible
