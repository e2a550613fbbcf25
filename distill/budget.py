"""Meeting a byte budget: the finest quantization that fits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from endedge.data.units import BadInput

__all__ = ["fit_step"]

T = TypeVar("T")

_COARSEST, _FINEST = 2.0**12, 2.0**-9  # steps relative to the loudness of a row
_FILLED = 0.99  # of the budget: near enough to stop
_TRIALS = 14


def fit_step(
    code: Callable[[float], T], size_bytes: Callable[[T], int], budget_bytes: int
) -> tuple[float, T]:
    """The smallest step whose coded size is at most ``budget_bytes``, and its result.

    Size falls as the step grows; the root is bracketed and found by interpolation of log
    size over log step, safeguarded by bisection. Never returns a result over the budget.
    Raises :class:`BadInput` with the smallest reachable size if even the coarsest step
    does not fit.
    """

    def trial(log_step: float) -> tuple[float, float, T]:
        step = float(np.float32(2.0**log_step))
        result = code(step)
        return math.log2(size_bytes(result) / budget_bytes), step, result

    low, high = math.log2(_FINEST), math.log2(_COARSEST)
    best: tuple[float, T] | None = None
    guess, over, under = -1.0, None, None  # over, under: (log step, log size excess) on each side
    for _ in range(_TRIALS):
        excess, step, result = trial(guess)
        if excess <= 0:
            best = (step, result)
            under = (guess, excess)
            if excess >= math.log2(_FILLED) or guess <= low:
                return best
        else:
            over = (guess, excess)
            if guess >= high:
                raise BadInput(
                    f"a budget of {budget_bytes} bytes is too small for this model: "
                    f"the smallest package is {size_bytes(result)} bytes"
                )
        if over is None:
            guess = max(low, guess - 2.0)
        elif under is None:
            guess = high if guess >= 3.0 else guess + 2.0
        else:
            # aim a little under the budget; stay inside the bracket
            aim = 0.4 * math.log2(_FILLED)
            share = (over[1] - aim) / (over[1] - under[1])
            share = min(0.95, max(0.05, share))
            guess = over[0] + share * (under[0] - over[0])
    assert best is not None
    return best
