"""Meeting a byte budget: the finest quantization that fits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from endedge.data.errors import BadInput

__all__ = ["first_guess", "fit_step"]

T = TypeVar("T")

_COARSEST, _FINEST = 12.0, -10.0  # log2 of typical weights: all zero, about 12 bits each
_FILLED = 0.99  # of the budget: near enough to stop
_TRIALS = 28
_NARROW = 2.0**-8  # a bracket of the log step: size jumps over the budget here


def first_guess(mean_bits: float) -> float:
    """log2 of the step at which Laplacian weights of unit variance cost so many bits each."""
    if mean_bits > 1.5:
        return 1.9 - mean_bits
    return 0.4 - 1.6 * math.log2(max(mean_bits, 0.05) / 1.5)


def fit_step(
    code: Callable[[float], T],
    size_bytes: Callable[[T], int],
    budget_bytes: int,
    guess: float = 0.0,
) -> tuple[float, T]:
    """The smallest step whose coded size is at most ``budget_bytes``, and its result.

    Size falls as the step grows. From log2 step ``guess`` on, strides that double find one
    step that fits and one that does not; between them log size is interpolated linearly over
    log step (Illinois: an end that stays counts half), and where that gains little, as beside
    a plateau, the bracket is halved. Never returns a result over the budget. Raises
    :class:`BadInput` with the smallest reachable size if even the coarsest step does not fit.
    """
    best: tuple[float, T] | None = None
    over, under = math.nan, math.nan  # log steps of the bracket, over < under
    excess_over, excess_under = 0.0, 0.0  # log2 of size over aim, there
    aim = budget_bytes * math.sqrt(_FILLED)
    at, stride, side, width = min(_COARSEST, max(_FINEST, guess)), 0.5, 0, math.inf
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
            if at == _COARSEST:
                raise BadInput(
                    f"a budget of {budget_bytes} bytes is too small for this model: "
                    f"the smallest package is {size} bytes"
                )
            excess_under *= 0.5 if side > 0 else 1.0
            side = 1
        if math.isnan(under) or math.isnan(over):
            move = max(-4.0, min(4.0, excess))  # about one bit a bit, if nothing else is known
            at += math.copysign(max(stride, 1.1 * abs(move)), excess)
            at, stride = min(_COARSEST, max(_FINEST, at)), min(3.0, 2 * stride)
            continue
        if under - over < _NARROW:
            break
        share = excess_over / (excess_over - excess_under)
        if under - over > 0.6 * width:
            share = 0.5
        width = under - over
        at = over + min(0.97, max(0.03, share)) * width
    assert best is not None
    return best
