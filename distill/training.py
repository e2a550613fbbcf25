"""One short training: frames kept in memory, a plain loop, nothing else.

Ultralytics' trainer is made for hours on a large set; the trainings here take tens of steps
on tens of frames, where its start-up, workers, plots and validations would be most of the
time. So its models, losses and label assigners are used and its trainer is not.

What a few frames can teach without harm is decided here too. The shift of a new camera enters
at the input, so only the first layers are trained (Y. Lee et al., *Surgical Fine-Tuning
Improves Adaptation to Distribution Shifts*, ICLR 2023, find the same); batch-norm statistics
stay those of the large training set; the result is an exponential average over the steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from endedge.data.errors import BadInput
from endedge.data.frames import Batch
from endedge.distill.descent import OnStep, descend, order_of
from endedge.distill.feed import Feed, Targets
from endedge.distill.model import DetectionModel, clone, fold_norms
from endedge.distill.precision import autocast
from endedge.distill.predictions import Objective, single
from endedge.distill.recipe import Recipe, check_loss

__all__ = ["Recipe", "interpolate", "train"]


def train(
    start: DetectionModel,
    frames: Batch,
    objective: Callable[[DetectionModel], Objective],
    recipe: Recipe,
    *,
    device: str = "cpu",
    on_step: OnStep | None = None,
) -> DetectionModel:
    """Train a copy of ``start`` on ``frames`` and return it (fp32, eval, on the CPU).

    ``objective(model)`` makes the loss, called with the raw predictions of each batch and
    its :class:`Targets`; ``on_step(step, loss)`` is told of progress. ``start`` is untouched.
    On a GPU the frames stay there and no step waits for it, but every tenth, which reads the
    losses of ten. The network runs in the precision that is set
    (:mod:`endedge.distill.precision`); losses and weights are fp32 always. Raises
    :class:`BadInput` without frames, and at the first loss that is not finite.

    Args:
        start: the detector to begin with.
        frames: letterboxed uint8 (N, 3, S, S) with their labels.
        objective: makes the loss of the copy that is trained.
        recipe: steps, batch, rate, layers, seed.
        device: ``cpu`` or ``cuda``.
        on_step: hears of each step, counted from 1, and its loss.
    """
    if len(frames) == 0:
        raise BadInput("no frames to train on; give at least one")
    model = clone(start).to(device)
    loss_of = objective(model)
    trained = _set_trainable(model, recipe)
    fold_norms(model.model[_trained_modules(model, recipe) :])
    model.to(memory_format=torch.channels_last)
    helpers = list(loss_of.parameters()) if isinstance(loss_of, nn.Module) else []
    groups = _groups([*trained, *helpers], recipe.weight_decay)

    def loss(targets: Targets) -> Tensor:
        with autocast(device):
            predictions = model(targets.images)
        return loss_of(single(predictions), targets)

    feed = Feed(frames, list(order_of(len(frames), recipe)), device)
    average = descend(
        feed, loss, groups, recipe, trained=trained, averaged=trained, on_step=on_step
    )
    for parameter, mean in zip(trained, average, strict=True):
        parameter.data.copy_(mean)
    result = clone(start)
    learned = model.model[: _trained_modules(model, recipe)].state_dict()
    if not all(bool(tensor.isfinite().all()) for tensor in learned.values()):
        check_loss(math.nan, recipe.steps, recipe, recipe.lr)  # by the last step of all
    result.model[: _trained_modules(model, recipe)].load_state_dict(learned)
    return result.requires_grad_(True).cpu().eval()


def interpolate(start: DetectionModel, end: DetectionModel, share: float) -> DetectionModel:
    """Weights (1 − share)·start + share·end (M. Wortsman et al., *Robust Fine-Tuning of
    Zero-Shot Models*, CVPR 2022). Both must have the same layers."""
    mixed = clone(start)
    target = end.state_dict()
    with torch.no_grad():
        for name, tensor in mixed.state_dict().items():
            if tensor.is_floating_point():
                tensor.lerp_(target[name], share)
    return mixed


def _trained_modules(model: DetectionModel, recipe: Recipe) -> int:
    return len(model.model) if recipe.layers is None else recipe.layers


def _set_trainable(model: DetectionModel, recipe: Recipe) -> list[nn.Parameter]:
    modules = model.model[: _trained_modules(model, recipe)]
    model.requires_grad_(False)
    modules.requires_grad_(True)
    model.model[-1].dfl.requires_grad_(False) if hasattr(model.model[-1], "dfl") else None
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    if recipe.train_norm:
        for module in modules.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train()
    return [p for p in model.parameters() if p.requires_grad]


def _groups(trained: Sequence[nn.Parameter], weight_decay: float) -> list[dict[str, object]]:
    """Decay the convolutions only: biases and norms are one-dimensional."""
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
