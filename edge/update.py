"""One update: what a device uploaded in, a package for it out.

The same steps answer an upload wherever it comes from: a cell of the surface, a round of the
simulated loop, or a job of the socket service.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from endedge.data.errors import BadInput
from endedge.distill.model import DetectionModel
from endedge.distill.package.choose import pack_best
from endedge.distill.package.format import Packed, pack, unpack
from endedge.distill.training import Recipe
from endedge.edge.adapt import Adapted, Upload, Verdict, adapt_teacher, compare, distil_student

__all__ = ["CALIBRATION_FRAMES", "Plan", "Update", "make_update", "pack_for", "pack_update"]

CALIBRATION_FRAMES = 32  #: of an upload, on which the packer looks


@dataclass(frozen=True)
class Plan:
    """How the edge answers: the recipes of both trainings, the gains of the student's loss terms
    (labels, scores, boxes), the ``shares`` of the way that are tried, the ``least`` held-back
    frames that it takes to send an answer, the packer's ``mode``."""

    teacher: Recipe
    student: Recipe
    gains: tuple[float, float, float]
    shares: Sequence[float]
    least: int
    mode: str
    device: str


@dataclass(frozen=True, eq=False)
class Update:
    """The answer. ``teacher`` and ``student`` before packing; ``decoded`` is what the device will
    hold; ``verdict``: the device's model now against ``decoded``, on the held-back frames."""

    teacher: Adapted
    student: Adapted
    packed: Packed
    decoded: DetectionModel
    verdict: Verdict
    seconds: float

    @property
    def helps(self) -> bool:
        """Whether the frames that no training saw say that it should be sent."""
        return self.verdict.helps


def make_update(
    plan: Plan,
    teacher: DetectionModel,
    student: DetectionModel,
    known: Upload,
    budget_bytes: int,
    *,
    base: DetectionModel,
    certain: bool = True,
    seed: int = 0,
) -> Update:
    """Adapt ``teacher`` to ``known``, distil ``student`` from it, pack in at most
    ``budget_bytes``. ``base`` is the model the device holds; where that is not ``certain``, a
    full package is preferred, which decodes on top of any. Raises
    :class:`~endedge.data.errors.BadInput` for a budget too small."""
    began = time.perf_counter()
    taught = adapt_teacher(teacher, known, plan.teacher, plan.shares, device=plan.device)
    learned = distil_student(
        student,
        taught.model,
        known,
        plan.student,
        plan.shares,
        gains=plan.gains,
        device=plan.device,
    )
    packed = pack_update(
        learned.model, budget_bytes, base, plan.mode, known, certain=certain, seed=seed
    )
    decoded = unpack(packed.data, base=base)
    verdict = compare(base, decoded, known.held_back, plan.least, plan.device)
    return Update(taught, learned, packed, decoded, verdict, time.perf_counter() - began)


def pack_update(
    student: DetectionModel,
    budget_bytes: int,
    base: DetectionModel,
    mode: str,
    known: Upload,
    *,
    pruned: Sequence[DetectionModel] = (),
    certain: bool = True,
    seed: int,
) -> Packed:
    """The package for a device that holds ``base``. Students ``pruned`` from the one given
    compete with it; a package of theirs is a full one."""
    frames = known.trained.images[:CALIBRATION_FRAMES]
    if not pruned:
        return pack_for(
            student, budget_bytes, base, mode, certain=certain, frames=frames, seed=seed
        )
    return pack_best(
        [student, *pruned],
        budget_bytes,
        base=base if certain and mode != "full" else None,
        frames=frames,
        unseen=known.held_back.images,
        seed=seed,
    )


def pack_for(
    student: DetectionModel,
    budget_bytes: int,
    base: DetectionModel,
    mode: str,
    *,
    certain: bool,
    frames: Tensor | None = None,
    seed: int = 0,
) -> Packed:
    """A package for a device that holds ``base``. Where that is not ``certain``, a full one,
    which decodes on top of any model; if none fits, a delta that the device refuses should it
    hold something else."""

    def one(mode: str) -> Packed:
        reference = None if mode == "full" else base
        return pack(student, budget_bytes, base=reference, frames=frames, seed=seed, mode=mode)

    if certain or mode == "full":
        return one(mode)
    try:
        return one("full")
    except BadInput:
        return one("delta")
