"""Devices that take turns: which of them is on the air in which period.

An update is worth m0 + (F − m0)·keep^age, age in periods since it was applied: ``keep`` is the
share of its gain that is left a period later (0: every period is another world; 1: nothing
drifts). A device may *skip*: one update every n periods, on the air in one of them with the bytes
of a whole update. Or it may *stretch*: one update every n periods, on the air in all of them with
an n-th of the bytes in each; the frames are then n − 1 periods older when it arrives.

Cycles are powers of two, so that any two fit into each other; a table of the load of every period
says what fits beside what.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from endedge.data.errors import BadInput

__all__ = ["EVERY", "Pace", "Placed", "Timetable", "kept_gain", "paces"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Pace:
    """One update every ``cycle`` periods, sent in one of them (skip) or in all (stretch)."""

    cycle: int = 1
    way: Literal["skip", "stretch"] = "skip"

    def __str__(self) -> str:
        if self.cycle == 1:
            return "every period"
        return f"every {self.cycle}" + (", stretched" if self.way == "stretch" else "")


EVERY = Pace()


def paces(longest: int, stretch: bool = True) -> tuple[Pace, ...]:
    """Every pace up to ``longest`` periods. Raises :class:`BadInput` for what is no power of 2."""
    if longest < 1 or longest & (longest - 1):
        raise BadInput(f"turns of {longest} periods; give a power of two: 1, 2, 4, 8, …")
    cycles = [2**k for k in range(longest.bit_length())]
    skips = tuple(Pace(n) for n in cycles)
    return skips + (tuple(Pace(n, "stretch") for n in cycles[1:]) if stretch else ())


def kept_gain(pace: Pace, keep: float) -> float:
    """Mean over a cycle, in the steady state, of the share of an update's gain that is there."""
    if not 0 <= keep <= 1:
        raise BadInput(f"keep = {keep:g} must lie in [0, 1]")
    first = pace.cycle - 1 if pace.way == "stretch" else 0
    ages = np.arange(first, first + pace.cycle)
    return float(np.mean(keep**ages))


@dataclass(frozen=True)
class Placed:
    """Each device's entry (K,) and the period of its cycle (K,) that it begins in."""

    choice: Ints
    phase: Ints


class Timetable:
    """The load of every period. ``hertz`` and ``seconds`` (E,): of one update of every entry;
    ``pace`` (E,): how often; ``band_hz`` and ``room_s``: what a period has of both."""

    def __init__(self, pace: Sequence[Pace], band_hz: float, room_s: float = math.inf) -> None:
        self.cycle = np.array([p.cycle for p in pace], dtype=np.int64)
        self._stretched = np.array([p.way == "stretch" for p in pace])
        self._cycles, self._rank = np.unique(self.cycle, return_inverse=True)
        self.band_hz, self.room_s = band_hz * (1 + 1e-9), room_s * (1 + 1e-9)
        self.periods = int(self.cycle.max())
        self.load_hz = np.zeros(self.periods)
        self.load_s = np.zeros(self.periods)

    def fits(self, hertz: Floats, seconds: Floats) -> Ints:
        """The phase at which each entry (E,) fits, the one with the least load; −1: at none."""
        whole = self.load_hz.max() + hertz / self.cycle
        if not math.isfinite(self.room_s):  # then the least loaded phase is all that matters
            peaks = [self.load_hz.reshape(-1, n).max(axis=0) for n in self._cycles]
            least = np.array([p.min() for p in peaks])[self._rank]
            first = np.array([p.argmin() for p in peaks])[self._rank]
            above = np.where(self._stretched, whole, least + hertz)
            return np.where(above <= self.band_hz, first, -1)
        phase = np.full(len(hertz), -1, dtype=np.int64)
        for n in self._cycles:
            peaks_hz = self.load_hz.reshape(-1, n).max(axis=0)
            peaks_s = self.load_s.reshape(-1, n).max(axis=0)
            for p in np.argsort(-peaks_hz, kind="stable"):  # the least loaded is noted last
                above = np.where(self._stretched, whole, peaks_hz[p] + hertz)
                here = (self.cycle == n) & (above <= self.band_hz)
                phase[here & (peaks_s[p] + seconds <= self.room_s)] = p
        return phase

    def put(self, entry: int, phase: int, hertz: float, seconds: float, sign: int = 1) -> None:
        """Add an entry to the load, or take it away (``sign`` −1)."""
        n = int(self.cycle[entry])
        if self._stretched[entry]:
            self.load_hz += sign * hertz / n
        else:
            self.load_hz[phase::n] += sign * hertz
        self.load_s[phase::n] += sign * seconds

    def place(
        self,
        choice: Ints,
        hertz: Floats,
        seconds: Floats,
        value: Floats,
        *,
        rounds: int = 2,
        line: Ints | None = None,
    ) -> Placed:
        """Put what devices chose into periods, and what does not fit beside the others into the
        best that does; then every device takes the best that fits, ``rounds`` times in turn.

        Args:
            choice: entries (K,); entry 0 is no update.
            hertz, seconds, value: of every entry (K, E); value −inf where it is not allowed.
            rounds: how often every device may take more.
            line: in which order (K,); by default who is often on the air comes first, then who
                needs much, as when the choices are placed.
        """
        rows = np.arange(len(choice))
        chosen, phases = np.zeros_like(choice), np.zeros_like(choice)
        order = np.lexsort((-hertz[rows, choice], self.cycle[choice]))
        late = []
        for k in (int(k) for k in order if choice[k] > 0):
            j = int(choice[k])
            phase = self._phase(j, float(hertz[k, j]), float(seconds[k, j]))
            if phase < 0:
                late.append(k)
            else:
                chosen[k], phases[k] = j, phase
                self.put(j, phase, float(hertz[k, j]), float(seconds[k, j]))
        for n in range(rounds + 1):
            waiting = order if line is None else line
            for k in late if n == 0 else self._hopeful(waiting, chosen, hertz, value):
                i = int(chosen[k])
                if i:
                    self.put(i, int(phases[k]), float(hertz[k, i]), float(seconds[k, i]), -1)
                phase_of = self.fits(hertz[k], seconds[k])
                phase_of[0] = 0
                j = int(np.where(phase_of >= 0, value[k], -np.inf).argmax())
                if value[k, j] > value[k, i] or (j and not i and k in late):
                    chosen[k], phases[k] = j, phase_of[j]
                if j := int(chosen[k]):
                    self.put(j, int(phases[k]), float(hertz[k, j]), float(seconds[k, j]))
        return Placed(chosen, phases)

    def _phase(self, entry: int, hertz: float, seconds: float) -> int:
        """The least loaded phase at which one entry fits; −1: none."""
        n = int(self.cycle[entry])
        peaks = self.load_hz.reshape(-1, n).max(axis=0)
        above = peaks + hertz
        if self._stretched[entry]:
            above = np.full(n, self.load_hz.max() + hertz / n)
        fits = above <= self.band_hz
        if math.isfinite(self.room_s):
            fits &= self.load_s.reshape(-1, n).max(axis=0) + seconds <= self.room_s
        return int(np.where(fits, peaks, np.inf).argmin()) if fits.any() else -1

    def _hopeful(self, order: Ints, chosen: Ints, hertz: Floats, value: Floats) -> list[int]:
        """Devices for which something better might fit, were their own load away."""
        least = np.array([self.load_hz.reshape(-1, n).max(axis=0).min() for n in self._cycles])
        left = self.band_hz - least[self._rank]
        rows = np.arange(len(chosen))
        own = hertz[rows, chosen][:, None]
        slack = self.band_hz - self.load_hz.max()
        room = np.where(self._stretched, self.cycle * (slack + own), left + own)
        better = value > value[rows, chosen][:, None]
        might = np.asarray((better & (hertz <= room)).any(axis=1))
        return [int(k) for k in order if might[k]]
