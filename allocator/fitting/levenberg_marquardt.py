"""Many small bounded least-squares fits at once: batched Levenberg–Marquardt.

Every start, fold and bootstrap replicate of one kind of surface is one row of a batch, so a
whole study costs a few array operations an iteration. Huber's loss (Huber 1964) keeps single
bad cells from bending a curve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from endedge.allocator.accuracy.joint import Kind

__all__ = ["Problem", "bounds", "leverage", "polish", "screen"]

Floats = NDArray[np.float64]

_CLOSED = 1e-6  # stop when a step promises less than this share of the loss


@dataclass(frozen=True)
class Problem:
    """The cells to fit: bytes (n,) each way, mAP ``y`` (n,) or (batch, n), and ``m0``."""

    kind: Kind
    upload: Floats
    update: Floats
    y: Floats
    m0: float


def bounds(problem: Problem) -> tuple[Floats, Floats]:
    """Lowest and highest parameter vectors (7,): scales up to 30 times beyond the bytes."""
    kind = problem.kind
    u = np.log(np.array([problem.upload.min(), problem.upload.max()]))
    m = np.log(np.array([problem.update.min(), problem.update.max()]))
    slack = np.log(30.0)
    data, model = kind.data_shape.bounds, kind.model_shape.bounds
    low = [-2.0, 0.0, u[0] - slack, data[0], m[0] - slack, model[0], 0.0]
    high = [1.0, 3.0, u[1] + slack, data[1], m[1] + slack / 3, model[1], 1.0]
    return np.array(low), np.array(high)


def screen(problem: Problem, count: int, keep: int, rng: np.random.Generator) -> Floats:
    """The ``keep`` best of ``count`` random starts (keep, 7).

    Scales and shapes are drawn within their bounds; start, gain and depth, in which every
    composition is linear, are then solved for exactly (variable projection, Golub and
    Pereyra 1973).
    """
    kind, (low, high) = problem.kind, bounds(problem)
    theta = low + (high - low) * rng.random((count, 7))
    rise = kind.data_shape.value(problem.upload * np.exp(-theta[:, 2:3]), theta[:, 3:4])
    model = kind.model_shape.value(problem.update * np.exp(-theta[:, 4:5]), theta[:, 5:6])
    if kind.composition == "additive":
        basis = np.stack([np.ones_like(rise), rise, model - 1.0], axis=-1)
        target = np.broadcast_to(problem.y, rise.shape)
    else:
        basis = np.stack([model, rise * model], axis=-1)
        offset = problem.m0 * (1.0 - model) if kind.composition == "share" else 0.0
        target = problem.y - offset
    transposed = np.swapaxes(basis, 1, 2)
    gram = transposed @ basis + 1e-9 * np.eye(basis.shape[-1])
    linear = np.linalg.solve(gram, (transposed @ target[..., None]))[..., 0]
    theta[:, 0:2] = linear[:, 0:2]
    theta[:, 6] = linear[:, 2] if kind.composition == "additive" else 0.0
    theta = np.clip(theta, low, high)
    theta[:, ~kind.free] = _fixed(kind)[~kind.free]
    cost = ((problem.y - _model(problem, theta)[0]) ** 2).sum(axis=-1)
    return np.asarray(theta[np.argsort(cost)[:keep]])


def polish(
    problem: Problem,
    theta: Floats,
    weights: Floats,
    huber: float = np.inf,
    iterations: int = 60,
) -> tuple[Floats, Floats]:
    """Descend from ``theta`` (batch, 7) under cell ``weights`` (batch, n) or (n,).

    Returns the parameters (batch, 7) and the weighted Huber losses (batch,); a residual
    beyond ``huber`` counts linearly.
    """
    low, high = bounds(problem)
    free = problem.kind.free
    theta = np.clip(theta, low, high)
    shape = (len(theta), len(problem.upload))
    y, weights = np.broadcast_to(problem.y, shape), np.broadcast_to(weights, shape)
    fitted, jacobian = _model(problem, theta)
    cost = _cost(y - fitted, weights, huber)
    final, final_cost = theta.copy(), cost.copy()
    live, damping = np.arange(len(theta)), np.full(len(theta), 1e-2)
    for _ in range(iterations):
        residual = y - fitted
        irls = weights * np.minimum(1.0, huber / np.maximum(np.abs(residual), 1e-300))
        weighted = jacobian * irls[..., None]
        gradient = np.einsum("bnp,bn->bp", weighted, residual)
        hessian = np.swapaxes(weighted, 1, 2) @ jacobian
        stuck = ((theta <= low) & (gradient < 0)) | ((theta >= high) & (gradient > 0))
        active = free & ~stuck
        gradient = gradient * active
        ridge = damping[:, None] * (np.einsum("bpp->bp", hessian) + 1e-10) + 1e-12
        hessian = hessian * (active[:, :, None] & active[:, None, :])
        hessian += np.einsum("bp,pq->bpq", np.where(active, ridge, 1.0), np.eye(7))
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        trial = np.clip(theta + step, low, high)
        trial_fitted, trial_jacobian = _model(problem, trial)
        trial_cost = _cost(y - trial_fitted, weights, huber)
        better = trial_cost < cost
        theta = np.where(better[:, None], trial, theta)
        cost = np.where(better, trial_cost, cost)
        final[live], final_cost[live] = theta, cost
        closed = ((gradient * step).sum(axis=-1) < _CLOSED * cost + 1e-18) | (damping > 1e8)
        if closed.all():
            break
        go = ~closed
        fitted = np.where(better[:, None], trial_fitted, fitted)[go]
        jacobian = np.where(better[:, None, None], trial_jacobian, jacobian)[go]
        damping = np.where(better, np.maximum(damping / 4.0, 1e-9), damping * 5.0)[go]
        theta, cost, live, y, weights = theta[go], cost[go], live[go], y[go], weights[go]
    return final, final_cost


def leverage(problem: Problem, theta: Floats, weights: Floats) -> Floats:
    """How far each cell (n,) pulls the fit at ``theta`` (7,) to itself, in [0, 0.9]."""
    jacobian = _model(problem, theta[None])[1][0] * problem.kind.free
    root = jacobian * np.sqrt(weights)[:, None]
    scale = np.sqrt((root**2).sum(axis=0)) + 1e-12
    base = np.linalg.svd(root / scale, full_matrices=False)
    inside = base.U[:, 1e-6 * base.S[0] < base.S]
    return np.asarray(np.minimum((inside**2).sum(axis=1), 0.9))


def _fixed(kind: Kind) -> Floats:
    """Values of the parameters that a kind does not have."""
    return np.array([0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0])


def _cost(residual: Floats, weights: Floats, huber: float) -> Floats:
    size = np.abs(residual)
    if np.isinf(huber):
        loss = size**2
    else:
        loss = np.where(size <= huber, size**2, 2.0 * huber * size - huber**2)
    return np.asarray((weights * loss).sum(axis=-1))


def _model(problem: Problem, theta: Floats) -> tuple[Floats, Floats]:
    """Fitted values (batch, n) and their Jacobian (batch, n, 7)."""
    kind = problem.kind
    start, gain, log_u0, data_s, log_m0, model_s, depth = (theta[:, k : k + 1] for k in range(7))
    x, z = problem.upload * np.exp(-log_u0), problem.update * np.exp(-log_m0)
    rise, model = kind.data_shape.value(x, data_s), kind.model_shape.value(z, model_s)
    data = start + gain * rise
    if kind.composition == "product":
        fitted, by_data, by_model = data * model, model, data
    elif kind.composition == "additive":
        by_data, by_model = np.ones_like(model), np.broadcast_to(depth, model.shape)
        fitted = data - depth * (1.0 - model)
    else:
        fitted, by_data = problem.m0 + (data - problem.m0) * model, model
        by_model = data - problem.m0
    jacobian = np.empty((*fitted.shape, 7))
    jacobian[..., 0] = by_data
    jacobian[..., 1] = by_data * rise
    jacobian[..., 2] = by_data * -gain * x * kind.data_shape.slope(x, data_s, rise)
    jacobian[..., 3] = by_data * gain * kind.data_shape.shape_slope(x, data_s, rise)
    jacobian[..., 4] = by_model * -z * kind.model_shape.slope(z, model_s, model)
    jacobian[..., 5] = by_model * kind.model_shape.shape_slope(z, model_s, model)
    jacobian[..., 6] = model - 1.0 if kind.composition == "additive" else 0.0
    return fitted, jacobian
