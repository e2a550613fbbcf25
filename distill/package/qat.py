"""Quantization-aware distillation: integers that are trained, where rounding alone costs too much.

The forward pass sees weights on the package's own grid, the gradient passes through the rounding
as if it were not there (straight-through estimator: Bengio et al., 2013; for networks: Jacob
et al., CVPR 2018), and the loss is the divergence from the whole model's predictions, so no
label is needed. Steps, norms and biases stay as the packer chose them; about one integer in a
hundred moves, so the coded size hardly changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from endedge.data.errors import BadInput
from endedge.data.frames import unlabelled
from endedge.distill.layers import layers
from endedge.distill.losses import imitation
from endedge.distill.model import DetectionModel, clone
from endedge.distill.package.quantization import Coded
from endedge.distill.package.quantization import steps as grid_steps
from endedge.distill.recipe import check_loss
from endedge.distill.training import Recipe, gather, order_of, rate_at

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
    on_step: Callable[[int, float], None] | None = None,
) -> list[Coded]:
    """``coded`` with other integers, so that ``decoded`` (what this full package decodes to)
    predicts more like ``whole``. ``frames`` (N, 3, S, S) uint8, unlabelled; ``recipe``:
    steps, batch, rate and seed. Nothing given is changed. Raises :class:`BadInput` without frames.
    """
    if not len(frames):
        raise BadInput("no frames to train the integers on; give at least one")
    model = clone(decoded).requires_grad_(False).eval()
    grids: list[_OnGrid] = []
    latent: list[Tensor] = []
    for layer, one in zip(layers(model), coded, strict=True):
        weight = layer.conv.weight
        each = np.broadcast_to(grid_steps(one.rows, one.columns, step), one.weights.shape)
        steps = torch.from_numpy(each.astype(np.float32)).view_as(weight)
        weight.requires_grad_(True)
        grids.append(_OnGrid(steps))
        parametrize.register_parametrization(layer.conv, "weight", grids[-1], unsafe=True)
        latent.append(dict(layer.conv.named_parameters())["parametrizations.weight.original"])
    optimizer = torch.optim.AdamW(latent, lr=recipe.lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: rate_at(i, recipe))
    loss_of, pictures = imitation(whole)(model), unlabelled(frames)
    for i, (at, flips) in enumerate(order_of(len(pictures), recipe), 1):
        targets = gather(pictures, at, flips, "cpu")
        loss = loss_of(model(targets.images)[1], targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(latent, 10.0)
        optimizer.step()
        rate = float(schedule.get_last_lr()[0])
        schedule.step()
        value = check_loss(float(loss.detach()), i, recipe, rate)
        if on_step is not None:
            on_step(i, value)
    found = [grid.integers(w.detach()) for grid, w in zip(grids, latent, strict=True)]
    return [
        replace(one, weights=q.reshape(one.weights.shape).to(torch.int32).numpy())
        for one, q in zip(coded, found, strict=True)
    ]
