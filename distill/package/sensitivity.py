"""Which weights matter, measured on unlabelled frames.

For a convolution with input patches x and output gradients g, a change of its weights by
``d`` costs, to second order, ``sum_c G[c] * d[c] @ H @ d[c]`` where ``H`` is the second moment of
the patches (weighted by where gradients are) and ``G[c]`` the Fisher information of output
channel c: the Kronecker-factored approximation of Martens & Grosse (2015) with a diagonal
output factor. Gradients are of the detector's own predictive distribution, labels drawn from
the model itself, so no annotation is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.linalg import blas
from torch import Tensor, nn
from torch.nn import functional as F

from endedge.data.errors import BadInput
from endedge.distill.dense import keep_anchors
from endedge.distill.feed import on_host
from endedge.distill.layers import Layer, layers
from endedge.distill.model import DetectionModel, clone, fold_norms
from endedge.distill.package.quantization import Floats
from endedge.distill.precision import computing

__all__ = ["Sensitivity", "gate_scores", "measure", "synthetic_frames"]

_BATCH = 8
_UNIFORM = 0.2  # share of patches drawn evenly, beside those drawn where gradients are
_PATCHES = 64  # sampled positions a frame and layer
_BOX_WEIGHT = 1.0  # of the box distributions beside the class scores
_LARGEST_DENSE = 4608  # inputs; beyond, the input factor is kept diagonal


@dataclass
class Sensitivity:
    """Factors of one convolution. ``output`` (C,), a frame; ``mean`` (D,) of its input patches and
    ``moment`` (D, D), their covariance, D = inputs x taps. A grouped convolution has (C, D)
    ``mean`` and no ``moment`` but a ``power`` (C, D), the variance of every input."""

    output: Floats
    mean: Floats
    moment: Floats | None
    power: Floats | None = None


def synthetic_frames(n: int = 32, side: int = 320, seed: int = 0) -> Tensor:
    """Stand-ins when no frame is at hand: coloured 1/f noise, (n, 3, side, side) uint8."""
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    fall = 1.0 / np.maximum(np.hypot(fy, fx), 1.0 / side)
    phase = rng.uniform(0, 2 * np.pi, (n, 4, side, side // 2 + 1))
    noise = np.fft.irfft2(fall * np.exp(1j * phase), s=(side, side))
    noise /= noise.std(axis=(2, 3), keepdims=True)
    mixed = noise[:, :1] + 0.4 * noise[:, 1:]  # mostly grey, like photographs
    return torch.from_numpy((118 + 58 * mixed).clip(0, 255).astype(np.uint8))


def measure(
    model: DetectionModel,
    frames: Tensor,
    seed: int = 0,
    on_share: Callable[[float], None] | None = None,
    names: Collection[str] | None = None,
    device: str = "cpu",
) -> dict[str, Sensitivity]:
    """Sensitivity of every convolution of a detector.

    Args:
        model: The detector; untouched.
        frames: (N, 3, S, S) uint8, unlabelled.
        seed: Of what is drawn, which is the same on every device.
        on_share: Hears how much of the work is done, 0 to 1.
        names: Of the convolutions that are asked for; None: all.
        device: Where the detector computes.

    Raises:
        BadInput: for frames of another kind.
    """
    if frames.ndim != 4 or frames.shape[1] != 3 or frames.dtype != torch.uint8 or not len(frames):
        raise BadInput(f"frames must be uint8 of shape (N, 3, S, S), not {tuple(frames.shape)}")
    model = clone(model).cpu().float().eval().requires_grad_(False)
    wanted = [x for x in layers(model) if names is None or x.name in names]
    if not wanted:
        return {}
    scales = {x.name: _gain(x) for x in wanted}
    fold_norms(model)  # a norm after a convolution only scales its gradients
    model.to(device).to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(seed)
    modules = dict(model.named_modules())
    collectors = {
        name: _Collector(modules[name], scale, generator) for name, scale in scales.items()
    }
    _propagate(model, frames, generator, on_share, device)
    return {name: c.result(len(frames)) for name, c in collectors.items()}


def gate_scores(
    model: DetectionModel, frames: Tensor, seed: int = 0, device: str = "cpu"
) -> dict[str, Floats]:
    """Score of a gate on every output channel of every block with batch norm and activation.

    For each convolution, (N, C): the derivative, on each frame, of the sampled score with
    respect to a factor on the deviation of the channel's activation from its mean.
    """
    model = clone(model).float().eval().requires_grad_(False).to(device)
    scores: dict[str, list[Tensor]] = {}

    def hook(name: str) -> Any:
        def forward(module: nn.Module, inputs: Any, output: Tensor) -> None:
            a = output.detach()
            a = a - a.mean((0, 2, 3), keepdim=True)

            def backward(g: Tensor) -> None:
                scores.setdefault(name, []).append((g * a).sum((2, 3)))

            output.register_hook(backward)  # type: ignore[no-untyped-call]

        return forward

    modules = dict(model.named_modules())
    for layer in layers(model):
        if layer.bn is not None:
            modules[layer.name.removesuffix(".conv")].register_forward_hook(hook(layer.name))
    _propagate(model, frames, torch.Generator().manual_seed(seed), None, device)
    return {name: torch.cat(parts).cpu().double().numpy() for name, parts in scores.items()}


def _propagate(
    model: DetectionModel,
    frames: Tensor,
    generator: torch.Generator,
    on_share: Callable[[float], None] | None,
    device: str,
) -> None:
    """Forward and backward over the frames, for the hooks of ``model``."""
    frames = frames.to(device)
    if not on_host(device):
        keep_anchors(model)
    for start in range(0, len(frames), _BATCH):
        images = frames[start : start + _BATCH].float() / 255
        images = images.contiguous(memory_format=torch.channels_last).requires_grad_(True)
        with computing("fp32", device):
            raw = model(images)[1]
            outputs = [
                h for h in (raw.get("one2one"), raw.get("one2many"), raw) if h and "scores" in h
            ]
            loss: Any = sum(_sampled_score(h, generator) for h in outputs)
            loss.backward()
        if on_share is not None:
            on_share(min(1.0, (start + _BATCH) / len(frames)))


def _sampled_score(head: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """A scalar whose gradient is the score function of labels drawn from the predictions."""
    scores, boxes = head["scores"], head["boxes"]  # (B, nc, A), (B, 4 * reg_max, A)
    p = scores.detach().sigmoid()
    noise = torch.randn(p.shape, generator=generator).to(
        p.device
    )  # of a Bernoulli's variance: rare classes
    total = (scores * noise * (p * (1 - p)).sqrt()).sum()  # would else hardly ever be drawn
    weight = (_BOX_WEIGHT * p.amax(1)).sqrt()
    sides = boxes.reshape(len(boxes), 4, -1, boxes.shape[2])
    if sides.shape[2] == 1:  # plain regression: unit noise on every side
        noise = torch.randn(boxes.shape, generator=generator).to(p.device)
        plain: Tensor = total + (boxes * noise * weight[:, None]).sum()
        return plain
    q: Tensor = sides.detach().softmax(2)
    cumulative = q.cumsum(2)
    u = torch.rand(cumulative[:, :, :1].shape, generator=generator).to(p.device)
    bins = (u > cumulative).sum(2, keepdim=True).clamp_(max=q.shape[2] - 1)
    hot = torch.zeros_like(q).scatter_(2, bins, 1.0)
    scored: Tensor = total + (sides * (q - hot) * weight[:, None, None]).sum()
    return scored


def _places(chance: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """``n`` different places of each row of ``chance`` (b, p), drawn by it: (b, n). Elsewhere than
    on the host this is what ``multinomial`` does there, with the host's draws, so that they are
    the same."""
    if on_host(chance.device):
        return torch.multinomial(chance, n, generator=generator)
    drawn = torch.empty(chance.shape, dtype=chance.dtype).exponential_(1, generator=generator)
    return (chance / drawn.to(chance.device)).topk(n, 1).indices


def _patches(conv: nn.Conv2d, x: Tensor, at: Tensor, width: int) -> Tensor:
    """What ``conv`` sees of ``x`` (B, C, H, W) at the output positions ``at`` (B, n), counted in
    rows of ``width``: (B * n, C * taps), in the order of ``unfold``, without unfolding it all."""
    (tall, wide), (down, right) = conv.kernel_size, conv.stride
    y_gap, x_gap = conv.dilation
    y_pad, x_pad = (int(n) for n in conv.padding)  # Ultralytics never pads by name
    places = F.pad(x, (x_pad, x_pad, y_pad, y_pad)).permute(0, 2, 3, 1)
    batch, height, stride, channels = places.shape
    down_taps, right_taps = (torch.arange(k, device=x.device) for k in (tall, wide))
    taps = (y_gap * stride * down_taps)[:, None] + x_gap * right_taps
    corner = (at // width) * down * stride + (at % width) * right
    corner += torch.arange(batch, device=x.device)[:, None] * height * stride
    rows = (corner[:, :, None] + taps.flatten()).flatten()
    picked = places.reshape(-1, channels).index_select(0, rows)
    return picked.view(at.numel(), -1, channels).transpose(1, 2).flatten(1)


def _gain(layer: Layer) -> Floats:
    """What batch norm multiplies each output of a convolution by: (C,)."""
    if layer.bn is None or layer.bn.running_var is None:
        return np.ones(layer.conv.out_channels)
    gain = layer.bn.weight.double() / (layer.bn.running_var.double() + layer.bn.eps).sqrt()
    return np.asarray(gain.numpy())


class _Collector:
    """Gathers the factors of one convolution, whose outputs are ``scale`` (C,) times the plain
    ones, through hooks."""

    def __init__(self, conv: nn.Conv2d, scale: Floats, generator: torch.Generator) -> None:
        self.conv, self.generator = conv, generator
        device = conv.weight.device
        wide = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs lack it
        self.here = on_host(device)
        self.scale = torch.from_numpy(scale**2).float().to(device)  # of squared gradients
        self.taps = conv.kernel_size[0] * conv.kernel_size[1]
        self.size = conv.in_channels * self.taps
        self.grouped = conv.groups > 1
        self.dense = not self.grouped and self.size <= _LARGEST_DENSE
        self.output = torch.zeros(conv.out_channels, dtype=wide, device=device)
        self.sum = torch.zeros(self.size, dtype=wide, device=device)
        shape = (self.size, self.size) if self.dense else (self.size,)
        self.moment: Any = np.zeros(shape, np.float32, order="F")  # dense: its upper half
        if not self.here:
            self.moment = torch.zeros(shape, device=device)
        self.count = 0
        self.origin: Tensor | None = None
        conv.register_forward_hook(self._forward)

    def _forward(self, conv: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        x = inputs[0].detach()
        output.register_hook(lambda g: self._backward(x, g))  # type: ignore[no-untyped-call]

    def _backward(self, x: Tensor, g: Tensor) -> None:
        energy = g.square().flatten(2) * self.scale[:, None]  # (B, C, P)
        self.output += energy.sum((0, 2)).to(self.output.dtype)
        where = energy.sum(1)
        total = where.sum(1, keepdim=True)
        chance = where / total.clamp(min=1e-30) + _UNIFORM / where.shape[1]
        n = min(_PATCHES, where.shape[1])
        at = _places(chance, n, self.generator)
        rows = _patches(self.conv, x, at, g.shape[3])
        if self.origin is None:  # moments about it: activations may hardly vary
            self.origin = rows.mean(0)
        rows = rows - self.origin
        self.sum += rows.sum(0).to(self.sum.dtype)
        if not self.here:
            self.moment += rows.T @ rows if self.dense else rows.square().sum(0)
        elif self.dense:  # half the arithmetic of a product
            self.moment = blas.ssyrk(1, rows.numpy().T, 1, self.moment, overwrite_c=1)
        else:
            self.moment += rows.square().sum(0).numpy()
        self.count += len(rows)

    def result(self, n_frames: int) -> Sensitivity:
        n = max(1, self.count)
        output = self.output.cpu().double().numpy() / n_frames + 1e-30
        mean = (self.sum / n).cpu().double().numpy()
        moment = self.moment if self.here else self.moment.cpu().numpy()
        moment = moment.astype(np.float64) / n
        origin = 0.0 if self.origin is None else self.origin.cpu().double().numpy()
        if self.dense:
            if self.here:
                moment += np.triu(moment, 1).T
            return Sensitivity(output, mean + origin, moment - np.outer(mean, mean))
        power = np.maximum(moment - mean**2, 0)
        mean = mean + origin
        if self.grouped:
            each = self.conv.in_channels // self.conv.groups
            share = self.conv.out_channels // self.conv.groups
            mean = mean.reshape(self.conv.groups, -1).repeat(share, axis=0)
            power = power.reshape(self.conv.groups, each * self.taps).repeat(share, axis=0)
        return Sensitivity(output, mean, None, power)
