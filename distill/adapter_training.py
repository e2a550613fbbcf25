"""Learning the numbers of an input adapter from labelled frames, the detector itself fixed."""

from __future__ import annotations

from collections.abc import Callable

import torch

from endedge.data.errors import BadInput
from endedge.data.frames import Batch
from endedge.distill.adapter import InputAdapter, adapter_of, attach, start_adapter
from endedge.distill.losses import labels
from endedge.distill.model import DetectionModel, clone, fold_norms
from endedge.distill.precision import autocast
from endedge.distill.training import Recipe, gather, order_of, rate_at, single

__all__ = ["learn_adapter"]


def learn_adapter(
    start: DetectionModel,
    frames: Batch,
    recipe: Recipe,
    *,
    device: str = "cpu",
    on_step: Callable[[int, float], None] | None = None,
) -> DetectionModel:
    """A copy of ``start`` whose input adapter (plain where it has none) fits ``frames`` better.

    36 numbers by AdamW on the detection loss of the labels, through the detector: ``recipe``
    gives steps, batch, rate (1e-2 is usual), average and seed. Whether the frame's levels are
    stretched is not learned and stays. Raises :class:`BadInput` without frames, and for numbers
    that the training made infinite.
    """
    if len(frames) == 0:
        raise BadInput("no frames to learn an input adapter on; give at least one")
    frames, model = frames.on(device), clone(start).to(device).eval().requires_grad_(False)
    adapter = adapter_of(model) or start_adapter().to(device)
    attach(model, None)
    loss_of = labels(model)
    fold_norms(model.model)
    model.to(memory_format=torch.channels_last).train()
    numbers = [adapter.curve.clone().requires_grad_(), adapter.matrix.clone().requires_grad_()]
    optimizer = torch.optim.AdamW(numbers, lr=recipe.lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: rate_at(i, recipe))
    average = [n.detach().clone() for n in numbers]
    for step, (at, flips) in enumerate(order_of(len(frames), recipe), 1):
        targets = gather(frames, at, flips, device)
        images = adapter.with_numbers(targets.images, *numbers)
        with autocast(device):
            predictions = model(images)
        loss = loss_of(single(predictions), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(numbers, 10.0)
        optimizer.step()
        schedule.step()
        decay = min(recipe.ema, step / (step + 10.0))
        torch._foreach_lerp_(average, [n.detach() for n in numbers], 1 - decay)
        if on_step is not None:
            on_step(step, float(loss.detach()))
    result = clone(start)
    curve, matrix = (n.cpu() for n in average)
    attach(result, InputAdapter(curve, matrix, per_frame=adapter.per_frame))
    return result.eval()
