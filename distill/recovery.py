"""A pruned detector that has learned again from the whole one, on frames without labels."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from endedge.data.frames import Batch
from endedge.distill.losses import divergence, imitation
from endedge.distill.model import DetectionModel
from endedge.distill.pruning import prune
from endedge.distill.recipe import Diverged
from endedge.distill.training import Recipe, train

__all__ = ["pruned_and_recovered"]

_HELD_BACK = 5  # one frame in so many


def pruned_and_recovered(
    model: DetectionModel,
    kept: float,
    frames: Batch,
    recipe: Recipe,
    *,
    calibration: Tensor,
    device: str = "cpu",
    on_step: Callable[[int, float], None] | None = None,
) -> DetectionModel:
    """``model`` cut to the share ``kept`` of its parameters, then distilled from itself.

    The cut is measured and repaired on ``calibration`` (N, 3, S, S) uint8; ``recipe`` then trains
    towards the class scores and box distributions of ``model`` on ``frames``, whose labels are
    not used: what the uncut model says is the goal. A fifth of the frames is held back and
    decides whether the training is kept: where little was lost, it does harm; one that diverges
    is thrown away. ``model`` is
    untouched.

    Args:
        model: to be cut; it teaches what is left of it.
        kept: share of the parameters in (0, 1].
        frames: to learn on; their labels are not used.
        recipe: of the training; 0 steps only cut.
        calibration: (N, 3, S, S) uint8, on which the cut is measured.
        device: ``cpu`` or ``cuda``.
        on_step: hears of each step and its loss.

    Raises:
        BadInput: if so few parameters cannot be reached.
    """
    small = prune(model, kept, calibration, seed=recipe.seed, device=device)
    held = max(1, len(frames) // _HELD_BACK)
    if recipe.steps == 0 or len(frames) <= held:
        return small
    learning = frames.take(range(len(frames) - held))
    try:
        trained = train(
            small, learning, imitation(model, device), recipe, device=device, on_step=on_step
        )
    except Diverged:
        return small
    judges = frames.images[-held:]
    return min(small, trained, key=lambda m: divergence(model, m, judges, device))
