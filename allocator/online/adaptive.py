"""``adaptive``: learn in the rounds what a byte is worth, and decide by what is left of a visit.

Every action of a period is weighed by the loss that is expected until the place changes
(:mod:`horizon`), under what is believed after all rounds so far (:mod:`belief`). The actions are
the operating points that can be executed, a package that travels over several periods where that is
allowed, nothing at all, and, where a device keeps its models, to ask which of them suits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from endedge.allocator.online.belief import Belief, believe
from endedge.allocator.online.horizon import Actions, expected_loss, periods_since_seen, stay
from endedge.allocator.online.law import achievable, first_rates
from endedge.allocator.policies import (
    NO_UPDATE,
    NOT_FITTED,
    NOT_KNOWN,
    Known,
    Observed,
    register,
)
from endedge.allocator.problem import Split

__all__ = ["REUSE_BYTES", "DeviceMenu", "adaptive", "menu"]

Floats = NDArray[np.float64]

REUSE_BYTES = 64.0  # a package that names a model which the device keeps
_SIZES = 14  # of each side at most, evenly over those that can be executed


@dataclass(frozen=True)
class DeviceMenu:
    """What one device may do in a period: the ``splits`` (the first is nothing), the ``cost`` (k,)
    of each in units of the budget's room, and the ``loss`` (k,) that is expected until the place
    changes, in mAP times periods."""

    splits: tuple[Split, ...]
    cost: Floats
    loss: Floats
    words: str = ""

    @property
    def best(self) -> Split:
        return self.splits[int(self.loss.argmin())]


def menu(known: Known) -> DeviceMenu:
    """All that ``known`` allows, weighed."""
    budget = known.budget
    if budget.reason:
        return DeviceMenu((NO_UPDATE,), np.zeros(1), np.zeros(1), budget.reason)
    asking = budget.up * budget.upload.low + budget.down * REUSE_BYTES
    if asking > known.periods * budget.room:  # even to ask for an older model takes more air
        known = replace(known, recalls=False)
    curves = None if known.curves is NOT_FITTED else known.curves
    rates, first = first_rates(budget.upload, budget.update, curves), achievable(curves)
    belief = believe(rates, first, known.history)

    rows = _rows(known)
    up = np.concatenate([[0.0], known.points.upload_bytes[rows]])
    down = np.concatenate([[0.0], known.points.update_bytes[rows]])
    if known.recalls:
        up, down = np.append(up, budget.upload.low), np.append(down, REUSE_BYTES)
    cost = np.where(up > 0, budget.up * up + budget.down * down, 0.0)
    rate = rates(up, down)
    rate[:, (up == 0) | (down <= REUSE_BYTES)] = 0.0
    periods = np.maximum(np.ceil(cost / budget.room * (1 - 1e-9)), 1).astype(np.int64)
    per_room = budget.fresh_down / budget.down  # share of a period that a unit of room takes
    fresh = budget.fresh - budget.fresh_up * up - budget.fresh_down * down
    fresh = np.clip(fresh + (periods - 1) * budget.room * per_room, 0.0, 1.0)
    actions = Actions(rate, np.where(up > 0, 1 - fresh, 0.0), periods)

    staying = stay([earlier.judged_in for earlier in known.history if earlier.judged_in >= 0])
    gap, recalled, words = _gaps(known, belief, staying)
    loss = expected_loss(actions, belief.weight, gap, staying, recalled)
    splits = [NO_UPDATE]
    for i in rows:
        codec, student = str(known.points.codec[i]), str(known.points.student[i])
        splits.append(
            Split(
                float(known.points.upload_bytes[i]),
                float(known.points.update_bytes[i]),
                codec,
                student,
            )
        )
    if known.recalls:
        splits.append(Split(budget.upload.low, REUSE_BYTES))
    return DeviceMenu(tuple(splits), cost, loss, f"{words} stay={staying:.3f}")


def _rows(known: Known) -> NDArray[np.int64]:
    """The operating points that the air carries in the periods allowed, thinned evenly."""
    points, budget = known.points, known.budget
    cost = budget.up * points.upload_bytes + budget.down * points.update_bytes
    fits = cost <= known.periods * budget.room * (1 + 1e-9)
    for sizes in (points.upload_bytes, points.update_bytes):
        there = np.unique(sizes[fits])
        if len(there) > 4 * _SIZES:
            kept = there[np.unique(np.linspace(0, len(there) - 1, _SIZES).astype(int))]
            fits &= np.isin(sizes, kept)
    return np.flatnonzero(fits)


def _gaps(known: Known, belief: Belief, staying: float) -> tuple[Floats, Floats | None, str]:
    """What the device lacks of its place's ceiling under each guess (n,), and from the best model
    that it kept. Where the last periods brought no frame, the place may have changed since."""
    here = [earlier for earlier in known.history if earlier.judged_in in (known.place, NOT_KNOWN)]
    sure = staying ** periods_since_seen(known.history)

    def gap(now: float) -> Floats:
        return sure * belief.gap(known.place, now) + (1 - sure) * belief.first.gain

    lacks = gap(here[-1].after if here else 0.0)
    words = f"place={known.place} gap={float(belief.weight @ lacks):.4f}"
    kept = _kept(known) if known.recalls else None
    return lacks, None if kept is None else gap(kept), words


def _kept(known: Known) -> float | None:
    """mAP that the device had in this place when it left, the best of its visits. None where it was
    never left, or frames of it went up since the return: the edge has then said which of the kept
    models suits. The best of all rounds would be the luckiest one, and always worth asking for."""
    left: list[float] = []
    present: list[Observed] = []
    for seen in known.history:
        if seen.judged_in in (known.place, NOT_KNOWN):
            present.append(seen)
        elif present:
            left.append(present[-1].after)
            present = []
    if any(seen.upload_bytes > 0 and seen.learned_in == known.place for seen in present):
        return None
    return max(left, default=None)


@register("adaptive")
def adaptive(known: Known) -> Split:
    """The action with the least loss expected until the place changes."""
    choices = menu(known)
    return choices.best if math.isfinite(float(choices.loss.min())) else NO_UPDATE
