"""From a measured surface to curves: every family is tried, the error on sizes left out decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from endedge.allocator.accuracy.joint import COMPOSITIONS, Joint, Kind, joint_value
from endedge.allocator.accuracy.shapes import DATA_SHAPES, MODEL_SHAPES
from endedge.allocator.accuracy.width import Width
from endedge.allocator.fitting.calibration import calibrated
from endedge.allocator.fitting.curves import Curves, TriedKind
from endedge.allocator.fitting.grid import Grid, falling, usable
from endedge.allocator.fitting.levenberg_marquardt import Problem, leverage, polish, screen
from endedge.allocator.fitting.surface import Surface
from endedge.allocator.problem import Range
from endedge.data.errors import BadInput

__all__ = ["all_kinds", "fit"]

Floats = NDArray[np.float64]

_STARTS, _POLISHED = 400, 5
_HUBER = 1.345  # 95 % efficient under normal noise (Huber 1964)
_CORNER_GAIN = 1.1  # of the held-out error, that a kind with a corner has to be better by
_LEAST_NOISE = 0.003  # mAP; no detector trained twice agrees better


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
    drawn: Floats | None = None,
) -> Curves:
    """Fit F(U, M) to measured cells.

    ``m0`` is the mAP before any update (default: the surface's mean ``m0``). ``kinds`` limits
    what is tried (default: all that the grid can tell apart). The kind with the least error on
    levels left out (whole upload sizes and budgets between others) is chosen, but one with a
    corner only where it beats every smooth one by a tenth: it would send every allocation to the
    corner, which lies between measured bytes, where the cells hardly fix it. ``replicates``
    bootstrap surfaces over seeds, cells and, where ``drawn`` (cells, r) has the mAP of the cells
    on draws of the evaluation frames, over those, are of every kind within one standard error of
    the best; how wide intervals are is calibrated on the levels left out
    (:mod:`endedge.allocator.fitting.calibration`). The same input gives the same curves.

    Raises :class:`BadInput` for fewer than three upload sizes or two model budgets. Equal
    accuracies everywhere give flat curves and say so in ``note``.

    Args:
        surface: measured cells, of one seed or several.
        m0: mAP in [0, 1] before any update (None: the mean of the surface's).
        kinds: what is tried (None: all that the grid can tell apart).
        replicates: bootstrap surfaces, >= 0; 0 gives no intervals.
        seed: of the bootstrap.
        drawn: (cells, r) mAP of the cells on r draws of the evaluation frames.
    """
    m0 = float(surface.m0.mean()) if m0 is None else m0
    if not (math.isfinite(m0) and 0 <= m0 <= 1):
        raise BadInput(f"m0 = {m0} must lie in [0, 1]")
    grid = Grid.of(surface, drawn)
    rng = np.random.default_rng(seed)
    reference = grid.monotone()
    note, width = "", Width()
    if np.ptp(surface.map) < 1e-9:
        chosen = _flat(grid, m0)
        fits, draws = [chosen], [chosen.candidate.joint]
        note = f"all measured accuracies equal {grid.cells[0]:g}: neither data nor bytes matter"
    else:
        tried = [kind for kind in kinds or all_kinds() if grid.identifies(kind)]
        if not tried:
            raise BadInput("every curve family has more parameters than the surface has sizes")
        noise = np.abs(grid.cells - reference.predict(grid.upload, grid.update)[grid.point])
        huber = _HUBER * max(1.4826 * float(np.median(noise)), _LEAST_NOISE)
        fits = [_fit_kind(kind, grid, m0, huber, rng) for kind in tried]
        fits.sort(key=lambda one: one.candidate.held_out)
        chosen = _choose(fits)
        rivals = [one for one in fits if one is chosen or one.ties_with(fits[0])]
        draws = _bootstrap(rivals, grid, huber, replicates, rng)
        width = calibrated(grid, chosen.errors, draws)

    points = surface.points()
    down = usable(points.update_bytes, points.budget_bytes)
    return Curves(
        m0=m0,
        joint=chosen.candidate.joint,
        candidates=tuple(one.candidate for one in fits),
        replicates=tuple(draws),
        upload_range=Range(float(points.upload_bytes.min()), float(points.upload_bytes.max())),
        update_range=Range(float(down.min()), float(down.max())),
        reference=reference,
        reference_held_out=grid.monotone_held_out(),
        uploads=tuple(points.point(int(i)) for i in points.upload_envelope()),
        updates=tuple(points.point(int(i)) for i in points.update_envelope()),
        provenance={
            "surface_sha256": surface.sha256(),
            "cells": len(surface),
            "points": len(points),
            "points_fitted": len(grid),
            "seeds": int(grid.seed.max()) + 1,
            "fit_seed": seed,
        },
        note=note,
        width=width,
        falls=falling(surface),
    )


@dataclass(frozen=True)
class _Fit:
    candidate: TriedKind
    errors: Floats  # squared, of each point of each fold in turn

    def ties_with(self, best: _Fit) -> bool:
        """Within one standard error of the paired difference to the best."""
        worse = self.errors - best.errors
        return bool(worse.mean() <= worse.std(ddof=1) / math.sqrt(len(worse)))


def _choose(fits: Sequence[_Fit]) -> _Fit:
    """The least held-out error (``fits`` are sorted by it), corners at a disadvantage."""
    enough = _CORNER_GAIN * fits[0].candidate.held_out
    smooth = (one for one in fits if not one.candidate.kind.model_shape.has_corner)
    return next((one for one in smooth if one.candidate.held_out <= enough), fits[0])


def _fit_kind(kind: Kind, grid: Grid, m0: float, huber: float, rng: np.random.Generator) -> _Fit:
    problem = Problem(kind, grid.upload, grid.update, grid.map, m0)
    theta, cost = polish(problem, screen(problem, _STARTS, _POLISHED, rng), grid.count, huber)
    order = np.argsort(cost)
    best = theta[order[0]]

    # Leave levels out: every fold starts from the best two fits and never sees its points.
    weights = ~grid.folds * grid.count
    tops = theta[order[:2]]
    left, left_cost = polish(
        problem, np.tile(tops, (len(weights), 1)), np.repeat(weights, len(tops), axis=0), huber
    )
    pick = left_cost.reshape(len(weights), len(tops)).argmin(axis=1)
    left = left.reshape(len(weights), len(tops), 7)[np.arange(len(weights)), pick]
    predicted = joint_value(kind, left, m0, grid.upload, grid.update)
    errors = ((grid.map - predicted) ** 2)[grid.folds]

    residual = grid.cells - joint_value(kind, best, m0, grid.upload, grid.update)[grid.point]
    n, k = len(residual), int(kind.free.sum()) + 1  # and the noise's variance
    mean_square = float((residual**2).mean())
    correction = 2 * k * (k + 1) / (n - k - 1) if n > k + 1 else math.inf
    aicc = n * math.log(max(mean_square, 1e-300)) + 2 * k + correction
    joint = Joint.of(kind, best, m0)
    held_out_error = math.sqrt(float(errors.mean()))
    return _Fit(TriedKind(kind, held_out_error, math.sqrt(mean_square), aicc, joint), errors)


def _bootstrap(
    rivals: list[_Fit], grid: Grid, huber: float, count: int, rng: np.random.Generator
) -> list[Joint]:
    """Wild bootstrap (Wu 1986; clustered: Cameron, Gelbach and Miller 2008) over seeds and cells.

    Residuals are split into a part that all cells of a seed share (the same frames, the same
    initial weights) and the rest; each part is multiplied by its own normal numbers, one a
    seed and one an operating point. The grid stays whole, unequal noise stays in place. What the
    evaluation frames add is drawn from the grid's ``luck``, one draw for all points.
    """
    seeds, points = int(grid.seed.max()) + 1, len(grid)
    draws: list[Joint] = []
    for i, rival in enumerate(rivals):
        share = count // len(rivals) + (i < count % len(rivals))
        if share == 0:
            continue
        joint = rival.candidate.joint
        fitted = joint_value(joint.kind, joint.theta, joint.m0, grid.upload, grid.update)
        luck = grid.luck[rng.integers(len(grid.luck), size=share)] if len(grid.luck) else 0.0
        residual = grid.cells - fitted[grid.point]
        common = np.bincount(grid.seed, weights=residual) / np.bincount(grid.seed)
        common = (common - common.mean()) * math.sqrt(seeds / max(seeds - 1, 1))
        problem = Problem(joint.kind, grid.upload, grid.update, grid.map, joint.m0)
        rest = np.bincount(grid.point, weights=residual) / grid.count
        rest = rest / (1.0 - leverage(problem, joint.theta, grid.count))
        of_seed = rng.standard_normal((share, seeds)) * common * _student(seeds, share, rng)
        of_point = rng.standard_normal((share, points)) * rest
        # What the seeds share reaches a point as the mean over the seeds that it has.
        presence = np.zeros((seeds, points))
        np.add.at(presence, (grid.seed, grid.point), 1.0)
        drawn = fitted + of_seed @ (presence / grid.count) + of_point + luck
        problem = replace(problem, y=drawn)
        start = np.tile(joint.theta, (share, 1))
        polished, _ = polish(problem, start, grid.count, huber, iterations=30)
        draws += [Joint.of(joint.kind, row, joint.m0) for row in polished]
    return draws


def _student(seeds: int, share: int, rng: np.random.Generator) -> Floats:
    """Factors (share, 1) that turn normal into Student draws: few seeds know their own spread
    badly (two know almost nothing of it; cut at a factor of 4)."""
    if seeds < 2:
        return np.ones((share, 1))
    chi = rng.chisquare(seeds - 1, (share, 1)) / (seeds - 1)
    return np.asarray(np.minimum(1.0 / np.sqrt(chi), 4.0))


def _flat(grid: Grid, m0: float) -> _Fit:
    kind = Kind("additive", "exponential", "exponential")
    u0, m0_bytes = float(grid.upload.max()), float(grid.update.max())
    joint = Joint(kind, m0, float(grid.cells[0]), 0.0, u0, 1.0, m0_bytes, 1.0, 0.0)
    return _Fit(TriedKind(kind, 0.0, 0.0, -math.inf, joint), np.zeros(len(grid)))
