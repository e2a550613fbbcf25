"""Headroom first: what there is to win on a link before anybody is said to have won it.

The oracle against the best split that was fixed in advance, one share for the whole sweep chosen
by the other seeds. What a difference may be due to is told by its paired error: over seeds (other
frames uploaded, other trainings) and, where the surface carries bootstrap replicates, over the
evaluation frames, which all seeds share and no number of seeds averages out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

__all__ = ["ENOUGH", "SAME", "Contrast", "Judged"]

Floats: TypeAlias = NDArray[np.float64]

ENOUGH = 2.0  # errors that a headroom is above before anything is claimed
SAME = 0.005  # mAP within which two policies are the same (an equivalence test)
_TIE = 5e-5  # mAP; less is printed as 0.00 points


@dataclass(frozen=True)
class Contrast:
    """A paired difference of mAP: ``mean``, its standard error over ``seeds`` (NaN for one seed)
    and over evaluation ``frames`` (NaN without replicates)."""

    mean: float
    seed_error: float
    frame_error: float
    seeds: int

    @classmethod
    def of(cls, difference: Floats, draws: Floats | None = None) -> Contrast:
        """From ``difference`` (seeds,) and its bootstrap ``draws`` (seeds, replicates)."""
        n = len(difference)
        seed_error = float(difference.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
        frame_error = math.nan if draws is None else float(draws.mean(axis=0).std(ddof=1))
        return cls(float(difference.mean()), seed_error, frame_error, n)

    @property
    def error(self) -> float:
        """Both errors together; NaN where neither is known."""
        errors = [e for e in (self.seed_error, self.frame_error) if not math.isnan(e)]
        return math.sqrt(sum(e * e for e in errors)) if errors else math.nan

    def half(self, level: float = 0.9) -> float:
        """Half of the interval at ``level``: Student's t for the seeds, which are few, and normal
        for the frames."""
        tail = 0.5 + level / 2
        by_seed = 0.0 if math.isnan(self.seed_error) else self.seed_error
        by_frame = 0.0 if math.isnan(self.frame_error) else self.frame_error
        if math.isnan(self.error):
            return math.nan
        t = float(stdtrit(self.seeds - 1, tail)) if self.seeds > 1 else 0.0
        return math.hypot(t * by_seed, float(ndtri(tail)) * by_frame)

    @property
    def claims(self) -> bool:
        """Whether the difference is above two of its errors, and, for few seeds know their own
        error badly, above its 90 % interval: less is no ground for a claim."""
        return self.mean > _TIE and self.mean > max(ENOUGH * self.error, self.half())

    @property
    def standing(self) -> str:
        """What to say of it as headroom: nothing where it is claimed."""
        if self.claims:
            return ""
        if math.isnan(self.error):
            return "one seed: no claim"
        if self.mean <= max(_TIE, ENOUGH * self.error):
            return "nothing to gain"
        return f"{self.seeds} seeds are too few to claim it"

    @property
    def verdict(self) -> str:
        """``same`` (the 90 % interval lies within ±0.5 points: two one-sided tests at 5 %),
        ``better``, ``worse`` (it leaves out zero), or ``open``."""
        half = self.half()
        if math.isnan(half):
            return "open"
        low, high = self.mean - half, self.mean + half
        if low >= -SAME and high <= SAME:
            return "same"
        return "better" if low > _TIE else "worse" if high < -_TIE else "open"

    @property
    def text(self) -> str:
        """``1.02 ± 0.30`` in points, the error as it is known."""
        error = "?" if math.isnan(self.error) else f"{100 * self.error:.2f}"
        return f"{round(100 * self.mean, 2) + 0.0:.2f} ± {error}"


class Judged:
    """Policies over a sweep: ``worth`` (policies, bandwidths, trials) in mAP, and ``draws``, the
    same with a last axis of replicates, or None."""

    policies: tuple[str, ...]
    bandwidth_hz: tuple[float, ...]
    worth: Floats
    draws: Floats | None

    def contrast(self, one: str, other: str, at: int | None = None) -> Contrast:
        """How far ``one`` is ahead of ``other``: at a bandwidth, or in the mean over the sweep."""
        i, j = self.policies.index(one), self.policies.index(other)
        which = slice(None) if at is None else slice(at, at + 1)
        gap = (self.worth[i, which] - self.worth[j, which]).mean(axis=0)
        if self.draws is None:
            return Contrast.of(gap)
        return Contrast.of(gap, (self.draws[i, which] - self.draws[j, which]).mean(axis=0))

    def honest_headroom(self, at: int | None = None) -> Contrast:
        """What there is to win for a choice that did not see what judges it."""
        raise NotImplementedError

    @property
    def claims(self) -> list[int]:
        """The bandwidths at which the headroom is above two errors."""
        return [k for k in range(len(self.bandwidth_hz)) if self.honest_headroom(k).claims]
