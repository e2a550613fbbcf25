"""Rising shapes r(x; s) from which every accuracy curve is built.

A curve of accuracy against bytes is ``start + gain * r(bytes / scale; s)``. All shapes rise in
x >= 0 and, once r is known, their derivatives follow from it without another power or
exponential: the fit, the solver and the fleet ask for millions of them.

Sources: offset power law: Hestness et al. 2017 and Rosenfeld et al. 2020; exponential,
logarithm, MMF4 (Morgan-Mercer-Flodin) and WBL4 (Weibull): the families of Mohr et al.'s
learning curve database (LCDB, 2022); Hill: Hill 1910, MMF4 with start 0 and gain 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

__all__ = ["DATA_SHAPES", "MODEL_SHAPES", "TINY", "Number", "Shape"]

Number: TypeAlias = Any  # float or float64 array: both go through the same formulas

TINY = 1e-12  # least x: keeps logarithms and negative powers finite


@dataclass(frozen=True)
class Shape:
    """One rising shape.

    ``value(x, s)`` is r; ``slope``, ``bend`` and ``shape_slope`` (x, s, r) are dr/dx, d²r/dx²
    over dr/dx, and dr/ds, for x >= ``TINY``. ``bounds`` is the range of s; ``symbol`` its name in
    files, empty when the shape has none.
    """

    name: str
    symbol: str
    bounds: tuple[float, float]
    value: Callable[[Number, Number], Number]
    slope: Callable[[Number, Number, Number], Number]
    bend: Callable[[Number, Number, Number], Number]
    shape_slope: Callable[[Number, Number, Number], Number]
    has_corner: bool = False  # rises, then is flat from one x on


def _exp(x: Number) -> Number:
    return math.exp(x) if isinstance(x, float) else np.exp(x)


def _expm1(x: Number) -> Number:
    return math.expm1(x) if isinstance(x, float) else np.expm1(x)


def _log1p(x: Number) -> Number:
    return math.log1p(x) if isinstance(x, float) else np.log1p(x)


def _log(x: Number) -> Number:
    return math.log(x) if isinstance(x, float) else np.log(x)


def _floor(x: Number, low: Number) -> Number:
    return max(x, low) if isinstance(x, float) else np.maximum(x, low)


def _where(condition: Any, yes: Number, no: Number) -> Number:
    if isinstance(condition, bool):
        return yes if condition else no
    return np.where(condition, yes, no)


def _zero(x: Number, *_: Number) -> Number:
    return x * 0.0


# power: r = 1 - (1 + x)^-c


def _power(x: Number, c: Number) -> Number:
    return 1.0 - (1.0 + x) ** -c


def _power_slope(x: Number, c: Number, r: Number) -> Number:
    return c * (1.0 - r) / (1.0 + x)


def _power_bend(x: Number, c: Number, r: Number) -> Number:
    return -(c + 1.0) / (1.0 + x)


def _power_shape(x: Number, c: Number, r: Number) -> Number:
    return (1.0 - r) * _log(1.0 + x)


# exponential: r = 1 - e^-x


def _exponential(x: Number, _: Number) -> Number:
    return -_expm1(-x)


def _exponential_slope(x: Number, _: Number, r: Number) -> Number:
    return 1.0 - r


def _exponential_bend(x: Number, _: Number, r: Number) -> Number:
    return x * 0.0 - 1.0


# logarithm: r = ln(1 + x)


def _logarithm(x: Number, _: Number) -> Number:
    return _log(1.0 + x)


def _logarithm_slope(x: Number, _: Number, r: Number) -> Number:
    return 1.0 / (1.0 + x)


def _logarithm_bend(x: Number, _: Number, r: Number) -> Number:
    return -1.0 / (1.0 + x)


# Hill, MMF: r = x^h / (1 + x^h)


def _hill(x: Number, h: Number) -> Number:
    y = x**h
    return y / (1.0 + y)


def _hill_slope(x: Number, h: Number, r: Number) -> Number:
    return h * r * (1.0 - r) / x


def _hill_bend(x: Number, h: Number, r: Number) -> Number:
    return (h - 1.0 - 2.0 * h * r) / x


def _hill_shape(x: Number, h: Number, r: Number) -> Number:
    return r * (1.0 - r) * _log(x)


# Weibull: r = 1 - e^-y with y = x^c


def _weibull(x: Number, c: Number) -> Number:
    return -_expm1(-(x**c))


def _weibull_power(r: Number) -> Number:
    """y = x^c from r; 37 where 1 - r is below the rounding of 1."""
    return -_log1p(_floor(-r, -1.0 + 1e-16))


def _weibull_slope(x: Number, c: Number, r: Number) -> Number:
    return c * _weibull_power(r) * (1.0 - r) / x


def _weibull_bend(x: Number, c: Number, r: Number) -> Number:
    return (c - 1.0 - c * _weibull_power(r)) / x


def _weibull_shape(x: Number, c: Number, r: Number) -> Number:
    return _weibull_power(r) * (1.0 - r) * _log(x)


# knee: r = max(0, 1 - e * exp(-x))


def _knee(x: Number, e: Number) -> Number:
    return _floor(1.0 - e * _exp(-x), 0.0)


def _knee_slope(x: Number, e: Number, r: Number) -> Number:
    return _where(x >= _log(e), 1.0 - r, x * 0.0)


def _knee_shape(x: Number, e: Number, r: Number) -> Number:
    return _where(r > 0.0, (r - 1.0) / e, x * 0.0)


# capped power: r = min(1, x^c)


def _capped(x: Number, c: Number) -> Number:
    return _where(x < 1.0, x**c, 1.0 + x * 0.0)


def _capped_slope(x: Number, c: Number, r: Number) -> Number:
    return _where(x <= 1.0, c * r / x, x * 0.0)


def _capped_bend(x: Number, c: Number, r: Number) -> Number:
    return (c - 1.0) / x


def _capped_shape(x: Number, c: Number, r: Number) -> Number:
    return _where(x < 1.0, r * _log(x), x * 0.0)


_POWER = (_power, _power_slope, _power_bend, _power_shape)
_EXPONENTIAL = (_exponential, _exponential_slope, _exponential_bend, _zero)
_LOGARITHM = (_logarithm, _logarithm_slope, _logarithm_bend, _zero)
_HILL = (_hill, _hill_slope, _hill_bend, _hill_shape)
_WEIBULL = (_weibull, _weibull_slope, _weibull_bend, _weibull_shape)
_KNEE = (_knee, _knee_slope, _exponential_bend, _knee_shape)
_CAPPED = (_capped, _capped_slope, _capped_bend, _capped_shape)

# Accuracy against uploaded bytes: A(U) = start + gain * r(U / U0).
DATA_SHAPES: dict[str, Shape] = {
    "power": Shape("power", "c", (0.05, 6.0), *_POWER),
    "exponential": Shape("exponential", "", (1.0, 1.0), *_EXPONENTIAL),
    "logarithm": Shape("logarithm", "", (1.0, 1.0), *_LOGARITHM),
    "mmf4": Shape("mmf4", "c", (0.2, 6.0), *_HILL),
    "wbl4": Shape("wbl4", "c", (0.2, 6.0), *_WEIBULL),
}

# Share of the achievable accuracy against model bytes: G(M) = r(M / M0), from 0 to 1.
MODEL_SHAPES: dict[str, Shape] = {
    "exponential": Shape("exponential", "epsilon", (0.01, 20.0), *_KNEE),
    "hill": Shape("hill", "h", (0.3, 12.0), *_HILL),
    "power": Shape("power", "c", (0.03, 6.0), *_CAPPED, has_corner=True),
    "weibull": Shape("weibull", "c", (0.2, 8.0), *_WEIBULL),
}
