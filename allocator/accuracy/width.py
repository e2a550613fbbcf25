"""How wide an interval of a fitted curve is, beyond what its bootstrap says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

__all__ = ["UNIFORM", "Width"]

Floats = NDArray[np.float64]

UNIFORM = 12**-0.5  # standard deviation of a value that lies anywhere between its neighbours


@dataclass(frozen=True)
class Width:
    """``upload`` and ``update``: standard deviation of the curve's error between two measured
    levels of an axis, as a share of the rise between them; ``scale``: of all, so that the
    intervals cover what they say on levels left out."""

    upload: float = 0.0
    update: float = 0.0
    scale: float = 1.0

    def deviation(self, room: tuple[Floats, Floats]) -> Floats:
        """Standard deviation (mAP) where there is ``room`` along either axis
        (:meth:`endedge.allocator.accuracy.monotone.Monotone.room`), before the ``scale``."""
        return np.hypot(self.upload * room[0], self.update * room[1])

    def interval(
        self, drawn: Floats, room: tuple[Floats, Floats], level: float
    ) -> tuple[Floats, Floats]:
        """Low and high (n,) at ``level`` from bootstrap predictions ``drawn`` (r, n)."""
        tail = (1.0 - level) / 2.0
        low, middle, high = np.quantile(drawn, [tail, 0.5, 1 - tail], axis=0)
        more = float(ndtri(1 - tail)) * self.deviation(room)
        below = self.scale * np.hypot(middle - low, more)
        above = self.scale * np.hypot(high - middle, more)
        return np.clip(middle - below, 0.0, 1.0), np.clip(middle + above, 0.0, 1.0)
