"""What an action is worth until the place changes: this period, and those that are left.

The *gap* g = C - b is what a detector lacks of its ceiling. Every period costs the gap that it is
lived with. A period is followed by another one in the same place with probability ``stay``, so the
rest of a visit is a Markov decision process whose state is g alone and whose cost is linear in it:
its value is W·g, and W is the least that any action costs when it is taken again and again,

    W = min_a c_a / (1 - stay^L_a · (1 - r_a)),

with r_a the share of the gap that a gains, L_a the periods that it takes, and c_a what these cost
of each unit of g. (Bellman's equation has one solution, for the right side contracts; that it is
attained by one action repeated follows from its linearity.)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from endedge.allocator.policies import Observed

__all__ = ["Actions", "expected_loss", "periods_since_seen", "stay"]

Floats = NDArray[np.float64]

_CHANGES, _PERIODS = 1.0, 7.0  # seen before the first: a visit of seven periods


def stay(places: list[int]) -> float:
    """Probability that a period is followed by one in the same place, from the ``places`` of the
    periods so far (the mean of a Beta posterior)."""
    changes = sum(a != b for a, b in pairwise(places))
    periods = max(len(places) - 1, 0)
    return 1 - (_CHANGES + changes) / (_PERIODS + periods)


def periods_since_seen(history: tuple[Observed, ...]) -> int:
    """How many of the last periods brought no frame: nobody knows what they were like."""
    unseen = 0
    for period in reversed(history):
        if period.upload_bytes > 0:
            break
        unseen += 1
    return unseen


@dataclass(frozen=True)
class Actions:
    """k actions, the first being to send nothing: ``rate`` (n, k) under every guess; ``stale`` (k,)
    the share of the last period of the action in which the old model still serves; ``periods``
    (k,) >= 1 that it takes."""

    rate: Floats
    stale: Floats
    periods: NDArray[np.int64]

    def loss(self, stay: float) -> Floats:
        """c_a (n, k): what the periods of an action cost, in units of the gap before it."""
        waiting = (1 - stay ** (self.periods - 1.0)) / (1 - stay)  # whole periods before the last
        last = stay ** (self.periods - 1.0)
        return np.asarray(
            waiting + last * (self.stale + (1 - self.stale) * (1 - self.rate)), dtype=float
        )

    def rest(self, stay: float) -> Floats:
        """W (n,): what the rest of a visit costs under the best action for each guess."""
        left = stay**self.periods * (1 - self.rate)
        return np.asarray((self.loss(stay) / (1 - left)).min(axis=1))


def expected_loss(
    actions: Actions,
    weight: Floats,
    gap: Floats,
    stay: float,
    gap_recalled: Floats | None = None,
) -> Floats:
    """(k,): what each action costs from now until the place changes, in mAP times periods, expected
    over guesses of ``weight`` (n,) with a ``gap`` (n,) each. ``gap_recalled``: from the best kept
    model, to which every action that sends anything goes back first (where it is better)."""
    again = gap if gap_recalled is None else np.minimum(gap, gap_recalled)
    last = stay ** (actions.periods - 1.0)
    before = (1 - last) / (1 - stay) + last * actions.stale  # (k,)
    kept = weight[:, None] * (1 - actions.rate)
    now = again @ kept
    later = (again * actions.rest(stay)) @ kept
    loss = float(weight @ gap) * before + last * (1 - actions.stale) * now
    loss += stay**actions.periods * later
    if gap_recalled is not None:  # who sends nothing is told of no older model
        loss[0] = float((weight * gap) @ (1 + stay * actions.rest(stay)))
    return np.asarray(loss)
