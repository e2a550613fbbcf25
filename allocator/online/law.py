"""The share of what can still be gained that one update gains, and what is believed of it at first.

r(U, M) = (1 - (1 + U/U0)^-c) · max(0, 1 - e·exp(-M/M0)): the data's part is the power family of
docs/curves.md, the model's part an exponential that reaches nothing below M0·ln(e) bytes. An update
moves a detector from b to b + r·(C - b), C being the ceiling of the place where the frames are
from, so one and the same law serves places that start and end elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from endedge.allocator.fitting.curves import Curves
from endedge.allocator.problem import Range

__all__ = ["Achievable", "Rates", "achievable", "first_rates"]

Floats = NDArray[np.float64]

_PARTICLES = 400
_DOUBT = 0.2  # of a rate read off another table: places and starting points differ
_CELLS = 6.0  # observations that a whole table counts as
_KNOTS = 6  # sizes each way at which the table is asked
_KEPT = 32  # priors, by the curves and the sizes that they are of
_PRIORS: dict[tuple[float, ...], tuple[Curves, Rates]] = {}


@dataclass(frozen=True)
class Rates:
    """Guesses at the law, (n,) each: ``upload_scale`` U0 in bytes, ``power`` c, ``update_scale`` M0
    in bytes, ``offset`` e; ``log_weight`` is the logarithm of each guess's prior, not normed."""

    upload_scale: Floats
    power: Floats
    update_scale: Floats
    offset: Floats
    log_weight: Floats

    def __len__(self) -> int:
        return len(self.power)

    def __call__(self, upload_bytes: Floats | float, update_bytes: Floats | float) -> Floats:
        """r in [0, 1] of every guess (rows) at k pairs of bytes (columns): (n, k)."""
        up, of_up = np.unique(np.atleast_1d(upload_bytes), return_inverse=True)
        down, of_down = np.unique(np.atleast_1d(update_bytes), return_inverse=True)
        data = 1 - np.exp(-self.power[:, None] * np.log1p(up / self.upload_scale[:, None]))
        model = 1 - self.offset[:, None] * np.exp(-down / self.update_scale[:, None])
        return np.asarray(data[:, of_up] * np.maximum(model, 0.0)[:, of_down])


@dataclass(frozen=True)
class Achievable:
    """What a measured table says of a place nobody has seen: the ``gain`` from where a device comes
    in to its ceiling (mAP), and how far to trust that (``deviation``)."""

    gain: float = 0.10
    deviation: float = 0.10


def achievable(curves: Curves | None) -> Achievable:
    """What the table behind ``curves`` can give; without one, ten points more or less."""
    if curves is None:
        return Achievable()
    gain = max(_top(curves) - curves.m0, 0.02)
    return Achievable(gain, max(gain / 2, 0.05))


def first_rates(upload: Range, update: Range, curves: Curves | None = None) -> Rates:
    """What is believed before the first round: wide over the sizes that may be sent, and with
    ``curves`` pulled towards what a table measured, as a *share of what could be gained there*; the
    whole table counts as six observations, for it was measured elsewhere."""
    ranges = (upload.low, upload.high, update.low, update.high)
    if curves is None:
        return _wide(*ranges)
    key = (*ranges, id(curves))
    if (kept := _PRIORS.get(key)) is not None and kept[0] is curves:
        return kept[1]
    sizes = [
        np.geomspace(max(measured.low, 1.0), max(measured.high, 1.0), _KNOTS)
        for measured in (curves.upload_range, curves.update_range)
    ]
    up, down = (a.ravel() for a in np.meshgrid(*sizes, indexing="ij"))
    share = (np.asarray(curves.joint.value(up, down), dtype=float) - curves.m0) / _most(curves)
    rates = _wide(*ranges)
    off = (rates(up, down) - share) / _DOUBT
    likely = replace(rates, log_weight=-0.5 * _CELLS * (off**2).mean(axis=1))
    while len(_PRIORS) >= _KEPT:
        _PRIORS.pop(next(iter(_PRIORS)))
    _PRIORS[key] = curves, likely
    return likely


def _top(curves: Curves) -> float:
    """The mAP at the largest upload and package that were measured."""
    return float(np.asarray(curves.joint.value(curves.upload_range.high, curves.update_range.high)))


def _most(curves: Curves) -> float:
    return max(_top(curves) - curves.m0, 1e-6)


@lru_cache(maxsize=64)
def _wide(up_low: float, up_high: float, down_low: float, down_high: float) -> Rates:
    rng = np.random.default_rng(0)  # of integration, not of chance: the same guesses always

    def between(low: float, high: float) -> Floats:
        low = max(low, 1.0)
        return np.exp(rng.uniform(np.log(low), np.log(max(high, 2 * low)), _PARTICLES))

    return Rates(
        between(up_low / 10, 3 * up_high),
        rng.uniform(0.3, 1.5, _PARTICLES),
        between(down_low / 4, down_high),
        np.exp(rng.uniform(np.log(0.5), np.log(8.0), _PARTICLES)),
        np.zeros(_PARTICLES),
    )
