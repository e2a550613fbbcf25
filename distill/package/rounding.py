"""Rounding that makes up for its own errors.

Rounding one column of a weight matrix to its grid leaves an error; the columns not yet
rounded can absorb most of it, because the inputs are correlated (GPTQ: Frantar et al., 2023,
after OBS: Hassibi & Stork, 1993). With entropy-coded integers the best step of a column
is proportional to its conditional deviation's inverse, which the Cholesky factor holds
(water-filling; Lifar et al., 2025), so that every column adds the same distortion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from endedge.data.errors import BadInput
from endedge.distill.package.byte_budget import LOUDNESS_BINS
from endedge.distill.package.compiled import compiled
from endedge.distill.package.quantization import (
    STEP_RESOLUTION,
    Coded,
    Floats,
    Ints,
    Target,
    complete,
)
from endedge.distill.package.quantization import steps as grid_steps
from endedge.distill.package.sensitivity import Sensitivity

__all__ = [
    "LayerInputs",
    "RoundingGrid",
    "inputs_of",
    "inverse_factor",
    "level_grids",
    "loudness",
    "make_grid",
    "quantize",
    "round_with_feedback",
]

_DAMPING = 0.01  # of the mean variance, added to every input's
_BLOCK = 64
_DEADZONE = 0.06  # of a step: the bin of an integer reaches that much further from zero
_ROW_FLOOR = 0.02  # of the mean output sensitivity


@dataclass(frozen=True, eq=False)
class LayerInputs:
    """What the inputs of one layer say about its rounding, whatever its weights: ``output`` (C,)
    and ``mean`` of its :class:`Sensitivity`; ``power`` (C,), the mean variance that each row sees;
    ``column`` (D,), inverse to the deviation of an input that the later ones do not explain; the
    feedback ``factor`` (D, D) if the inputs were measured together."""

    output: Floats
    mean: Floats
    power: Floats
    column: Floats
    factor: NDArray[np.float32] | None


@dataclass
class RoundingGrid:
    """How one layer is rounded: step exponents of rows (C,) and columns (I,), the feedback
    ``factor`` (D, D) if the inputs were measured together, and their ``mean``. ``importance``
    (C,) turns a squared output error of a row into loss."""

    rows: Ints
    columns: Ints
    factor: NDArray[np.float32] | None
    mean: Floats
    importance: Floats


def inputs_of(sensitivity: Sensitivity) -> LayerInputs:
    """The part of a grid that full packages and deltas of any size share, and all its cost."""
    n_out, moment = len(sensitivity.output), sensitivity.moment
    if moment is not None:
        power = max(float(np.trace(moment)) / len(moment), 1e-30)
        factor = inverse_factor(moment)
        return LayerInputs(
            sensitivity.output,
            sensitivity.mean,
            np.full(n_out, power),
            np.diag(factor).copy(),
            factor.astype(np.float32),
        )
    assert sensitivity.power is not None
    each = np.broadcast_to(sensitivity.power, (n_out, sensitivity.power.shape[-1]))
    row_power = np.maximum(each.mean(axis=1), 1e-30)
    share = (each / row_power[:, None]).mean(axis=0)
    column = 1.0 / np.sqrt(share + _DAMPING)
    return LayerInputs(sensitivity.output, sensitivity.mean, row_power, column, None)


def make_grid(target: Target, inputs: LayerInputs | None) -> RoundingGrid:
    """The steps at which every row and column of a layer adds the same distortion; without
    ``inputs``, those of a layer that a delta leaves alone."""
    n_out, n_in, taps = target.weights.shape
    if inputs is None:
        none = np.zeros(n_out)
        rows, columns = _exponent(none), _exponent(np.zeros(n_in))
        return RoundingGrid(rows, columns, None, np.zeros(n_in * taps), none)
    output = inputs.output + _ROW_FLOOR * inputs.output.mean() + 1e-30
    change = np.maximum(np.abs(target.change), 1e-6)
    log_column = np.log2(inputs.column).reshape(n_in, taps).mean(axis=1)
    log_row = -0.5 * np.log2(output * inputs.power) + np.log2(change)
    importance = output * inputs.power / change**2
    rows, columns = _exponent(log_row), _exponent(log_column)
    return RoundingGrid(rows, columns, inputs.factor, inputs.mean, importance)


def level_grids(targets: Sequence[Target], grids: Sequence[RoundingGrid]) -> None:
    """Shift all rows alike, so that at step 1 a step is as large as a weight, on average."""
    logs: list[Floats] = []
    for target, grid in zip(targets, grids, strict=True):
        loudness = np.sqrt((target.weights**2).mean(axis=(1, 2)))
        heard = loudness > 0  # rows that a delta leaves alone do not count
        log = np.log2(loudness[heard]) - grid.rows[heard] / STEP_RESOLUTION
        logs.append(np.repeat(log, target.weights[0].size))
    every = np.concatenate(logs)
    center = np.full(1, np.median(every) if every.size else 0.0)
    for grid in grids:
        grid.rows = (grid.rows + _exponent(center)).astype(np.int32)


def loudness(targets: Sequence[Target], grids: Sequence[RoundingGrid]) -> Floats:
    """How many weights are how large beside their steps at step 1: counts by log2, in
    :data:`~endedge.distill.package.byte_budget.LOUDNESS_BINS`; zeros are left out."""
    counts = np.zeros(len(LOUDNESS_BINS) - 1)
    for target, grid in zip(targets, grids, strict=True):
        if target.weights.any():
            size = np.abs(target.weights).astype(np.float32)
            steps = grid_steps(grid.rows, grid.columns, 1.0).astype(np.float32)
            with np.errstate(divide="ignore"):
                logs = np.log2(size / steps)
            counts += np.histogram(logs[size > 0], LOUDNESS_BINS)[0]
    return counts


def _exponent(log_step: Floats) -> Ints:
    return np.rint(STEP_RESOLUTION * log_step).clip(-400, 400).astype(np.int32)


def quantize(target: Target, grid: RoundingGrid, step: float) -> Coded:
    """Integers of one layer; its shift makes up for the mean error that rounding leaves."""
    n_out, n_in, taps = target.weights.shape
    steps = grid_steps(grid.rows, grid.columns, step)
    weights = target.weights.reshape(n_out, -1)
    if grid.factor is None:
        scaled = target.weights / steps
        q = np.trunc(scaled + np.copysign(0.5 - _DEADZONE, scaled)).clip(-(2**22), 2**22)
        integers = q.astype(np.int32)
    else:
        column_steps = np.repeat(steps[0, :, 0] / steps[0, 0, 0], taps)
        row_steps = steps[:, 0, 0]
        flat = round_with_feedback(weights, row_steps, column_steps, grid.factor, _DEADZONE)
        integers = flat.reshape(n_out, n_in, taps)
    shift = target.shift
    if shift is not None:
        error = target.weights - integers * steps
        shift = shift + target.gain * (error.reshape(n_out, -1) * grid.mean).sum(axis=1)
    rows = _quiet(grid.rows, np.asarray(integers.any(axis=(1, 2))))
    columns = _quiet(grid.columns, np.asarray(integers.any(axis=(0, 2))))
    return complete(target, rows, columns, integers, shift)


def _quiet(exponents: Ints, used: NDArray[np.bool_]) -> Ints:
    """Step exponents with those of all-zero slices where they cost least: at the median.

    Most of a small delta would else be steps of weights that do not change.
    """
    middle = int(np.median(exponents[used])) if used.any() else 0
    return np.where(used, exponents, middle).astype(np.int32)


def inverse_factor(moment: Floats, damping: float = _DAMPING) -> Floats:
    """Upper U with U.T @ U = inverse of the damped (D, D) ``moment`` of mean variance 1."""
    if not np.isfinite(moment).all():
        raise BadInput("activations are not finite on the frames given; check the model")
    size = len(moment)
    scale = max(float(np.trace(moment)) / size, 1e-30)
    # chol(inv(H)) upper, without forming the inverse: reverse, factor, reverse, invert; reversed in
    # both directions and read in the other order, R with R @ R.T = H is lower triangular
    while True:
        damped = np.asfortranarray(moment[::-1, ::-1] / scale)
        damped[np.diag_indices(size)] += damping
        lower, failed = lapack.dpotrf(damped, lower=1, clean=1, overwrite_a=1)
        if not failed:
            break
        damping *= 10  # rounding errors of a moment without variance
    inverse, _ = lapack.dtrtri(lower, lower=1, overwrite_c=1)
    return np.ascontiguousarray(inverse[::-1, ::-1])


def round_with_feedback(
    weights: Floats,
    row_steps: Floats,
    column_steps: Floats,
    factor: NDArray[np.float32],
    deadzone: float,
) -> Ints:
    """Integers (C, D) for ``weights`` (C, D) on the grid row_steps[c] * column_steps[d].

    ``factor`` is :func:`inverse_factor` of the inputs. ``deadzone`` in [0, 0.5) widens the bin
    of every integer towards larger magnitudes: rounding down is cheaper to code.
    """
    if not weights.any():  # a layer that a delta leaves alone
        return np.zeros(weights.shape, np.int32)
    work = np.ascontiguousarray(
        (weights / row_steps[:, None]).T, np.float32
    )  # (D, C), in row steps
    upper = factor.astype(np.float32, copy=False)
    grid = column_steps.astype(np.float32)
    size = len(work)
    result = np.empty(work.shape, np.int32)
    for start in range(0, size, _BLOCK):
        stop = min(size, start + _BLOCK)
        errors = np.empty((stop - start, work.shape[1]), np.float32)
        within = np.ascontiguousarray(upper[start:stop, start:stop])
        _round_block(
            work[start:stop], within, grid[start:stop], 0.5 - deadzone, errors, result[start:stop]
        )
        if stop < size:
            work[stop:] -= upper[start:stop, stop:].T @ errors
    return result.T


@compiled
def _round_block(
    work: NDArray[np.float32],
    upper: NDArray[np.float32],
    steps: NDArray[np.float32],
    bin_half: float,
    errors: NDArray[np.float32],
    result: Ints,
) -> None:
    """Round the columns of a block, rows of ``work`` (d, C), one after the other into ``result``;
    those that follow absorb the errors, which are written to ``errors`` (d, C)."""
    half = np.float32(bin_half)
    largest = np.float32(2**22)
    n, width = work.shape
    for j in range(n):
        step, own = steps[j], upper[j, j]
        for c in range(width):
            scaled = work[j, c] / step
            q = np.trunc(scaled + np.copysign(half, scaled))
            errors[j, c] = (work[j, c] - q * step) / own
            result[j, c] = np.int32(min(largest, max(-largest, q)))
        for k in range(j + 1, n):
            share = upper[j, k]
            for c in range(width):
                work[k, c] -= share * errors[j, c]
