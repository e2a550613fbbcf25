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
from torch import nn

from endedge.data.errors import BadInput
from endedge.distill.layers import Layer, layers
from endedge.distill.model import DetectionModel

__all__ = [
    "STEP_RESOLUTION",
    "Coded",
    "Target",
    "apply_coded",
    "complete",
    "pow2",
    "steps",
    "targets",
]

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

    @property
    def nonzero(self) -> int:
        """How many of its numbers say something: weights and vectors that are not zero. Of a
        delta, those that change."""
        return sum(int(np.count_nonzero(x)) for x in (*self.vectors, self.weights))


@dataclass
class Target:
    """What one layer should become, in the gauge and relative to the base if there is one.

    ``weights`` (C, I, T); ``change`` (C,) is their ratio to the model's own weights.
    ``shift`` (C,) is beta or the bias and ``shift_unit`` (C,) its grain on the wire; a weight
    change ``d`` moves the output of a row by ``gain * d @ x``. ``vectors`` are coded already.
    """

    name: str
    weights: Floats
    change: Floats
    gain: Floats
    shift: Floats | None
    shift_unit: Floats
    sigma: int = 0
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


def _numpy(tensor: torch.Tensor | None) -> Floats:
    assert tensor is not None
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
    """Bring ``model`` into the gauge (relative to ``base`` if given), layer by layer.

    Raises :class:`BadInput` for weights that are not finite or a base of other shapes.
    """
    result = []
    for layer, ref in _pairs(model, base):
        target = _plain(layer) if layer.bn is None else _gauged(layer, layer.bn, ref)
        if ref is not None:
            target.weights = target.weights - _flat(ref)
            if layer.bn is None and target.shift is not None:
                target.shift = target.shift - _numpy(ref.conv.bias)
        finite = [target.weights, target.gain, target.change]
        if not all(np.isfinite(x).all() for x in finite):
            raise BadInput(f"parameters of {layer.name} are not finite")
        result.append(target)
    return result


def _plain(layer: Layer) -> Target:
    """A convolution without batch norm; its bias, if any, is its shift."""
    one = np.ones(layer.conv.out_channels)
    bias = None if layer.conv.bias is None else _numpy(layer.conv.bias)
    return Target(layer.name, _flat(layer), one, one, bias, one / _BIAS_RESOLUTION)


def _gauged(layer: Layer, bn: nn.BatchNorm2d, ref: Layer | None) -> Target:
    delta = ref is not None
    deviation = np.sqrt(_numpy(bn.running_var) + bn.eps)
    gamma, beta, mean = (_numpy(x) for x in (bn.weight, bn.bias, bn.running_mean))
    sigma = 0 if delta else int(np.rint(_SIGMA_RESOLUTION * np.log2(deviation).mean()))
    gamma0, beta0, mean0, variance = _reference(ref, bn, sigma)
    new_deviation = np.sqrt(variance + bn.eps)
    sign = np.where(gamma * gamma0 < 0, -1.0, 1.0)
    ratio = np.maximum(np.abs(gamma), _GAMMA_FLOOR) / np.abs(gamma0)
    log_gamma = _round(_GAMMA_RESOLUTION[delta] * np.log2(ratio))
    new_gamma = gamma0 * pow2(log_gamma, _GAMMA_RESOLUTION[delta])
    # gamma/deviation * (w.x - mean) + beta is rewritten with the new gamma and deviation
    change = gamma / new_gamma * new_deviation / deviation
    mean_q = _round((mean * sign / deviation - mean0 / new_deviation) * _MEAN_RESOLUTION[delta])
    new_mean = mean0 + mean_q / _MEAN_RESOLUTION[delta] * new_deviation
    new_beta = beta - gamma * mean / deviation + new_gamma * new_mean / new_deviation
    return Target(
        layer.name,
        _flat(layer) * change[:, None, None],
        change,
        new_gamma / new_deviation,
        new_beta - beta0,
        np.abs(new_gamma) / _BETA_RESOLUTION[delta],
        sigma,
        [log_gamma, mean_q],
    )


def _reference(
    ref: Layer | None, bn: nn.BatchNorm2d, sigma: int
) -> tuple[Floats, Floats, Floats, Floats]:
    """Gamma (kept off zero), beta, mean and variance that the coded numbers are relative to."""
    if ref is None or ref.bn is None:
        deviation = float(pow2(sigma, _SIGMA_RESOLUTION))
        one = np.ones(bn.num_features)
        return one, 0 * one, 0 * one, one * max(deviation * deviation - bn.eps, 0.0)
    base = ref.bn
    gamma, beta, mean = (_numpy(x) for x in (base.weight, base.bias, base.running_mean))
    small = np.abs(gamma) < _GAMMA_FLOOR
    gamma = np.where(small, np.where(gamma < 0, -_GAMMA_FLOOR, _GAMMA_FLOOR), gamma)
    return gamma, beta, mean, _numpy(base.running_var)


def steps(rows: Ints, columns: Ints, step: float) -> Floats:
    """The step of every row and column: (C, I, 1)."""
    row, column = pow2(rows, STEP_RESOLUTION), pow2(columns, STEP_RESOLUTION)
    return (row * step)[:, None, None] * column[None, :, None]


def complete(target: Target, rows: Ints, columns: Ints, q: Ints, shift: Floats | None) -> Coded:
    """All integers of a layer, given those of its weights and the shift it should have."""
    vectors = list(target.vectors)
    if shift is not None:
        vectors.append(_round(shift / target.shift_unit))
    return Coded(target.sigma, vectors, rows, columns, q)


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
                _set(layer.conv.bias, bias if ref is None else bias + _numpy(ref.conv.bias))
            continue
        delta = ref is not None
        log_gamma, mean_q, beta_q = c.vectors
        gamma0, beta0, mean0, variance = _reference(ref, layer.bn, c.sigma)
        deviation = np.sqrt(variance + layer.bn.eps)
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
