"""How one training runs: plain numbers, apart from the training itself, so that a configuration can
be read without PyTorch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from endedge.data.errors import BadInput

__all__ = ["Diverged", "Recipe", "check_loss"]


@dataclass(frozen=True)
class Recipe:
    """How one training runs.

    ``steps`` of ``batch`` frames; AdamW at ``lr`` (per step, warmed up over a tenth of the
    steps, then cosine down to ``lr * final_lr``); ``layers``: only the first that many modules
    of the network are trained (``None``: all); ``train_norm``: batch-norm statistics follow
    the frames (else they stay); ``ema``: decay of the weight average (0: last weights);
    ``seed`` fixes the order of frames and the flips.
    """

    steps: int = 200
    batch: int = 16
    lr: float = 5e-4
    final_lr: float = 0.05
    weight_decay: float = 5e-4
    layers: int | None = 5
    train_norm: bool = False
    ema: float = 0.97
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 0 or self.batch < 1 or not self.lr > 0 or not 0 <= self.ema < 1:
            raise BadInput(f"recipe needs steps >= 0, batch >= 1, lr > 0, 0 <= ema < 1: {self}")


class Diverged(BadInput):
    """A training whose loss is no longer finite."""


def check_loss(loss: float, step: int, recipe: Recipe, rate: float) -> float:
    """``loss`` if it is finite: a training that has diverged only spreads what is not a number.
    ``rate`` is that of the step. Raises :class:`Diverged`."""
    if not math.isfinite(loss):
        raise Diverged(
            f"training diverged: the loss is {loss} at step {step} of {recipe.steps}, at a rate of "
            f"{rate:.2g}; lower the rate (lr: {recipe.lr:g})"
        )
    return loss
