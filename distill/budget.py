"""Meeting a byte budget: the finest quantization that fits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from endedge.data.units import BadInput

__all__ = ["first_guess", "fit_step"]

T = TypeVar("T")

_COARSEST, _FINEST = 2.0**12, 2.0**-10  # in typical weights: all zero, about 12 bits each
_FILLED = 0.99  # of the budget: near enough to stop
_TRIALS = 14


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

    Size falls as the step grows; the root is bracketed from log2 step ``guess`` on and found by
    interpolation of log size over log step, safeguarded. Never returns a result over the
    budget. Raises :class:`BadInput` with the smallest reachable size if even the coarsest
    step does not fit.
    """

    def trial(log_step: float) -> tuple[float, float, T]:
        step = float(np.float32(2.0**log_step))
        result = code(step)
        return math.log2(size_bytes(result) / budget_bytes), step, result

    low, high = math.log2(_FINEST), math.log2(_COARSEST)
    best: tuple[float, T] | None = None
    guess = min(high, max(low, guess))
    over: tuple[float, float] | None = None  # (log step, log size excess) on each side
    under: tuple[float, float] | None = None
    last: tuple[float, float] | None = None
    aim = 0.5 * math.log2(_FILLED)
    for _ in range(_TRIALS):
        excess, step, result = trial(guess)
        if excess <= 0:
            best, under = (step, result), (guess, excess)
            if excess >= math.log2(_FILLED) or guess <= low:
                return best
        else:
            over = (guess, excess)
            if guess >= high:
                raise BadInput(
                    f"a budget of {budget_bytes} bytes is too small for this model: "
                    f"the smallest package is {size_bytes(result)} bytes"
                )
        slope = -1.0 if last is None or last[0] == guess else (excess - last[1]) / (guess - last[0])
        last = (guess, excess)
        move = (aim - excess) / min(-0.25, max(-4.0, slope))  # log size per log step
        guess = min(high, max(low, guess + move))
        if over is not None and under is not None:  # stay well inside the bracket
            margin = 0.03 * (under[0] - over[0])
            guess = min(under[0] - margin, max(over[0] + margin, guess))
        elif guess > 6:
            guess = high
    assert best is not None
    return best
