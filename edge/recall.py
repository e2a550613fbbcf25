"""Models that a device still keeps: which of them suits the frames that came, if any does.

A domain returns: at dusk what was learned yesterday evening is better than what the device runs.
To say "use that one" costs 61 bytes, and what is learned anew begins there and not from now.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from endedge.data.frames import Batch
from endedge.distill.model import DetectionModel, model_hash
from endedge.distill.package.packing import reused
from endedge.edge.adapt import Adapted, Verdict, held_back_losses, weigh
from endedge.edge.evidence import FIRST_ROUND, MOST_JUDGED, log_gains
from endedge.edge.plan import Student, Update

__all__ = ["Kept", "Recalled", "recall"]


@dataclass(frozen=True, eq=False)
class Kept:
    """A ``model`` that the device keeps, and its architecture (a name of the menu)."""

    model: DetectionModel
    architecture: str


@dataclass(frozen=True, eq=False)
class Recalled(Kept):
    """The one that suits the frames best, surely better than what the device runs."""

    verdict: Verdict

    def answer(self, taught: Adapted, students: tuple[DetectionModel, ...]) -> Update:
        """That the device goes back to it, after all."""
        line = Student(self.architecture)
        packed, name = reused(self.model), model_hash(self.model)
        return Update(taught, students, packed, self.model, self.verdict, line, name)


def recall(
    kept: Sequence[Kept],
    running: DetectionModel,
    frames: Batch,
    *,
    least: int,
    sure: float = 1.0,
    device: str = "cpu",
) -> Recalled | None:
    """The best of ``kept`` on ``frames``, which none of them was trained on.

    None unless it is better than ``running`` by more than ``sure`` standard errors, on ``least``
    frames or more: gains in log loss, paired by frame, as in :mod:`endedge.edge.evidence`.
    """
    if not kept or len(frames) < least:
        return None
    judges = frames.take(range(min(len(frames), MOST_JUDGED)))
    before = held_back_losses(running, judges, device)
    losses = [held_back_losses(each.model, judges, device) for each in kept]
    best = min(range(len(kept)), key=lambda i: float(np.log(losses[i]).mean()))
    gains = log_gains(before, losses[best])
    gain, error = FIRST_ROUND.posterior(gains, [str(i) for i in range(len(gains))])
    if not gain > sure * error:
        return None
    mean = weigh(before, losses[best], least).before
    verdict = Verdict(mean, mean * math.exp(-gain), mean * error, len(judges), least, sure)
    return Recalled(kept[best].model, kept[best].architecture, verdict)
