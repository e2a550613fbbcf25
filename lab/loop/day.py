"""A device's day in the loop: what its camera captures, and the frames that score its models."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np

from endedge.data.coco import Dataset
from endedge.data.codec import Codec
from endedge.data.frames import Batch, stack_frames
from endedge.data.shift import Shift
from endedge.data.stream import Domain, Period, Segment, Stream, hold_out
from endedge.distill.model import DetectionModel, model_hash
from endedge.end.device import DeviceEnd, Sent
from endedge.lab.config import loop_of
from endedge.lab.inputs import Inputs

__all__ = ["Day", "evaluation_sets"]


class Day:
    """The day of device ``number`` of the loop, drawn from ``seed``; ``end`` takes its steps.

    Raises :class:`BadInput` for days that the frames cannot fill and unknown classes.
    """

    def __init__(self, inputs: Inputs, number: int, seed: int) -> None:
        self.inputs, self.number = inputs, number
        loop, names = loop_of(inputs.config), inputs.pool.names
        pool, _ = inputs.seen
        redacted = tuple(names.index(n) for n in loop.redact if n in names)
        codec = Codec.parse(inputs.config.uplink.codecs[0])
        self.end = DeviceEnd(codec, inputs.side, inputs.device, loop.select, redacted)
        days = {
            n: Domain(n, Shift(d.kind, d.severity), d.class_weights, n if d.frames else "")
            for n, d in loop.domains.items()
        }
        segments = [Segment(days[s.domain], s.periods, s.change) for s in loop.days[number]]
        period_s = inputs.config.link.period_s
        scored, monitored = evaluation_sets(inputs)

        def stream(evaluation: Dataset, eval_frames: int) -> Stream:
            return Stream(
                pool,
                evaluation,
                segments,
                period_s=period_s,
                capture_hz=loop.frames_per_period / period_s,
                eval_frames=eval_frames,
                seed=100 * seed + number,
            )

        self.stream = stream(scored, loop.eval_frames)
        self._monitor = stream(monitored, loop.monitor_frames)
        self._scores: dict[tuple[str, str, bool], float] = {}
        self._frames: dict[tuple[str, bool], Batch] = {}

    @property
    def periods(self) -> tuple[Period, ...]:
        return self.stream.periods

    def upload(
        self, period: int, model: DetectionModel, upload_bytes: float, *, redacted: bool = False
    ) -> Sent:
        """What was captured in ``period``, chosen by ``model``, within ``upload_bytes``."""
        seen, seed = self.periods[period].captured, self.stream.seed + period
        return self.end.upload(model, seen, upload_bytes, seed, redacted=redacted)

    def stacked(self, period: int) -> Batch:
        """The captured frames of a period with their annotations, as the device sees them."""
        return self.end.stack(self.periods[period].captured)

    @cached_property
    def frame_bytes(self) -> tuple[float, float]:
        """Mean and largest bytes of an encoded frame of the first period, framing included."""
        sizes = [len(self.end.encode([c]).batch) for c in self.periods[0].captured]
        return float(np.mean(sizes)), float(max(sizes))

    def score(self, model: DetectionModel, domain: Domain, *, monitor: bool = False) -> float:
        """mAP50-95 on the frames that stand for ``domain``; ``monitor``: on others of it, which
        decisions may see."""
        key = (model_hash(model), domain.name, monitor)
        if key not in self._scores:
            truth = (self._monitor if monitor else self.stream).evaluation(domain)
            if key[1:] not in self._frames:
                self._frames[key[1:]] = stack_frames(
                    truth.frames,
                    self.inputs.side,
                    lambda f: domain.shift.apply(f.read(), f.image_id),
                )
            self._scores[key] = self.end.evaluate(model, self._frames[key[1:]], truth).map
        return self._scores[key]


def evaluation_sets(inputs: Inputs) -> tuple[Dataset, Dataset]:
    """(frames for results, frames for decisions): the evaluation frames split in two, with ids
    that no captured frame has (generated sets count both from 1)."""
    loop, (pool, evaluation) = loop_of(inputs.config), inputs.seen
    above = max(f.image_id for f in pool.frames)
    moved = replace(
        evaluation,
        frames=tuple(replace(f, image_id=f.image_id + above) for f in evaluation.frames),
    )
    share = loop.monitor_frames / (loop.monitor_frames + loop.eval_frames)
    return hold_out(moved, max(1, round(share * len(moved))), seed=0)
