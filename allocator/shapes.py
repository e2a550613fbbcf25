"""Rising shapes r(x; s) from which every accuracy curve is built.

A curve of accuracy against bytes is ``start + gain * r(bytes / scale; s)``; a shape knows its
value, its two partial derivatives and where it is steepest, which is all that the fit and the
solver ask. All are non-decreasing in x >= 0.

Sources: offset power law: Hestness et al. 2017 and Rosenfeld et al. 2020; exponential,
logarithm, MMF4 (Morgan-Mercer-Flodin) and WBL4 (Weibull): Mohr and van Rijn, learning-curve
surveys (LCDB, 2022); Hill: Hill 1910, MMF4 with start 0 and gain 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

__all__ = ["DATA_SHAPES", "MODEL_SHAPES", "Number", "Shape"]

Number: TypeAlias = Any  # float or float64 array: both go through the same formulas

_TINY = 1e-12  # keeps logarithms and negative powers finite at x = 0


def _exp(x: Number) -> Number:
    return math.exp(x) if isinstance(x, float) else np.exp(x)


def _log(x: Number) -> Number:
    return math.log(x) if isinstance(x, float) else np.log(x)


def _floor(x: Number, low: Number) -> Number:
    return max(x, low) if isinstance(x, float) else np.maximum(x, low)


def _where(condition: Any, yes: Number, no: Number) -> Number:
    if isinstance(condition, bool):
        return yes if condition else no
    return np.where(condition, yes, no)


@dataclass(frozen=True)
class Shape:
    """One rising shape. All callables take (x >= 0, s) as floats or broadcastable arrays.

    ``value`` r, ``slope`` dr/dx, ``shape_slope`` dr/ds, ``peak`` the x of the steepest slope
    (0 for a concave shape). The slope rises up to the peak and falls after it, so its range
    on an interval is known exactly: the solver's bounds rest on that. ``bounds`` is the range
    of s; ``symbol`` its name in files, empty when the shape has none.
    """

    name: str
    symbol: str
    bounds: tuple[float, float]
    value: Callable[[Number, Number], Number]
    slope: Callable[[Number, Number], Number]
    shape_slope: Callable[[Number, Number], Number]
    peak: Callable[[Number], Number]

    def is_concave(self, s: float) -> bool:
        """Whether r(.; s) is concave on x >= 0."""
        return float(self.peak(float(s))) <= 0.0

    def slope_range(self, low: Number, high: Number, s: Number) -> tuple[Number, Number]:
        """Smallest and largest dr/dx on [low, high]: arrays in, arrays out."""
        at_low, at_high = self.slope(low, s), self.slope(high, s)
        steepest = self.slope(np.clip(self.peak(s), low, high), s)
        return np.minimum(at_low, at_high), np.maximum(np.maximum(at_low, at_high), steepest)


def _no_peak(s: Number) -> Number:
    return s * 0.0


def _power_value(x: Number, c: Number) -> Number:
    return 1.0 - (1.0 + x) ** -c


def _power_slope(x: Number, c: Number) -> Number:
    return c * (1.0 + x) ** (-c - 1.0)


def _power_shape(x: Number, c: Number) -> Number:
    return (1.0 + x) ** -c * _log(1.0 + x)


def _hill_value(x: Number, h: Number) -> Number:
    return 1.0 - 1.0 / (1.0 + x**h)


def _hill_slope(x: Number, h: Number) -> Number:
    x = _floor(x, _TINY)
    y = x**h
    return h * y / (x * (1.0 + y) ** 2)


def _hill_shape(x: Number, h: Number) -> Number:
    x = _floor(x, _TINY)
    y = x**h
    return y * _log(x) / (1.0 + y) ** 2


def _hill_peak(h: Number) -> Number:
    return (_floor(h - 1.0, 0.0) / (h + 1.0)) ** (1.0 / h)


def _weibull_value(x: Number, c: Number) -> Number:
    return 1.0 - _exp(-(x**c))


def _weibull_slope(x: Number, c: Number) -> Number:
    x = _floor(x, _TINY)
    y = x**c
    return c * y / x * _exp(-y)


def _weibull_shape(x: Number, c: Number) -> Number:
    x = _floor(x, _TINY)
    y = x**c
    return y * _log(x) * _exp(-y)


def _weibull_peak(c: Number) -> Number:
    return (_floor(c - 1.0, 0.0) / c) ** (1.0 / c)


def _knee_value(x: Number, e: Number) -> Number:
    return _floor(1.0 - e * _exp(-x), 0.0)


def _knee_slope(x: Number, e: Number) -> Number:
    y = e * _exp(-x)
    return _where(y <= 1.0 + 1e-12, y, y * 0.0)


def _knee_shape(x: Number, e: Number) -> Number:
    y = _exp(-x)
    return _where(e * y < 1.0, -y, y * 0.0)


def _knee_peak(e: Number) -> Number:
    return _floor(_log(_floor(e, _TINY)), 0.0)


def _capped_value(x: Number, c: Number) -> Number:
    return _where(x < 1.0, x**c, 1.0 + x * 0.0)


def _capped_slope(x: Number, c: Number) -> Number:
    x = _floor(x, _TINY)
    return _where(x <= 1.0, c * x ** (c - 1.0), x * 0.0)


def _capped_shape(x: Number, c: Number) -> Number:
    x = _floor(x, _TINY)
    return _where(x < 1.0, x**c * _log(x), x * 0.0)


def _capped_peak(c: Number) -> Number:
    return _where(c > 1.0, c * 0.0 + 1.0, c * 0.0)


def _exponential(x: Number, _: Number) -> Number:
    return 1.0 - _exp(-x)


def _exponential_slope(x: Number, _: Number) -> Number:
    return _exp(-x)


def _logarithm(x: Number, _: Number) -> Number:
    return _log(1.0 + x)


def _logarithm_slope(x: Number, _: Number) -> Number:
    return 1.0 / (1.0 + x)


def _nothing(x: Number, _: Number) -> Number:
    return x * 0.0


_MMF = (_hill_value, _hill_slope, _hill_shape, _hill_peak)
_WEIBULL = (_weibull_value, _weibull_slope, _weibull_shape, _weibull_peak)
_KNEE = (_knee_value, _knee_slope, _knee_shape, _knee_peak)

# Accuracy against uploaded bytes: A(U) = start + gain * r(U / U0).
DATA_SHAPES: dict[str, Shape] = {
    shape.name: shape
    for shape in (
        Shape("power", "c", (0.05, 6.0), _power_value, _power_slope, _power_shape, _no_peak),
        Shape("exponential", "", (1.0, 1.0), _exponential, _exponential_slope, _nothing, _no_peak),
        Shape("logarithm", "", (1.0, 1.0), _logarithm, _logarithm_slope, _nothing, _no_peak),
        Shape("mmf4", "c", (0.2, 6.0), *_MMF),
        Shape("wbl4", "c", (0.2, 6.0), *_WEIBULL),
    )
}

# Share of the achievable accuracy against model bytes: G(M) = r(M / M0), from 0 to 1.
MODEL_SHAPES: dict[str, Shape] = {
    shape.name: shape
    for shape in (
        Shape("exponential", "epsilon", (0.01, 20.0), *_KNEE),
        Shape("hill", "h", (0.3, 12.0), *_MMF),
        Shape("power", "c", (0.03, 6.0), _capped_value, _capped_slope, _capped_shape, _capped_peak),
        Shape("weibull", "c", (0.2, 8.0), *_WEIBULL),
    )
}
