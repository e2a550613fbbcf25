"""The edge's answer to an upload: adapt the teacher, distil the student, decide whether to send.

Nothing here sees evaluation frames. What has to be chosen (how far to move from the start,
whether an update is an improvement at all) is chosen on a slice of the uploaded frames that
no training touches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from endedge.data.errors import BadInput
from endedge.data.frames import Batch
from endedge.distill.dense import keep_anchors
from endedge.distill.feed import Feed, on_host
from endedge.distill.loss import Loss
from endedge.distill.losses import Objective, labels, labels_by_frame
from endedge.distill.model import DetectionModel, clone, fold_norms
from endedge.distill.precision import autocast
from endedge.distill.predictions import single
from endedge.distill.responses import Responses
from endedge.distill.training import Recipe, interpolate, train

__all__ = [
    "Adapted",
    "OnStep",
    "Upload",
    "Verdict",
    "adapt_teacher",
    "compare",
    "distil_student",
    "held_back_loss",
    "held_back_losses",
    "part_way",
    "split_upload",
    "weigh",
]

OnStep = Callable[[int, float], None]

_RESPONSES = Responses()
_LEAST_GROUPS = 3  # to divide an upload by them
_JUDGED_AT_ONCE = 16  # frames


@dataclass(frozen=True, eq=False)
class Upload:
    """What the edge knows of the device's world: ``trained`` frames and ``held_back`` ones. Where
    the adaptation is chosen by all frames in turn, nothing is held back for good: both are the
    same, and ``groups`` names the group of each."""

    trained: Batch
    held_back: Batch
    groups: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class Adapted:
    """A trained ``model``: ``share`` of the way from the start to the end of the training, and
    the held-back ``loss`` of each share tried (share 0 is the start)."""

    model: DetectionModel
    share: float
    losses: dict[float, float]


def split_upload(
    frames: Batch, share: float, most: int, groups: Sequence[str] | None = None
) -> Upload:
    """Hold back the last ``share`` of the frames (at least 2, at most ``most``).

    With ``groups`` (n,), at least three different ones: frames of whole groups, the last to
    appear first, until there are enough; what is beyond that of the last group taken is neither
    trained on nor judged. Half of the frames are always trained on."""
    n = len(frames)
    held = min(min(most, max(2, round(share * n))), n - 1)
    if groups is None or len(set(groups)) < _LEAST_GROUPS:
        return Upload(frames.take(range(n - held)), frames.take(range(n - held, n)))
    aside: list[int] = []
    for group in reversed(dict.fromkeys(groups)):
        members = [i for i, name in enumerate(groups) if name == group]
        if len(aside) + len(members) <= n // 2:
            aside += members
        if len(aside) >= held:
            break
    if len(aside) < 2:
        return split_upload(frames, share, most)
    left = set(aside)
    trained = [i for i in range(n) if i not in left]
    return Upload(frames.take(trained), frames.take(sorted(aside)[-held:]))


def adapt_teacher(
    start: DetectionModel,
    upload: Upload,
    recipe: Recipe,
    shares: Sequence[float],
    *,
    device: str = "cpu",
    on_step: OnStep | None = None,
) -> Adapted:
    """Fine-tune the large model on the uploaded frames and their labels."""
    return _adapt(start, upload, labels, recipe, shares, device, on_step)


def distil_student(
    start: DetectionModel,
    teacher: DetectionModel,
    upload: Upload,
    recipe: Recipe,
    shares: Sequence[float],
    *,
    loss: Loss = _RESPONSES,
    device: str = "cpu",
    on_step: OnStep | None = None,
) -> Adapted:
    """Train the small model towards labels and the adapted teacher, as ``loss`` has it."""
    objective = loss.towards(teacher, device)
    return _adapt(start, upload, objective, recipe, shares, device, on_step)


@dataclass(frozen=True)
class Verdict:
    """Two models on the same held-back frames: their mean losses ``before`` and ``after``, the
    standard ``error`` of the difference (paired by frame), how many ``frames`` there were, how
    many it takes ``least``, and how many standard errors of gain are asked for (``sure``)."""

    before: float
    after: float
    error: float
    frames: int
    least: int
    sure: float = 0.0

    @property
    def helps(self) -> bool:
        """Whether the second should be sent. Three frames are no evidence, however well they
        agree: an update that lost 1.5 points was better on each of them. A whole standard error
        is not asked for: on six frames that kept updates at home that brought 11 points."""
        return self.frames >= self.least and self.before - self.after > self.sure * self.error


def compare(
    before: DetectionModel, after: DetectionModel, frames: Batch, least: int, device: str = "cpu"
) -> Verdict:
    """What frames that no training saw say about ``after`` in place of ``before``."""
    old, new = (held_back_losses(model, frames, device) for model in (before, after))
    return weigh(old, new, least)


def weigh(old: NDArray[np.float64], new: NDArray[np.float64], least: int) -> Verdict:
    """What the losses (n,) of two models on the same held-back frames say."""
    spread = float((old - new).std(ddof=1)) if len(old) > 1 else 0.0
    error = spread / math.sqrt(len(old))
    return Verdict(float(old.mean()), float(new.mean()), error, len(old), least)


def held_back_loss(model: DetectionModel, frames: Batch, device: str = "cpu") -> float:
    """Mean of :func:`held_back_losses`."""
    return float(held_back_losses(model, frames, device).mean())


def held_back_losses(
    model: DetectionModel, frames: Batch, device: str = "cpu"
) -> NDArray[np.float64]:
    """Detection loss (labels) of ``model`` on each of n frames it was not trained on: (n,).

    A loss and not mAP: on a dozen frames mAP moves by whole points when one box flips, while
    the loss changes with every score. Of each frame alone, so that a crowded one does not decide.
    """
    model = clone(model).to(device).eval()
    loss_of = labels_by_frame(model)
    fold_norms(model)
    model.to(memory_format=torch.channels_last)
    if not on_host(device):
        keep_anchors(model)
    order = list(range(len(frames)))
    parts = [order[i : i + _JUDGED_AT_ONCE] for i in range(0, len(order), _JUDGED_AT_ONCE)]
    losses = []
    with torch.no_grad():
        for targets in Feed(frames, [(at, [False] * len(at)) for at in parts], device):
            with autocast(device):
                raw = model(targets.images)[1]
            losses.append(loss_of(single(raw), targets))
    return np.asarray(torch.cat(losses).cpu().numpy(), np.float64) if losses else np.empty(0)


def _adapt(
    start: DetectionModel,
    upload: Upload,
    objective: Callable[[DetectionModel], Objective],
    recipe: Recipe,
    shares: Sequence[float],
    device: str,
    on_step: OnStep | None,
) -> Adapted:
    end = train(start, upload.trained, objective, recipe, device=device, on_step=on_step)
    return part_way(start, end, upload.held_back, shares, device)


def part_way(
    start: DetectionModel,
    end: DetectionModel,
    held_back: Batch,
    shares: Sequence[float],
    device: str = "cpu",
) -> Adapted:
    """The mixture of ``start`` and its trained ``end``, among ``shares`` of the way, with the
    lowest loss on frames that no training saw. Raises :class:`BadInput` where one is not finite."""
    models = {share: interpolate(start, end, share) for share in shares}
    tried = {0.0: held_back_loss(start, held_back, device)}
    tried |= {s: held_back_loss(m, held_back, device) for s, m in models.items()}
    if wrong := [share for share, loss in tried.items() if not math.isfinite(loss)]:
        raise BadInput(
            f"training diverged: the loss on held-back frames is {tried[wrong[0]]} at "
            f"{wrong[0]:.0%} of the way; lower the rate"
        )
    best = min(shares, key=lambda share: tried[share])
    return Adapted(models[best], best, tried)
