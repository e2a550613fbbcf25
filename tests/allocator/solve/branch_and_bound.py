"""Global maxima by branch and bound: what the solver is held to.

Every slope rises to one peak and falls, so its range on an interval is known exactly, and every box
of bytes has a proven upper bound: the smaller of the natural bound and the mean-value form
Φ(mid) + |∇Φ|·half-width (Moore 1966), which closes quadratically. Boxes that cannot beat the
best point found by more than ``tolerance`` are dropped; when none is left, the best found is
the global maximum to that tolerance.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from endedge.allocator.accuracy.joint import Joint
from endedge.allocator.accuracy.shapes import MODEL_SHAPES, TINY, Number, Shape
from endedge.allocator.problem import Budget
from endedge.allocator.solve.search import worth

__all__ = ["TOLERANCE", "best_anywhere", "slope_range", "steepest_at"]

Floats = NDArray[np.float64]
Interval: TypeAlias = tuple[Floats, Floats]
Found: TypeAlias = tuple[float, float, float]  # U, M, Φ

TOLERANCE = 1e-8  # mAP
_MAX_BOXES = 400_000


def slope_range(shape: Shape, low: Number, high: Number, s: Number) -> tuple[Number, Number]:
    """Smallest and largest dr/dx on [low, high] (arrays)."""

    def slope(x: Number) -> Number:
        x = np.maximum(x, TINY)
        return shape.slope(x, s, shape.value(x, s))

    at_low, at_high = slope(low), slope(high)
    steepest = slope(np.clip(steepest_at(shape, s), low, high))
    return np.minimum(at_low, at_high), np.maximum(np.maximum(at_low, at_high), steepest)


def steepest_at(shape: Shape, s: Number) -> Number:
    """The x of the steepest slope; 0 for a concave shape."""
    if shape.name in ("hill", "mmf4"):
        return (np.maximum(s - 1.0, 0.0) / (s + 1.0)) ** (1.0 / s)
    if shape.name in ("weibull", "wbl4"):
        return (np.maximum(s - 1.0, 0.0) / s) ** (1.0 / s)
    if shape.has_corner:
        return np.where(s > 1.0, 1.0, 0.0)
    if shape is MODEL_SHAPES["exponential"]:
        return np.maximum(np.log(s), 0.0)
    return 0.0


def best_on_segment(
    joint: Joint,
    budget: Budget,
    start: tuple[float, float],
    end: tuple[float, float],
    found: Found | None = None,
) -> Found:
    """The best point between two pairs of bytes (U, M); ``found`` is one already known."""
    step_u, step_m = end[0] - start[0], end[1] - start[1]

    def at(t: Floats) -> tuple[Floats, Floats]:
        upload = np.maximum(start[0] + t * step_u, 0.0)  # rounding may fall below
        update = np.maximum(start[1] + t * step_m, 0.0)
        return upload, update

    # Finer towards both ends, where one of the two directions has few bytes.
    half = np.geomspace(1e-6, 0.5, 24)
    edges = np.concatenate([[0.0], half, 1.0 - half[-2::-1], [1.0]])
    best = _better(found, *at(edges), worth(joint, budget, *at(edges)))
    low, high = edges[:-1], edges[1:]
    while len(low):
        middle = (low + high) / 2
        upload, update = at(middle)
        value = worth(joint, budget, upload, update)
        best = _better(best, upload, update, value)
        at_low, at_high = at(low), at(high)
        u, m = _ordered(at_low[0], at_high[0]), _ordered(at_low[1], at_high[1])
        bound, along_u, along_m = _bounds(joint, budget, u, m)
        slope = _add(_scale(along_u, step_u), _scale(along_m, step_m))
        steepest = np.maximum(np.abs(slope[0]), np.abs(slope[1]))
        bound = np.fmin(bound, value + steepest * (high - low) / 2)
        keep = (bound > best[2] + TOLERANCE) & (slope[0] <= 0) & (slope[1] >= 0)
        keep &= (high - low) > 1e-14
        low, middle, high = low[keep], middle[keep], high[keep]
        if len(low) > _MAX_BOXES:
            raise RuntimeError("branch and bound does not close; please report these curves")
        low, high = np.concatenate([low, middle]), np.concatenate([middle, high])
    return best


def best_anywhere(joint: Joint, budget: Budget) -> Found:
    """The best feasible (U, M): all edges of the feasible polygon, then its inside."""
    corners = _polygon(budget)
    found: Found | None = None
    for start, end in zip(corners, [*corners[1:], corners[0]], strict=True):
        found = best_on_segment(joint, budget, start, end, found)
    if found is None:
        raise ValueError("an empty budget has no best point")
    if budget.fresh_up == 0 and budget.fresh_down == 0:
        return found  # more is never worse: the best lies on the edge
    u_edges = _spread(budget.upload.low, budget.upload.high)
    m_edges = _spread(budget.update.low, budget.update.high)
    i, j = (index.ravel() for index in np.indices((len(u_edges) - 1, len(m_edges) - 1)))
    u, m = (u_edges[i], u_edges[i + 1]), (m_edges[j], m_edges[j + 1])
    while len(u[0]):
        mid_u, mid_m = (u[0] + u[1]) / 2, (m[0] + m[1]) / 2
        value = worth(joint, budget, mid_u, mid_m)
        inside = budget.up * mid_u + budget.down * mid_m <= budget.room
        if inside.any():
            found = _better(found, mid_u[inside], mid_m[inside], value[inside])
        bound, along_u, along_m = _bounds(joint, budget, u, m)
        steep_u = np.maximum(np.abs(along_u[0]), np.abs(along_u[1]))
        steep_m = np.maximum(np.abs(along_m[0]), np.abs(along_m[1]))
        rise = steep_u * (u[1] - u[0]) / 2 + steep_m * (m[1] - m[0]) / 2
        bound = np.fmin(bound, value + rise)
        keep = (bound > found[2] + TOLERANCE) & (along_u[0] <= 0) & (along_u[1] >= 0)
        keep &= (along_m[0] <= 0) & (along_m[1] >= 0)
        keep &= budget.up * u[0] + budget.down * m[0] <= budget.room
        if keep.sum() > _MAX_BOXES:
            raise RuntimeError("branch and bound does not close; please report these curves")
        lu, hu, lm, hm = u[0][keep], u[1][keep], m[0][keep], m[1][keep]
        cu, cm = mid_u[keep], mid_m[keep]
        u = np.concatenate([lu, lu, cu, cu]), np.concatenate([cu, cu, hu, hu])
        m = np.concatenate([lm, cm, lm, cm]), np.concatenate([cm, hm, cm, hm])
    return found


def _polygon(budget: Budget) -> list[tuple[float, float]]:
    """Corners of the feasible bytes, in order round it."""
    u, m = budget.upload, budget.update
    if budget.cost(u.high, m.high) <= budget.room:
        return [(u.low, m.low), (u.high, m.low), (u.high, m.high), (u.low, m.high)]
    right = min(u.high, (budget.room - budget.down * m.low) / budget.up)
    top = min(m.high, (budget.room - budget.up * u.low) / budget.down)
    line_right = (right, (budget.room - budget.up * right) / budget.down)
    line_top = ((budget.room - budget.down * top) / budget.up, top)
    return [(u.low, m.low), (right, m.low), line_right, line_top, (u.low, top)]


def _spread(low: float, high: float) -> Floats:
    """Seven edges, finer towards few bytes."""
    return np.asarray(low + (high - low) * np.concatenate([[0.0], np.geomspace(1e-3, 1.0, 6)]))


def _better(best: Found | None, upload: Floats, update: Floats, value: Floats) -> Found:
    i = int(np.argmax(value))
    if best is not None and best[2] >= value[i]:
        return best
    return float(upload[i]), float(update[i]), float(value[i])


def _ordered(a: Floats, b: Floats) -> Interval:
    return np.minimum(a, b), np.maximum(a, b)


def _scale(x: Interval, factor: float) -> Interval:
    if factor == 0.0:  # even where the slope is unbounded
        return x[0] * 0.0, x[0] * 0.0
    return _ordered(x[0] * factor, x[1] * factor)


def _add(x: Interval, y: Interval) -> Interval:
    return x[0] + y[0], x[1] + y[1]


def _times(x: Interval, y: Interval) -> Interval:
    products = np.stack([x[0] * y[0], x[0] * y[1], x[1] * y[0], x[1] * y[1]])
    return np.fmin.reduce(products), np.fmax.reduce(products)


def _bounds(
    joint: Joint, budget: Budget, u: Interval, m: Interval
) -> tuple[Floats, Interval, Interval]:
    """Upper bound of Φ on each box, and the ranges of ∂Φ/∂U and ∂Φ/∂M (per byte)."""
    kind = joint.kind
    data, model = (joint.data(u[0]), joint.data(u[1])), (joint.model(m[0]), joint.model(m[1]))
    scale_u, scale_m = joint.u0_bytes, joint.m0_bytes
    data_slope = _scale(
        slope_range(kind.data_shape, u[0] / scale_u, u[1] / scale_u, joint.data_s),
        joint.gain / scale_u,
    )
    model_slope = _scale(
        slope_range(kind.model_shape, m[0] / scale_m, m[1] / scale_m, joint.model_s), 1 / scale_m
    )
    # F is bilinear in (A, G), so its range on a box of them is reached at the corners.
    corners = np.stack([joint.combine(a, g) for a in data for g in model])
    value = corners.min(axis=0) - budget.stale, corners.max(axis=0) - budget.stale
    by_data_low, by_model_low = joint.weights(data[0], model[0])
    by_data_high, by_model_high = joint.weights(data[1], model[1])
    slope_u = _times((by_data_low, by_data_high), data_slope)
    slope_m = _times((by_model_low, by_model_high), model_slope)
    fresh = (
        np.maximum(budget.fresh_share(u[1], m[1]), 0.0),
        np.maximum(budget.fresh_share(u[0], m[0]), 0.0),
    )
    bound = budget.stale + _times(value, fresh)[1]
    along_u = _add(_times(slope_u, fresh), _scale(value, -budget.fresh_up))
    along_m = _add(_times(slope_m, fresh), _scale(value, -budget.fresh_down))
    return bound, along_u, along_m
