"""Who shares the band: equal slots, slots in turn, by frames, greedy, at a price, in hindsight.

A rule of slots gives every device hertz and lets it choose by its own curves; a rule of menus
chooses for all. All answer with measured rounds at a pace, put into periods by one timetable.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from endedge.allocator import allocate_menus
from endedge.allocator.policies import find
from endedge.allocator.solve.knapsack import MenuAllocation, allocate_greedily, allocate_worst
from endedge.allocator.solve.turns import Placed, Timetable
from endedge.data.errors import BadInput
from endedge.lab.benchmark.benchmark import BenchmarkSetup, executable
from endedge.lab.fleet.menus import Menus, Sort

__all__ = ["OBJECTIVES", "RIVALS", "STEPS", "Answer", "Objective", "play_rival", "reached"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Objective: TypeAlias = Literal["mean", "worst", "fair"]

OBJECTIVES: tuple[Objective, ...] = ("mean", "worst", "fair")
# The way from the plainest rule to the price, one thing changed at a time.
STEPS = (
    ("how", "equal-halves", "equal", "the split of a slot by curves"),
    ("when", "equal", "turns", "periods skipped or stretched"),
    ("spare", "turns", "turns-spare", "what shares leave over, first come, first served"),
    ("who", "turns-spare", "auction", "one price for all instead of equal shares"),
)


@dataclass(frozen=True)
class Answer:
    """What a rival does, the proven bound of its own problem and its prices (NaN: has none)."""

    placed: Placed
    bound: float = math.nan
    price: float = math.nan
    price_s: float = math.nan


def reached(value: Floats, weight: Floats, objective: Objective) -> Floats:
    """The objective (…) of mAP (K, …): its weighted mean, its least, or its weighted geometric mean
    (which proportional fairness makes greatest)."""
    share = weight / weight.sum()
    if objective == "worst":
        return np.asarray(value.min(axis=0))
    if objective == "fair":
        return np.asarray(np.exp(np.tensordot(share, np.log(np.maximum(value, 1e-4)), axes=1)))
    return np.asarray(np.tensordot(share, value, axes=1))


def play_rival(name: str, menus: Menus, band_hz: float, objective: Objective) -> Answer:
    """What a rival answers. Raises :class:`BadInput` for one that there is not."""
    if name in RIVALS:
        return RIVALS[name](menus, band_hz, objective)
    find(name)  # of one device: everybody plays it in an equal slot
    return _slots(menus, np.full(len(menus), band_hz / len(menus)), name)


# Slots ------------------------------------------------------------------------------------------


def _no_update(menus: Menus, band_hz: float, objective: Objective) -> Answer:
    nothing = np.zeros(len(menus), dtype=np.int64)
    return Answer(Placed(nothing, nothing))


def _equal(policy: str) -> Callable[[Menus, float, Objective], Answer]:
    def share(menus: Menus, band_hz: float, objective: Objective) -> Answer:
        return _slots(menus, np.full(len(menus), band_hz / len(menus)), policy)

    return share


def _by_frames(menus: Menus, band_hz: float, objective: Objective) -> Answer:
    """Slots in proportion to the frames of a device's largest upload."""
    frames = np.array([menus.sorts[u.member].able.frames.max() for u in menus.units])
    return _slots(menus, band_hz * frames / frames.sum(), "fitted")


def _slots(menus: Menus, slot_hz: Floats, policy: str) -> Answer:
    """Every device, every period, splits its slot by itself."""
    known: dict[tuple[int, int, float], int] = {}
    choice = np.zeros(len(menus), dtype=np.int64)
    for k, unit in enumerate(menus.units):
        key = (unit.member, unit.seed, float(slot_hz[k]))
        if key not in known:
            known[key] = menus.entry(k, _split(menus.sorts[unit.member], *key[1:], policy))
        choice[k] = known[key]
    rows = np.arange(len(menus))
    own = np.full(menus.believed.shape, -np.inf)  # where the edge has no time: no update
    own[rows, 0] = 0.0
    own[rows, choice] = 1.0
    return Answer(_timed(menus, choice, float(slot_hz.sum()), own, 0))


def _split(sort: Sort, seed: int, slot_hz: float, policy: str) -> int | None:
    """The row of the sort's points that a policy of one device comes down to."""
    points = sort.able
    rules = executable(sort.rules, points)
    setup = BenchmarkSetup(sort.table.curves_for(seed), sort.link, rules, (slot_hz,), points)
    point = setup.decide(policy, slot_hz).point
    return None if point is None else sort.row_of[point.frames, point.codec, point.budget_bytes]


def _turns(menus: Menus, band_hz: float, objective: Objective) -> Answer:
    """An equal share of the band over time: a device skips periods, or stretches an update over
    several, so that its share carries one."""
    fits = menus.mean_hertz <= band_hz / len(menus) * (1 + 1e-9)
    if menus.timed:
        fits &= menus.mean_seconds <= menus.room_s / len(menus) * (1 + 1e-9)
    value = np.where(fits, menus.masked(menus.believed), -np.inf)
    return Answer(_timed(menus, value.argmax(axis=1), band_hz, value, 1))


def _turns_spare(menus: Menus, band_hz: float, objective: Objective) -> Answer:
    """The same, and what the shares leave over goes to whoever is next in line and can use it."""
    choice = _turns(menus, band_hz, objective).placed.choice
    value = menus.masked(menus.believed)
    return Answer(_timed(menus, choice, band_hz, value, 1, menus.line))


# Menus ------------------------------------------------------------------------------------------


def _value(menus: Menus, mean_map: Floats, objective: Objective) -> Floats:
    """What an entry adds to the objective."""
    if objective == "worst":
        return menus.masked(mean_map)
    weight = (menus.weight / menus.weight.sum())[:, None]
    return menus.masked(weight * (np.log(mean_map) if objective == "fair" else mean_map))


def _best(menus: Menus, mean_map: Floats, band_hz: float, objective: Objective) -> Answer:
    value = _value(menus, np.maximum(mean_map, 1e-4), objective)
    solve = allocate_worst if objective == "worst" else allocate_menus
    seconds = menus.mean_seconds if menus.timed else None
    found: MenuAllocation = solve(menus.mean_hertz, value, band_hz, seconds, menus.room_s)
    placed = _timed(menus, found.choice, band_hz, value, 2 if len(menus) <= 200 else 1)
    bound = math.exp(found.bound) if objective == "fair" else found.bound
    return Answer(placed, bound, found.price, found.price_s)


def _auction(menus: Menus, band_hz: float, objective: Objective) -> Answer:
    """One price a hertz (and a second of the edge), by the curves."""
    return _best(menus, menus.believed, band_hz, objective)


def _auction_every(menus: Menus, band_hz: float, objective: Objective) -> Answer:
    """The same without turns: who is served is served in every period."""
    return _best(menus.every_period(), menus.believed, band_hz, objective)


def _oracle(menus: Menus, band_hz: float, objective: Objective) -> Answer:
    """By the very cells that judge it."""
    return _best(menus, menus.judged, band_hz, objective)


def _oracle_other_seeds(menus: Menus, band_hz: float, objective: Objective) -> Answer:
    if menus.others is None:
        raise BadInput("oracle-other-seeds needs tables of two seeds or more")
    return _best(menus, menus.others, band_hz, objective)


def _greedy(menus: Menus, band_hz: float, objective: Objective) -> Answer:
    """From nothing, the upgrade with the most gain a hertz that fits comes next; of the worst
    device, where that counts."""
    value = _value(menus, np.maximum(menus.believed, 1e-4), objective)
    seconds = menus.mean_seconds if menus.timed else None
    found = allocate_greedily(
        menus.mean_hertz,
        value,
        band_hz,
        seconds,
        menus.room_s,
        worst_first=objective == "worst",
    )
    return Answer(_timed(menus, found.choice, band_hz, value, 1))


def _timed(
    menus: Menus,
    choice: Ints,
    band_hz: float,
    value: Floats,
    rounds: int,
    line: Ints | None = None,
) -> Placed:
    """Put choices into periods."""
    table = Timetable(menus.pace, band_hz, menus.room_s)
    return table.place(choice, menus.hertz, menus.seconds, value, rounds=rounds, line=line)


RIVALS: dict[str, Callable[[Menus, float, Objective], Answer]] = {
    "no-update": _no_update,
    "equal-halves": _equal("equal"),
    "equal": _equal("fitted"),
    "turns": _turns,
    "turns-spare": _turns_spare,
    "by-frames": _by_frames,
    "greedy": _greedy,
    "auction-every": _auction_every,
    "auction": _auction,
    "oracle-other-seeds": _oracle_other_seeds,
    "oracle": _oracle,
}
