"""Weights as integers: a gauge in which every parameter has one meaning, and the exact
arithmetic that turns integers back into a detector.

A convolution followed by batch norm has redundant parameters: scaling a row of weights can
be undone by the batch norm. The *gauge* fixes them so that only what changes the function
costs bytes: the running variance becomes one number a layer (or the base model's), gamma is
positive and rounded to an eighth of an octave, the running mean is rounded coarsely, and the
weights and beta absorb what rounding took away. The function is the same; the result is
still an ordinary batch norm that can be trained on.

Weights are then ``reference + q * step``, with integer ``q`` and a step that is a product of
one global number and a power of two (in quarter octaves) for each row and each column. At
equal slope of rate against distortion the step of a weight is inversely proportional to the
square root of its sensitivity, so one global number serves every layer and mixes bit-widths
by itself (reverse water-filling; Cover & Thomas, Elements of Information Theory, ch. 10).

Decoding uses correctly rounded IEEE operations only: it is bit-exact on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from endedge.data.units import BadInput
from endedge.distill.model import DetectionModel
from endedge.distill.structure import Layer, layers

__all__ = ["STEP_RESOLUTION", "Coded", "Target", "apply_coded", "pow2", "quantize", "targets"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]

STEP_RESOLUTION = 4  #: step exponents count quarter octaves
_GAMMA_RESOLUTION = {False: 8, True: 128}  # parts of an octave; by delta mode
_MEAN_RESOLUTION = {False: 16, True: 128}  # parts of the running standard deviation
_BETA_RESOLUTION = {False: 64, True: 128}  # parts of gamma
_BIAS_RESOLUTION = 64
_SIGMA_RESOLUTION = 8
_GAMMA_FLOOR = 2.0**-12
_MAX_EXPONENT = 2**12


@dataclass
class Coded:
    """The integers of one convolution on the wire.

    ``vectors`` are, for a layer with batch norm, log gamma, running mean, beta (each (C,));
    with a bias of its own, the bias (C,). ``sigma`` is the log running deviation (0 in
    delta mode). ``rows`` (C,) and ``columns`` (I,) are step exponents, ``weights`` (C, I, T).
    """

    sigma: int
    vectors: list[Ints]
    rows: Ints
    columns: Ints
    weights: Ints


@dataclass
class Target:
    """What ``weights`` of one layer should become: floats (C, I, T) and the rest, coded."""

    name: str
    weights: Floats
    scale: Floats  # (C,): a change of row c of ``weights`` by x changes the output by scale[c]*x
    sigma: int
    vectors: list[Ints] = field(default_factory=list)


def pow2(exponent: NDArray[np.integer] | int, resolution: int) -> Floats:
    """2**(exponent/resolution) for a power-of-two resolution, exactly the same everywhere.

    The fractional powers are products of repeated square roots of two.
    """
    k = np.asarray(exponent, dtype=np.int64)
    if k.size and np.abs(k).max() > _MAX_EXPONENT * 8:
        raise BadInput("corrupt package: an exponent is out of range")
    table = np.ones(1)
    root, size = 2.0, 1
    while size < resolution:
        root, size = np.sqrt(root), size * 2
        table = (table[:, None] * np.array([1.0, root])[None]).reshape(-1)
    return np.ldexp(table[k % resolution], k // resolution)


def _numpy(tensor: torch.Tensor) -> Floats:
    return tensor.detach().cpu().numpy().astype(np.float64)


def _flat(layer: Layer) -> Floats:
    weight = _numpy(layer.conv.weight)
    return weight.reshape(*weight.shape[:2], -1)


def _round(x: Floats) -> Ints:
    return np.rint(x).clip(-(2**22), 2**22).astype(np.int32)


def _pairs(model: DetectionModel, base: DetectionModel | None) -> list[tuple[Layer, Layer | None]]:
    own = layers(model)
    if base is None:
        return [(x, None) for x in own]
    other = {x.name: x for x in layers(base)}
    for x in own:
        y = other.get(x.name)
        if (
            y is None
            or y.conv.weight.shape != x.conv.weight.shape
            or (x.bn is None) != (y.bn is None)
        ):
            raise BadInput(f"base model differs in {x.name}; a delta needs the same architecture")
    return [(x, other[x.name]) for x in own]


def targets(model: DetectionModel, base: DetectionModel | None) -> list[Target]:
    """Bring ``model`` into the gauge (relative to ``base`` if given), layer by layer."""
    result = []
    for layer, ref in _pairs(model, base):
        weight = _flat(layer)
        if not np.isfinite(weight).all():
            raise BadInput(f"weights of {layer.name} are not finite")
        if layer.bn is None:
            bias = [] if layer.conv.bias is None else [_numpy(layer.conv.bias)]
            if ref is not None:
                weight = weight - _flat(ref)
                bias = [b - _numpy(ref.conv.bias) for b in bias]
            vectors = [_round(b * _BIAS_RESOLUTION) for b in bias]
            result.append(Target(layer.name, weight, np.ones(len(weight)), 0, vectors))
            continue
        bn, delta = layer.bn, ref is not None
        deviation = np.sqrt(_numpy(bn.running_var) + bn.eps)
        gamma, beta, mean = (_numpy(x) for x in (bn.weight, bn.bias, bn.running_mean))
        if ref is not None and ref.bn is not None:
            sigma = 0
            new_deviation = np.sqrt(_numpy(ref.bn.running_var) + ref.bn.eps)
            gamma0, beta0, mean0 = _gauge_base(ref)
        else:
            sigma = int(np.rint(_SIGMA_RESOLUTION * np.log2(deviation).mean()))
            new_deviation = np.full(len(gamma), float(pow2(sigma, _SIGMA_RESOLUTION)))
            gamma0, beta0, mean0 = np.ones(len(gamma)), np.zeros(len(gamma)), np.zeros(len(gamma))
        sign = np.where(gamma * gamma0 < 0, -1.0, 1.0)
        ratio = np.maximum(np.abs(gamma), _GAMMA_FLOOR) / np.abs(gamma0)
        log_gamma = _round(_GAMMA_RESOLUTION[delta] * np.log2(ratio))
        new_gamma = gamma0 * pow2(log_gamma, _GAMMA_RESOLUTION[delta])
        # y = gamma/deviation * (w.x - mean) + beta, rewritten with the new gamma and deviation
        change = gamma / new_gamma * new_deviation / deviation
        weight = weight * change[:, None, None]
        mean_q = _round((mean * sign / deviation - mean0 / new_deviation) * _MEAN_RESOLUTION[delta])
        new_mean = mean0 + mean_q / _MEAN_RESOLUTION[delta] * new_deviation
        shift = beta - gamma * mean / deviation
        new_beta = shift + new_gamma * new_mean / new_deviation
        beta_q = _round((new_beta - beta0) / np.abs(new_gamma) * _BETA_RESOLUTION[delta])
        if ref is not None:
            weight = weight - _flat(ref)
        result.append(
            Target(
                layer.name,
                weight,
                np.abs(new_gamma) / new_deviation,
                sigma,
                [log_gamma, mean_q, beta_q],
            )
        )
    return result


def _gauge_base(ref: Layer) -> tuple[Floats, Floats, Floats]:
    """Gamma (kept off zero), beta and running mean of the base's batch norm."""
    assert ref.bn is not None
    gamma, beta, mean = (_numpy(x) for x in (ref.bn.weight, ref.bn.bias, ref.bn.running_mean))
    small = np.abs(gamma) < _GAMMA_FLOOR
    return np.where(small, np.where(gamma < 0, -_GAMMA_FLOOR, _GAMMA_FLOOR), gamma), beta, mean


def steps(rows: Ints, columns: Ints, step: float) -> Floats:
    """The step of every row and column: (C, I, 1)."""
    row, column = pow2(rows, STEP_RESOLUTION), pow2(columns, STEP_RESOLUTION)
    return (row * step)[:, None, None] * column[None, :, None]


def quantize(target: Target, rows: Ints, columns: Ints, step: float) -> Coded:
    """Round the weights of one layer to the nearest multiple of their step."""
    q = _round(target.weights / steps(rows, columns, step))
    return Coded(target.sigma, target.vectors, rows, columns, q)


def apply_coded(
    model: DetectionModel, coded: Sequence[Coded], step: float, base: DetectionModel | None
) -> None:
    """Set the parameters of ``model`` from integers; :class:`BadInput` if any is not finite."""
    for (layer, ref), c in zip(_pairs(model, base), coded, strict=True):
        weight = c.weights * steps(c.rows, c.columns, step)
        if ref is not None:
            weight = weight + _flat(ref)
        _set(layer.conv.weight, weight.reshape(layer.conv.weight.shape))
        if layer.bn is None:
            if layer.conv.bias is not None:
                bias = c.vectors[0] / _BIAS_RESOLUTION
                if ref is not None:
                    bias = bias + _numpy(ref.conv.bias)
                _set(layer.conv.bias, bias)
            continue
        log_gamma, mean_q, beta_q = c.vectors
        delta = ref is not None
        if ref is not None and ref.bn is not None:
            gamma0, beta0, mean0 = _gauge_base(ref)
            variance = _numpy(ref.bn.running_var)
            deviation = np.sqrt(variance + ref.bn.eps)
        else:
            gamma0, beta0, mean0 = (
                np.ones(len(beta_q)),
                np.zeros(len(beta_q)),
                np.zeros(len(beta_q)),
            )
            deviation = np.full(len(beta_q), float(pow2(c.sigma, _SIGMA_RESOLUTION)))
            variance = np.maximum(deviation * deviation - layer.bn.eps, 0.0)
        gamma = gamma0 * pow2(log_gamma, _GAMMA_RESOLUTION[delta])
        _set(layer.bn.weight, gamma)
        _set(layer.bn.bias, beta0 + beta_q / _BETA_RESOLUTION[delta] * np.abs(gamma))
        _set(layer.bn.running_mean, mean0 + mean_q / _MEAN_RESOLUTION[delta] * deviation)
        _set(layer.bn.running_var, variance)


def _set(tensor: torch.Tensor | None, values: Floats) -> None:
    assert tensor is not None
    with np.errstate(over="ignore"):
        array = values.astype(np.float32)
    if not np.isfinite(array).all():
        raise BadInput("corrupt package: a parameter is not finite")
    with torch.no_grad():
        tensor.copy_(torch.from_numpy(array))
