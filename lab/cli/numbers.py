"""Numbers on the command line, with the ranges that a configuration has for its own."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

__all__ = ["PORT", "SEED", "SIDE", "positive", "share", "whole"]


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Reads a whole number from ``least`` to ``most``."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            to = f"to {most}" if most is not None else "or more"
            raise argparse.ArgumentTypeError(f"{text!r}; give a whole number, {least} {to}")
        return value

    return read


PORT = whole(0, 65535)
SEED = whole(0, 2**32 - 1)
SIDE = whole(32, 8192)  # px, of a detector's square input; its stride is asked later


def share(text: str) -> float:
    """Reads a number in (0, 1]."""
    value = _number(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}; give a number above 0, at most 1")
    return value


def positive(text: str) -> float:
    """Reads a finite number above 0."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}; give a number above 0")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
