"""The loop of every training here: AdamW over batches, a warmed-up cosine, an average of what is
trained. What is trained and towards what is up to the caller."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from endedge.distill.feed import Feed, Order, Targets
from endedge.distill.graphs import Recorded, recorded_on
from endedge.distill.recipe import Recipe, check_loss

__all__ = ["OnStep", "descend", "order_of", "rate_at"]

OnStep = Callable[[int, float], None]

_READ_EVERY = 10  # steps, on an accelerator: reading a loss makes the program wait for it
_STEEPEST = 10.0  # norm of a gradient


def descend(
    feed: Feed,
    loss_of: Callable[[Targets], Tensor],
    groups: Sequence[dict[str, Any]],
    recipe: Recipe,
    *,
    trained: Sequence[Tensor],
    averaged: Sequence[Tensor] = (),
    on_step: OnStep | None = None,
) -> list[Tensor]:
    """Minimise ``loss_of`` over the batches of ``feed``, in place; returns the averages of
    ``averaged``.

    Args:
        feed: A batch for each of the recipe's steps.
        loss_of: A scalar for one batch.
        groups: What AdamW moves, with a ``weight_decay`` each.
        recipe: Steps, rate, average.
        trained: Those whose gradients are clipped.
        averaged: Those of which there is an exponential average over the steps.
        on_step: Told of each step and its loss; on an accelerator of ten steps at a time, for
            nothing waits for the device in between.

    Raises:
        Diverged: at the first loss that is not finite.
    """
    recorded = recorded_on(feed.device)
    lr = torch.tensor(recipe.lr).to(feed.device) if recorded else recipe.lr
    optimizer = torch.optim.AdamW(groups, lr=lr, capturable=recorded)

    def moved(targets: Targets) -> Tensor:
        loss = loss_of(targets)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, _STEEPEST)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    optimizer.zero_grad(set_to_none=True)
    move: Callable[[Targets], Tensor] = Recorded(moved, feed.device) if recorded else moved
    average = [p.detach().clone() for p in averaged]
    unread: list[tuple[int, Tensor, float]] = []
    for step, targets in enumerate(feed, 1):
        rate = recipe.lr * rate_at(step - 1, recipe)
        for group in optimizer.param_groups:
            group["lr"] = group["lr"].fill_(rate) if recorded else rate
        loss = move(targets)
        if average:
            decay = min(recipe.ema, step / (step + 10.0))  # short at first: the start is no result
            torch._foreach_lerp_(average, [p.detach() for p in averaged], 1 - decay)
        unread.append((step, loss, rate))
        if loss.device.type == "cpu" or step % _READ_EVERY == 0 or step == len(feed):
            _read(unread, recipe, on_step)
    return average


def _read(unread: list[tuple[int, Tensor, float]], recipe: Recipe, on_step: OnStep | None) -> None:
    """Check the losses of some steps and tell of them; forgets them."""
    values = torch.stack([loss for _, loss, _ in unread]).tolist()
    for (step, _, rate), value in zip(unread, values, strict=True):
        check_loss(value, step, recipe, rate)
        if on_step is not None:
            on_step(step, value)
    unread.clear()


def rate_at(step: int, recipe: Recipe) -> float:
    """Share of the rate at ``step`` (from 0): warm-up over a tenth, then cosine."""
    warm = max(1, recipe.steps // 10)
    if step < warm:
        return (step + 1) / warm
    progress = (step - warm) / max(1, recipe.steps - warm)
    return recipe.final_lr + (1 - recipe.final_lr) * (1 + math.cos(math.pi * progress)) / 2


def order_of(n: int, recipe: Recipe) -> Iterator[Order]:
    """Every frame once before any comes again; each time flipped or not by a fair coin."""
    rng = np.random.default_rng([recipe.seed, 0xF11B])
    queue: list[int] = []
    for _ in range(recipe.steps):
        while len(queue) < recipe.batch:
            queue += [int(i) for i in rng.permutation(n)]
        at, queue = queue[: recipe.batch], queue[recipe.batch :]
        yield at, [bool(f) for f in rng.random(recipe.batch) < 0.5]
