"""The device's half of a round: capture → select → encode, then apply → evaluate.

Each step is a method of :class:`DeviceEnd` and follows from its arguments alone: there is no store
and no clock here. A cell of the surface, a round of the loop and a device behind a socket take
the same steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from endedge.data.coco import Dataset
from endedge.data.codec import Codec
from endedge.data.errors import BadInput
from endedge.data.frames import Batch, stack_frames
from endedge.data.stream import Captured
from endedge.distill.envelope import builds_on
from endedge.distill.model import DetectionModel, model_hash
from endedge.distill.package.format import unpack
from endedge.end.capture import covered, encode_batch, redact
from endedge.end.metric import CocoScore, evaluate
from endedge.end.replicates import evaluate_resampled
from endedge.end.selection import Observations, observe, select

__all__ = ["DeviceEnd", "Picture", "Sent"]

Picture = NDArray[np.uint8]

_MIN_SCORE = 0.1  # of a detection that is redacted: to blur too much costs less than too little


@dataclass(frozen=True)
class Sent:
    """One upload: the ``batch`` of ``frames`` frames; of the ``identifiable`` true boxes in
    them, ``exposed`` have more than half of their area outside every blur (0, 0 where nothing is
    redacted)."""

    batch: bytes
    frames: int
    identifiable: int = 0
    exposed: int = 0


@dataclass(frozen=True)
class DeviceEnd:
    """A device that orders frames by ``rule`` (see :mod:`endedge.end.selection`), encodes them
    with ``codec`` and detects on squares of ``side`` px, computing on ``device``. ``redacted``:
    the class indices that :meth:`upload` blurs where it is told to."""

    codec: Codec
    side: int
    device: str
    rule: str = "random"
    redacted: tuple[int, ...] = ()

    # Capture, select, encode ---------------------------------------------------------------

    def capture(self, captured: Sequence[Captured]) -> dict[int, Picture]:
        """The pictures as the camera gave them, by image id."""
        return {c.frame.image_id: c.look() for c in captured}

    def stack(self, captured: Sequence[Captured], shots: Mapping[int, Any] | None = None) -> Batch:
        """The same as the detector sees them, with their annotations; ``shots``: their pictures,
        if they were taken already."""
        shots = self.capture(captured) if shots is None else shots
        return stack_frames([c.frame for c in captured], self.side, lambda f: shots[f.image_id])

    def select(
        self,
        model: DetectionModel,
        captured: Sequence[Captured],
        shots: Mapping[int, Picture],
        seed: int,
    ) -> tuple[list[int], Observations]:
        """In which order the frames go up by what ``model``, on the device, sees in them, and what
        that is."""
        times = [c.time_s for c in captured]
        watched = observe(model, self.stack(captured, shots), times, device=self.device)
        return [int(i) for i in select(self.rule, watched, seed)], watched

    def encode(self, captured: Sequence[Captured], upload_bytes: float = math.inf) -> Sent:
        """The first of ``captured`` that fit into ``upload_bytes``, as one batch."""
        return Sent(
            *encode_batch(
                ((c.frame.image_id, c.look()) for c in captured), self.codec, upload_bytes
            )
        )

    def upload(
        self,
        model: DetectionModel,
        captured: Sequence[Captured],
        upload_bytes: float,
        seed: int,
        *,
        redacted: bool = False,
    ) -> Sent:
        """All three: of the frames ``captured``, those that ``model`` chooses first and that fit
        into ``upload_bytes``. Raises :class:`BadInput` if no class is to be ``redacted``."""
        shots = self.capture(captured)
        order, watched = self.select(model, captured, shots, seed)
        blurred = {}
        if redacted:
            if not self.redacted:
                raise BadInput("loop.redact names no class of these frames")
            for detected in watched.detections:
                kept = (detected.scores >= _MIN_SCORE) & np.isin(detected.labels, self.redacted)
                blurred[detected.image_id] = detected.boxes[kept]
                shots[detected.image_id] = redact(shots[detected.image_id], detected.boxes[kept])
        ordered = [captured[i].frame for i in order]
        batch, n = encode_batch(
            ((f.image_id, shots[f.image_id]) for f in ordered), self.codec, upload_bytes
        )
        if not redacted:
            return Sent(batch, n)
        truth = [(f.image_id, f.boxes[np.isin(f.labels, self.redacted)]) for f in ordered[:n]]
        total = sum(len(boxes) for _, boxes in truth)
        hidden = sum(covered(np.asarray(b, np.float64), blurred[i]) for i, b in truth)
        return Sent(batch, n, total, total - hidden)

    # Apply, evaluate -----------------------------------------------------------------------

    def apply(
        self,
        package: bytes,
        running: DetectionModel,
        kept: Callable[[str], DetectionModel | None] = lambda needed: None,
    ) -> DetectionModel:
        """What the device runs once it has decoded ``package`` on top of what it is ``running``, or
        of a model that it has ``kept``, found by its hash (32 hex digits). Raises
        :class:`BadInput` for one that it cannot use; its model then stays."""
        needed = builds_on(package)
        if needed is not None and needed != model_hash(running)[:32]:
            running = kept(needed) or running
        return unpack(package, base=running)

    def apply_file(self, package: Path, running: DetectionModel) -> DetectionModel:
        """The same for a package on disk, which errors name."""
        try:
            return self.apply(package.read_bytes(), running)
        except BadInput as error:
            raise BadInput(f"{package}: {error}") from None

    def evaluate(self, model: DetectionModel, frames: Batch, truth: Dataset) -> CocoScore:
        """COCO mAP of ``model`` on ``frames``: the pictures of ``truth`` as it sees them."""
        return evaluate(model, frames, truth, self.device)

    def resampled(
        self, model: DetectionModel, frames: Batch, truth: Dataset, draws: NDArray[np.int64]
    ) -> tuple[CocoScore, NDArray[np.float64]]:
        """The same, and mAP on ``draws`` of the frames (see :mod:`endedge.end.replicates`)."""
        return evaluate_resampled(model, frames, truth, draws, self.device)
