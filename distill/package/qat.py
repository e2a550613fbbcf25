"""Quantization-aware distillation: integers that are trained, where rounding alone costs too much.

The forward pass sees weights on the package's own grid, the gradient passes through the rounding
as if it were not there (straight-through estimator: Bengio et al., 2013; for networks: Jacob
et al., CVPR 2018), and the loss is the divergence from the whole model's predictions, so no
label is needed. Steps, norms and biases stay as the packer chose them; about one integer in a
hundred moves, so the coded size hardly changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from endedge.data.errors import BadInput
from endedge.data.frames import unlabelled
from endedge.distill.dense import keep_anchors
from endedge.distill.descent import OnStep, descend, order_of
from endedge.distill.feed import Feed, Targets, on_host
from endedge.distill.layers import layers
from endedge.distill.losses import imitation
from endedge.distill.model import DetectionModel, clone
from endedge.distill.package.quantization import Coded
from endedge.distill.package.quantization import steps as grid_steps
from endedge.distill.recipe import Recipe

__all__ = ["AWARE_LR", "train_integers"]

AWARE_LR = 3e-4  #: a rate that suits real detectors: one integer in a hundred moves in 60 steps


class _OnGrid(nn.Module):
    """Weights rounded to integer · ``step``; the gradient does not notice."""

    def __init__(self, step: Tensor) -> None:
        super().__init__()
        self.step: Tensor
        self.register_buffer("step", step)

    def integers(self, weight: Tensor) -> Tensor:
        return (weight / self.step).round()

    def forward(self, weight: Tensor) -> Tensor:
        on_grid = self.integers(weight) * self.step
        return weight + (on_grid - weight).detach()


def train_integers(
    whole: DetectionModel,
    decoded: DetectionModel,
    coded: Sequence[Coded],
    step: float,
    frames: Tensor,
    recipe: Recipe,
    *,
    device: str = "cpu",
    on_step: OnStep | None = None,
) -> list[Coded]:
    """``coded`` with other integers, so that ``decoded`` (what this full package decodes to)
    predicts more like ``whole``. ``frames`` (N, 3, S, S) uint8, unlabelled; ``recipe``:
    steps, batch, rate and seed. Nothing given is changed. Raises :class:`BadInput` without frames.
    """
    if not len(frames):
        raise BadInput("no frames to train the integers on; give at least one")
    model = clone(decoded).to(device).requires_grad_(False).eval()
    if not on_host(device):
        keep_anchors(model)
    grids: list[_OnGrid] = []
    latent: list[Tensor] = []
    for layer, one in zip(layers(model), coded, strict=True):
        weight = layer.conv.weight
        each = np.broadcast_to(grid_steps(one.rows, one.columns, step), one.weights.shape)
        steps = torch.from_numpy(each.astype(np.float32)).to(device).view_as(weight)
        weight.requires_grad_(True)
        grids.append(_OnGrid(steps))
        parametrize.register_parametrization(layer.conv, "weight", grids[-1], unsafe=True)
        latent.append(dict(layer.conv.named_parameters())["parametrizations.weight.original"])
    loss_of, pictures = imitation(whole, device)(model), unlabelled(frames)

    def loss(targets: Targets) -> Tensor:
        return loss_of(model(targets.images)[1], targets)

    feed = Feed(pictures, list(order_of(len(pictures), recipe)), device)
    groups = [{"params": latent, "weight_decay": 0.0}]
    descend(feed, loss, groups, recipe, trained=latent, on_step=on_step)
    rounded = [grid.integers(w.detach()).cpu() for grid, w in zip(grids, latent, strict=True)]
    return [
        replace(one, weights=q.reshape(one.weights.shape).to(torch.int32).numpy())
        for one, q in zip(coded, rounded, strict=True)
    ]
