"""A simulated day: which place and how much bandwidth each period has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from endedge.data.errors import BadInput
from endedge.link.channel import Capacity

__all__ = ["BANDS", "ReplayedDay", "draw", "levels_of"]

Floats = NDArray[np.float64]

BANDS = ("constant", "walk")
_STEP = 0.45  # of the logarithm of the bandwidth from one period to the next, in ``walk``
_SPAN = np.log(4.0)  # it stays within a factor of 4 of the day's middle both ways: 16 in all


@dataclass(frozen=True)
class ReplayedDay:
    """``place`` (rounds + 1,): that of every period, from the one that is only captured on;
    ``bandwidth_hz`` (rounds,)."""

    place: NDArray[np.int64]
    bandwidth_hz: Floats

    @property
    def rounds(self) -> int:
        return len(self.bandwidth_hz)


def draw(
    rng: np.random.Generator,
    places: int,
    rounds: int,
    dwell: tuple[int, int],
    band: str | Floats,
    sweep_hz: tuple[float, float],
) -> ReplayedDay:
    """Visits of ``dwell`` periods (least, most), to places drawn anew each time; a middle bandwidth
    drawn from ``sweep_hz``, log-uniform, that stays (``constant``), walks (``walk``) or follows the
    levels of a trace (its periods one after the other, from a random one on; it repeats)."""
    place: list[int] = []
    here = 0
    while len(place) <= rounds:
        place += [here] * int(rng.integers(dwell[0], dwell[1] + 1))
        if places > 1:
            here = (here + int(rng.integers(1, places))) % places
    middle = float(np.exp(rng.uniform(*np.log(sweep_hz))))
    if isinstance(band, str):
        if band not in BANDS:
            raise BadInput(
                f"no band {band!r}; there are {', '.join(BANDS)}, or the file of a trace"
            )
        steps = rng.normal(0, _STEP, rounds)
        walk = np.zeros(rounds)
        for k in range(1, rounds):
            walk[k] = np.clip(walk[k - 1] + steps[k], -_SPAN, _SPAN)
        level = np.exp(walk) if band == "walk" else np.ones(rounds)
    else:
        level = np.resize(np.roll(band, -int(rng.integers(len(band)))), rounds)
    return ReplayedDay(np.array(place[: rounds + 1]), middle * level)


def levels_of(trace: Path, period_s: float) -> Floats:
    """The mean rate of each whole period of a Mahimahi trace, over the mean of them all."""
    return np.array(Capacity.mahimahi(trace).levels(period_s, str(trace)))
