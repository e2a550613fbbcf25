"""Learning the numbers of an input adapter from labelled frames, the detector itself fixed."""

from __future__ import annotations

import torch
from torch import Tensor

from endedge.data.errors import BadInput
from endedge.data.frames import Batch
from endedge.distill.adapter import InputAdapter, adapter_of, attach, start_adapter
from endedge.distill.descent import OnStep, descend, order_of
from endedge.distill.detection_loss import labels
from endedge.distill.feed import Feed, Targets
from endedge.distill.model import DetectionModel, clone, fold_norms
from endedge.distill.precision import autocast
from endedge.distill.predictions import single
from endedge.distill.recipe import Recipe

__all__ = ["learn_adapter"]


def learn_adapter(
    start: DetectionModel,
    frames: Batch,
    recipe: Recipe,
    *,
    device: str = "cpu",
    on_step: OnStep | None = None,
) -> DetectionModel:
    """A copy of ``start`` whose input adapter (plain where it has none) fits ``frames`` better.

    36 numbers by AdamW on the detection loss of the labels, through the detector: ``recipe``
    gives steps, batch, rate (1e-2 is usual), average and seed. Whether the frame's levels are
    stretched is not learned and stays. Raises :class:`BadInput` without frames, and
    :class:`~endedge.distill.recipe.Diverged` for a loss that is not finite.
    """
    if len(frames) == 0:
        raise BadInput("no frames to learn an input adapter on; give at least one")
    model = clone(start).to(device).eval().requires_grad_(False)
    adapter = adapter_of(model) or start_adapter().to(device)
    attach(model, None)
    loss_of = labels(model)
    fold_norms(model.model)
    model.to(memory_format=torch.channels_last).train()
    numbers = [adapter.curve.clone().requires_grad_(), adapter.matrix.clone().requires_grad_()]

    def loss(targets: Targets) -> Tensor:
        images = adapter.with_numbers(targets.images, *numbers)
        with autocast(device):
            predictions = model(images)
        return loss_of(single(predictions), targets)

    feed = Feed(frames, list(order_of(len(frames), recipe)), device)
    groups = [{"params": numbers, "weight_decay": 0.0}]
    average = descend(
        feed, loss, groups, recipe, trained=numbers, averaged=numbers, on_step=on_step
    )
    result = clone(start)
    curve, matrix = (n.cpu() for n in average)
    attach(result, InputAdapter(curve, matrix, per_frame=adapter.per_frame))
    return result.eval()
