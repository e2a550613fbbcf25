"""Meeting a byte budget: the finest quantization that fits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from endedge.data.errors import BadInput

__all__ = ["COARSEST", "LOUDNESS_BINS", "SizeCurve", "fit_step"]

T = TypeVar("T")

COARSEST = 12.0  #: log2 of the step, in typical weights: all is zero
_FINEST = -10.0  # the same: about 12 bits each
_FILLED = 0.99  # of the budget: near enough to stop
_TRIALS = 28
LOUDNESS_BINS = np.arange(-48.0, 48.0 + 1 / 16, 1 / 8)  #: log2, for :class:`SizeCurve`
_GRAIN = 0.125  # of the curve, in log2 of the step
_LEAST_SLOPE = 1e-4  # of it, so that it has an inverse
_LOG_LARGEST = 8  # magnitudes up to 2**8 are told apart
_PAST = 1.0  # how far beyond what the curve says
_NARROW = 2.0**-8  # a bracket of the log step: size jumps over the budget here


class SizeCurve:
    """About how long a package is at every step: the order-0 entropy of integers rounded plainly,
    or ``each_bytes`` for every one that is not zero if that is more (a budget of numbers).

    ``loudness`` counts weights by the log2 of their size beside their own steps, in
    :data:`LOUDNESS_BINS`; ``overhead_bytes`` is what no step changes. Real sizes differ by some
    percent, but by much the same at neighbouring steps, which is what a search needs.
    """

    def __init__(
        self, loudness: NDArray[np.float64], overhead_bytes: int, each_bytes: float = 0.0
    ) -> None:
        self.log_steps = np.arange(_FINEST, COARSEST + _GRAIN / 2, _GRAIN)
        bits = np.array([_entropy_bits(loudness, at) for at in self.log_steps])
        bits = np.maximum.accumulate(bits[::-1])[::-1]
        slope = _LEAST_SLOPE * (COARSEST - self.log_steps)  # where all is zero, or no step changes
        heard = np.append(np.cumsum(loudness[::-1])[::-1], 0.0)  # beyond each of the bins
        some = each_bytes * np.interp(self.log_steps - 1, LOUDNESS_BINS, heard)
        self._log_size = np.log2(np.maximum(overhead_bytes + bits / 8, some)) + slope

    def log_size(self, log_step: float) -> float:
        """log2 of the bytes at ``log_step``."""
        return float(np.interp(log_step, self.log_steps, self._log_size))

    def log_step(self, log_size: float) -> float:
        """The inverse; beyond either end, that end."""
        return float(np.interp(-log_size, -self._log_size, self.log_steps))


def _entropy_bits(loudness: NDArray[np.float64], log_step: float) -> float:
    """Bits of all integers at ``log_step`` by the entropy of their magnitudes, and their signs."""
    n = float(loudness.sum())
    if n == 0:
        return 0.0
    edges = LOUDNESS_BINS - log_step
    below = np.concatenate([[0.0], np.cumsum(loudness)]) / n
    octaves = max(0.0, float(edges[np.searchsorted(below, 0.999)]) - _LOG_LARGEST)
    if octaves > 0:  # fine steps: one bit a halving
        return _entropy_bits(loudness, log_step + octaves) + n * octaves
    tops = np.log2(np.arange(2.0**_LOG_LARGEST + 1) + 0.5)
    reached = np.append(np.interp(tops, edges, below), 1.0)
    shares = np.diff(np.concatenate([[0.0], reached]))
    some = shares[shares > 0]
    return n * float(-(some * np.log2(some)).sum() + 1 - shares[0])


def fit_step(
    code: Callable[[float], T],
    size_bytes: Callable[[T], int],
    budget_bytes: int,
    curve: SizeCurve,
) -> tuple[float, T]:
    """The smallest step whose coded size is at most ``budget_bytes``, and its result.

    Size falls as the step grows, about as the ``curve`` says. The first step is where it meets the
    budget; from there on, strides that double find one step that fits and one that does not;
    between them the error of the curve is interpolated (Illinois: an end that stays counts
    half), and where that gains little, as beside a plateau, the bracket is halved. Never returns a
    result over the budget. Raises :class:`BadInput` with the smallest reachable size if even the
    coarsest step does not fit.
    """
    best: tuple[float, T] | None = None
    over, under = math.nan, math.nan  # log steps of the bracket, over < under
    excess_over, excess_under = 0.0, 0.0  # log2 of size over aim, there
    aim = budget_bytes * math.sqrt(_FILLED)
    at, stride, side, width = curve.log_step(math.log2(aim)), 0.0, 0, math.inf
    for _ in range(_TRIALS):
        step = float(np.float32(2.0**at))
        result = code(step)
        size = size_bytes(result)
        excess = math.log2(size / aim)
        if size <= budget_bytes:
            best, under, excess_under = (step, result), at, excess
            if size >= _FILLED * budget_bytes or at == _FINEST:
                break
            excess_over *= 0.5 if side < 0 else 1.0
            side = -1
        else:
            over, excess_over = at, excess
            if at == COARSEST:
                raise BadInput(
                    f"a budget of {budget_bytes} bytes is too small for this model: "
                    f"the smallest package is {size} bytes"
                )
            excess_under *= 0.5 if side > 0 else 1.0
            side = 1
        if math.isnan(under) or math.isnan(over):
            told = curve.log_step(curve.log_size(at) - _PAST * excess)
            far = max(-4.0, min(4.0, told - at))
            at += math.copysign(max(stride, abs(far)), excess)
            at, stride = min(COARSEST, max(_FINEST, at)), min(3.0, max(0.25, 2 * stride))
            continue
        if under - over < _NARROW:
            break
        share = excess_over / (excess_over - excess_under)
        if under - over > 0.6 * width:
            told = over + 0.5 * (under - over)
        else:
            ends = [curve.log_size(x) for x in (over, under)]
            told = curve.log_step(ends[0] + share * (ends[1] - ends[0]))
        width = under - over
        at = over + min(0.97, max(0.03, (told - over) / width)) * width
    assert best is not None
    return best
