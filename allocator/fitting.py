"""From a measured surface to curves: every family is tried, the held-out error decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from endedge.allocator.curves import Candidate, Curves, Range
from endedge.allocator.joint import COMPOSITIONS, Joint, Kind, joint_value
from endedge.allocator.least_squares import Problem, polish, screen
from endedge.allocator.monotone import Monotone, fit_monotone
from endedge.allocator.shapes import DATA_SHAPES, MODEL_SHAPES
from endedge.allocator.surface import Surface
from endedge.data.units import BadInput

__all__ = ["all_kinds", "fit"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_STARTS, _POLISHED, _FOLDS = 400, 6, 10
_HUBER = 1.345  # 95 % efficient under normal noise (Huber 1964)


def all_kinds() -> tuple[Kind, ...]:
    """Every data family with every model family in every composition."""
    return tuple(Kind(c, a, g) for c in COMPOSITIONS for a in DATA_SHAPES for g in MODEL_SHAPES)


def fit(
    surface: Surface,
    *,
    m0: float | None = None,
    kinds: Sequence[Kind] | None = None,
    replicates: int = 200,
    seed: int = 0,
) -> Curves:
    """Fit F(U, M) to measured cells.

    ``m0`` is the mAP before any update (default: the surface's mean ``m0``). ``kinds`` limits
    what is tried (default: all that the grid can tell apart). The kind with the least
    leave-cells-out error is chosen; ``replicates`` bootstrap surfaces over seeds and cells,
    drawn from every kind within one standard error of the best, carry the uncertainty. The
    same input gives the same curves.

    Raises :class:`BadInput` for fewer than three upload sizes or two model budgets. Equal
    accuracies everywhere give flat curves and say so in ``note``.
    """
    m0 = float(surface.m0.mean()) if m0 is None else m0
    if not (math.isfinite(m0) and 0 <= m0 <= 1):
        raise BadInput(f"m0 = {m0} must lie in [0, 1]")
    grid = _Grid.of(surface)
    if np.ptp(surface.map) < 1e-9:
        return _flat(surface, grid, m0, seed)
    rng = np.random.default_rng(seed)
    tried = [kind for kind in kinds or all_kinds() if grid.identifies(kind)]
    if not tried:
        raise BadInput("every curve family has more parameters than the surface has sizes")
    fits = [_fit_kind(kind, surface, m0, grid, rng) for kind in tried]
    fits.sort(key=lambda one: one.held_out)
    best = fits[0]
    rivals = [one for one in fits if one.ties_with(best)]
    return Curves(
        m0=m0,
        joint=best.joint,
        candidates=tuple(one.candidate for one in fits),
        replicates=tuple(_bootstrap(rivals, surface, replicates, rng)),
        **_measured(surface, grid, seed),
    )


@dataclass(frozen=True)
class _Grid:
    """Where each cell (n,) lies: its upload level, its budget level, its fold."""

    row: Ints
    column: Ints
    fold: Ints

    @classmethod
    def of(cls, surface: Surface) -> _Grid:
        uploads = list(zip(surface.frames, surface.codec, strict=True))
        row = _ranked(uploads, surface.upload_bytes)
        column = _ranked(list(surface.budget_bytes), surface.update_bytes)
        rows, columns = int(row.max()) + 1, int(column.max()) + 1
        if rows < 3 or columns < 2:
            raise BadInput(
                "curves need at least 3 upload sizes and 2 model budgets; "
                f"the surface has {rows} and {columns}"
            )
        if (surface.upload_bytes <= 0).any() or (surface.update_bytes <= 0).any():
            raise BadInput("curves need upload_bytes > 0 and update_bytes > 0 in every cell")
        # Steps of 3 and 7 spread a fold over the grid: it never takes a whole row or column.
        return cls(row, column, (3 * row + 7 * column) % _FOLDS)

    @property
    def point(self) -> Ints:
        """The operating point of each cell: its seeds share it."""
        return self.row * (int(self.column.max()) + 1) + self.column

    def identifies(self, kind: Kind) -> bool:
        """Whether the grid has as many levels as the families have parameters."""
        free = kind.free
        return bool(
            free[:4].sum() <= self.row.max() + 1
            and free[4:6].sum() <= self.column.max() + 1
            and free.sum() < len(np.unique(self.point))
        )


def _ranked(keys: Sequence[object], n_bytes: Floats) -> Ints:
    """Number the distinct keys 0, 1, … by rising mean bytes; one number a cell."""
    names = list(dict.fromkeys(keys))
    index = np.array([names.index(key) for key in keys])
    means = np.bincount(index, weights=n_bytes) / np.bincount(index)
    rank = np.empty(len(names), dtype=np.int64)
    rank[np.argsort(means, kind="stable")] = np.arange(len(names))
    return np.asarray(rank[index])


@dataclass(frozen=True)
class _Fit:
    joint: Joint
    errors: Floats  # squared held-out error of each operating point
    huber: float
    candidate: Candidate

    @property
    def held_out(self) -> float:
        return self.candidate.held_out

    def ties_with(self, best: _Fit) -> bool:
        """Within one standard error of the paired difference to the best."""
        worse = self.errors - best.errors
        return bool(worse.mean() <= worse.std(ddof=1) / math.sqrt(len(worse)))


def _fit_kind(
    kind: Kind, surface: Surface, m0: float, grid: _Grid, rng: np.random.Generator
) -> _Fit:
    problem = Problem(kind, surface.upload_bytes, surface.update_bytes, surface.map, m0)
    n, flat = len(surface), np.ones(len(surface))
    starts = screen(problem, _STARTS, _POLISHED, rng)
    theta, cost = polish(problem, starts, flat)
    order = np.argsort(cost)
    residual = surface.map - joint_value(kind, theta[order[:1]], m0, *_bytes(surface))[0]
    huber = _HUBER * max(1.4826 * float(np.median(np.abs(residual))), 1e-3)
    theta, cost = polish(problem, theta[order], flat, huber)
    best = theta[np.argmin(cost)]

    # Leave cells out: every fold starts from the best two fits and never sees its cells.
    folds = np.unique(grid.fold)
    seen = (grid.fold[None, :] != folds[:, None]).astype(float)
    tops = theta[np.argsort(cost)[:2]]
    left, left_cost = polish(
        problem, np.tile(tops, (len(folds), 1)), np.repeat(seen, len(tops), axis=0), huber
    )
    pick = left_cost.reshape(len(folds), len(tops)).argmin(axis=1)
    left = left.reshape(len(folds), len(tops), 7)[np.arange(len(folds)), pick]
    predicted = joint_value(kind, left, m0, *_bytes(surface))
    held_out = predicted[np.searchsorted(folds, grid.fold), np.arange(n)]
    errors = _point_errors(surface.map - held_out, grid.point)

    joint = Joint.of(kind, best, m0)
    residual = surface.map - joint_value(kind, best, m0, *_bytes(surface))
    squares, k = float((residual**2).sum()), int(kind.free.sum()) + 1
    correction = 2 * k * (k + 1) / (n - k - 1) if n > k + 1 else math.inf
    aicc = n * math.log(max(squares, 1e-300) / n) + 2 * k + correction
    candidate = Candidate(
        kind, math.sqrt(errors.mean()), math.sqrt(squares / n), float(aicc), joint
    )
    return _Fit(joint, errors, huber, candidate)


def _bytes(surface: Surface) -> tuple[Floats, Floats]:
    return surface.upload_bytes, surface.update_bytes


def _point_errors(residual: Floats, point: Ints) -> Floats:
    """Squared mean residual over the seeds of each operating point."""
    _, index = np.unique(point, return_inverse=True)
    means = np.bincount(index, weights=residual) / np.bincount(index)
    return np.asarray(means**2)


def _bootstrap(
    rivals: list[_Fit], surface: Surface, count: int, rng: np.random.Generator
) -> list[Joint]:
    """Wild bootstrap (Wu 1986; clustered: Cameron, Gelbach and Miller 2008) over seeds and cells.

    Residuals are split into a part that all cells of a seed share (the same frames, the same
    initial weights) and the rest; each part is multiplied by its own normal numbers, one a
    seed and one an operating point. The grid stays whole, unequal noise stays in place.
    """
    seeds, seed_of = np.unique(surface.seed, return_inverse=True)
    points, point_of = np.unique(_Grid.of(surface).point, return_inverse=True)
    draws: list[Joint] = []
    shares = [count // len(rivals) + (i < count % len(rivals)) for i in range(len(rivals))]
    for rival, share in zip(rivals, shares, strict=True):
        if share == 0:
            continue
        kind, m0, theta = rival.joint.kind, rival.joint.m0, rival.joint.theta
        fitted = joint_value(kind, theta, m0, *_bytes(surface))
        residual = surface.map - fitted
        common = np.bincount(seed_of, weights=residual) / np.bincount(seed_of)
        common = common - common.mean() if len(seeds) > 1 else common * 0.0
        rest = residual - common[seed_of]
        n, p = len(residual), int(kind.free.sum())
        common = common * math.sqrt(len(seeds) / max(len(seeds) - 1, 1))
        rest = rest * math.sqrt(n / max(n - p, 1))
        by_seed = rng.standard_normal((share, len(seeds)))[:, seed_of] * common[seed_of]
        by_point = rng.standard_normal((share, len(points)))[:, point_of] * rest
        problem = Problem(kind, *_bytes(surface), fitted + by_seed + by_point, m0)
        start = np.tile(theta, (share, 1))
        found, _ = polish(problem, start, np.ones(n), rival.huber, iterations=30)
        draws += [Joint.of(kind, row, m0) for row in found]
    return draws


def _measured(surface: Surface, grid: _Grid, seed: int) -> dict[str, Any]:
    """What curves carry besides the fits: ranges, envelopes, reference, provenance."""
    points = surface.points()
    reference, held_out = _reference(surface, grid)
    return {
        "upload_range": Range(float(surface.upload_bytes.min()), float(surface.upload_bytes.max())),
        "update_range": Range(float(surface.update_bytes.min()), float(surface.update_bytes.max())),
        "reference": reference,
        "reference_held_out": held_out,
        "uploads": tuple(points.point(int(i)) for i in points.upload_envelope()),
        "updates": tuple(points.point(int(i)) for i in points.update_envelope()),
        "provenance": {
            "surface_sha256": surface.sha256(),
            "cells": len(surface),
            "seeds": len(np.unique(surface.seed)),
            "fit_seed": seed,
        },
    }


def _reference(surface: Surface, grid: _Grid) -> tuple[Monotone, float]:
    """The monotone fit of all cells, and its held-out error."""
    left_out = np.empty(len(surface))
    for fold in np.unique(grid.fold):
        out = grid.fold == fold
        left_out[out] = _monotone(surface, grid, ~out).predict(
            surface.upload_bytes[out], surface.update_bytes[out]
        )
    errors = _point_errors(surface.map - left_out, grid.point)
    return _monotone(surface, grid, np.ones(len(surface), bool)), math.sqrt(errors.mean())


def _monotone(surface: Surface, grid: _Grid, kept: NDArray[np.bool_]) -> Monotone:
    def ranks(level: Ints) -> Ints:
        return np.asarray(np.unique(level[kept], return_inverse=True)[1])

    return fit_monotone(
        ranks(grid.row),
        ranks(grid.column),
        surface.upload_bytes[kept],
        surface.update_bytes[kept],
        surface.map[kept],
    )


def _flat(surface: Surface, grid: _Grid, m0: float, seed: int) -> Curves:
    value = float(surface.map[0])
    kind = Kind("additive", "exponential", "exponential")
    joint = Joint(
        kind,
        m0,
        start=value,
        gain=0.0,
        u0_bytes=float(surface.upload_bytes.max()),
        data_s=1.0,
        m0_bytes=float(surface.update_bytes.max()),
        model_s=1.0,
        depth=0.0,
    )
    return Curves(
        m0=m0,
        joint=joint,
        candidates=(Candidate(kind, 0.0, 0.0, -math.inf, joint),),
        replicates=(joint,),
        note=f"all measured accuracies equal {value:g}: neither data nor model bytes matter",
        **_measured(surface, grid, seed),
    )
