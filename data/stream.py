"""A device's day: a seeded sequence of segments, each a domain, over annotated frames.

A :class:`Domain` is what the camera sees and how: a shift, and a mix of classes. A
:class:`Segment` stays in one domain for some periods, entered suddenly or gradually; a domain
that occurs again is the *same* domain, with the same evaluation frames, so that what was
forgotten meanwhile shows. Frames are captured at a fixed rate from one set and evaluated on
another that shares no image with it: an evaluation frame cannot be uploaded, for it is not
captured.

Gradual change follows the usual two forms of concept drift at once (J. Gama et al., *A Survey
on Concept Drift Adaptation*, ACM Computing Surveys 2014): over the segment, a growing share of
frames is of the new domain, and those at a growing severity.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from endedge.data.coco import Dataset, Frame, nested_subset
from endedge.data.errors import BadInput
from endedge.data.shift import Shift

__all__ = ["Captured", "Domain", "Period", "Segment", "Stream", "hold_out"]

_MAX_CAPTURED = 10**6


@dataclass(frozen=True)
class Domain:
    """What a device sees for a while: ``shift`` of its camera, and ``class_weights`` by class
    name (1 for those not named). A frame comes with probability in proportion to the mean weight
    of its boxes' classes (1 without boxes), one of another ``source`` never. ``name`` is what tells
    domains apart."""

    name: str
    shift: Shift = field(default_factory=Shift)
    class_weights: Mapping[str, float] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        for name, weight in self.class_weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise BadInput(f"domain {self.name!r}: weight {weight} of class {name!r}; >= 0")


@dataclass(frozen=True)
class Segment:
    """``periods`` periods in ``domain``; ``change`` says how it begins: ``sudden``, or
    ``gradual`` over the whole segment from the one before (the first has none before it)."""

    domain: Domain
    periods: int
    change: Literal["sudden", "gradual"] = "sudden"

    def __post_init__(self) -> None:
        if self.periods < 1:
            raise BadInput(f"segment {self.domain.name!r} has {self.periods} periods; at least 1")
        if self.change not in ("sudden", "gradual"):
            raise BadInput(f"segment {self.domain.name!r}: change {self.change!r}; sudden, gradual")


@dataclass(frozen=True, eq=False)
class Captured:
    """One captured frame: its annotation (for truth), ``time_s`` since the start of the stream,
    and the ``shift`` it was seen through."""

    frame: Frame
    time_s: float
    shift: Shift

    def look(self) -> NDArray[np.uint8]:
        """The picture as the device's camera gave it, (H, W, 3) uint8 RGB."""
        return self.shift.apply(self.frame.read(), self.frame.image_id)


@dataclass(frozen=True, eq=False)
class Period:
    """One period of the stream: its number, start, segment number, the segment's domain, whether
    that domain has been left before and come back, and what was captured. An image id occurs at
    most once within a period."""

    index: int
    start_s: float
    segment: int
    domain: Domain
    returning: bool
    captured: tuple[Captured, ...]


class Stream:
    """Periods of ``period_s`` s in which a camera captures ``capture_hz`` frames a second.

    ``capture`` are the frames that may be captured (and uploaded), ``evaluation`` those that may
    not; ``eval_frames`` of them (or all there are) stand for each domain. Everything follows
    from the arguments and ``seed``. A domain's frames come in a fixed random order that is taken
    up again where it was left, so frames repeat only when the domain has no more.

    ``periods``: the :class:`Period` s in order. ``domains``: each domain once, by first
    appearance. Raises :class:`BadInput` for sets that share an image, an unknown class in a
    domain, one name for two domains, a period that captures nothing or more frames than a
    domain has, and a stream of more than a million frames.
    """

    def __init__(
        self,
        capture: Dataset,
        evaluation: Dataset,
        segments: Sequence[Segment],
        *,
        period_s: float,
        capture_hz: float,
        eval_frames: int,
        seed: int,
    ) -> None:
        self.segments = tuple(segments)
        self.period_s, self.capture_hz, self.seed = float(period_s), float(capture_hz), seed
        self.domains = _distinct(self.segments)
        rate = self.period_s * self.capture_hz
        total = rate * sum(s.periods for s in self.segments)
        if not (rate >= 1 and total <= _MAX_CAPTURED):
            raise BadInput(
                f"{rate:g} frames a period, {total:g} in all; period_s * capture_hz gives at "
                f"least 1 a period, at most {_MAX_CAPTURED} in all"
            )
        shared = {f.image_id for f in capture.frames} & {f.image_id for f in evaluation.frames}
        if shared:
            raise BadInput(
                f"{len(shared)} images are both captured and evaluated (image {min(shared)}); "
                "give sets that share none"
            )
        if capture.names != evaluation.names:
            raise BadInput("captured and evaluation frames are labelled in different classes")
        if eval_frames < 1:
            raise BadInput(f"{eval_frames} evaluation frames; at least 1")
        self._evaluation = {
            d.name: evaluation.take(_weighted_order(evaluation, d, seed)[:eval_frames])
            for d in self.domains
        }
        orders = {d.name: _weighted_order(capture, d, seed) for d in self.domains}
        for name, order in orders.items():
            if len(order) < math.ceil(rate):
                raise BadInput(
                    f"domain {name!r} has {len(order)} frames to capture; "
                    f"{math.ceil(rate)} are captured a period"
                )
        self.periods = tuple(self._walk(capture, orders))

    def evaluation(self, domain: Domain) -> Dataset:
        """The evaluation frames of ``domain``, to be seen through ``domain.shift``: the same
        each time the domain returns, and never captured."""
        return self._evaluation[domain.name]

    def _walk(self, capture: Dataset, orders: Mapping[str, list[int]]) -> Iterator[Period]:
        cursor = dict.fromkeys(orders, 0)
        rng = np.random.default_rng([self.seed, 0x57BEA])
        index, previous = 0, self.segments[0].domain
        seen: set[str] = set()
        for number, segment in enumerate(self.segments):
            began = index
            returning = segment.domain.name in seen - {previous.name}
            for index in range(began, began + segment.periods):
                captured, taken = [], set()
                for time_s in self._times(index):
                    domain, shift = segment.domain, segment.domain.shift
                    if segment.change == "gradual":
                        share = (time_s / self.period_s - began) / segment.periods
                        if rng.random() >= share:
                            domain, shift = previous, previous.shift
                        elif domain != previous:
                            shift = replace(shift, severity=math.ceil(share * shift.severity))
                    order = orders[domain.name]
                    while (at := order[cursor[domain.name] % len(order)]) in taken:
                        cursor[domain.name] += 1
                    taken.add(at)
                    cursor[domain.name] += 1
                    captured.append(Captured(capture.frames[at], time_s, shift))
                start_s = index * self.period_s
                yield Period(index, start_s, number, segment.domain, returning, tuple(captured))
            index, previous = began + segment.periods, segment.domain
            seen.add(previous.name)

    def _times(self, index: int) -> list[float]:
        """When frames are captured in period ``index``: every 1 / capture_hz s from time 0."""
        rate = self.period_s * self.capture_hz
        first, last = (math.ceil(round(i * rate, 6)) for i in (index, index + 1))
        return [count / self.capture_hz for count in range(first, last)]


def hold_out(dataset: Dataset, eval_frames: int, seed: int) -> tuple[Dataset, Dataset]:
    """Split one set into (frames to capture, ``eval_frames`` to evaluate), by the seed.

    Raises :class:`BadInput` unless both sides get at least one frame.
    """
    if not 0 < eval_frames < len(dataset):
        raise BadInput(f"cannot hold out {eval_frames} of {len(dataset)} frames")
    order = nested_subset(len(dataset), seed)
    return dataset.take(sorted(order[eval_frames:])), dataset.take(sorted(order[:eval_frames]))


def _distinct(segments: Sequence[Segment]) -> tuple[Domain, ...]:
    if not segments:
        raise BadInput("a stream needs at least one segment")
    found: dict[str, Domain] = {}
    for segment in segments:
        if found.setdefault(segment.domain.name, segment.domain) != segment.domain:
            raise BadInput(f"two different domains are called {segment.domain.name!r}")
    return tuple(found.values())


def _weighted_order(dataset: Dataset, domain: Domain, seed: int) -> list[int]:
    """The frames of a domain: drawn one after the other without replacement in proportion to
    their weight (keys u^(1/w): P. Efraimidis, P. Spirakis, *Weighted random sampling with a
    reservoir*, 2006). It stops at Kish's effective number (Σw)² / Σw², where the heavy frames
    are used up and the rest would no longer be of the wanted mix."""
    unknown = sorted(set(domain.class_weights) - set(dataset.names))
    if unknown:
        raise BadInput(f"domain {domain.name!r} weighs an unknown class: {unknown[0]!r}")
    weight_of = np.array([domain.class_weights.get(name, 1.0) for name in dataset.names])
    weights = np.array(
        [weight_of[f.labels].mean() if len(f.labels) else 1.0 for f in dataset.frames]
    )
    weights *= [f.source == domain.source for f in dataset.frames]
    if not weights.any():
        raise BadInput(f"domain {domain.name!r} has no frame: every class it could see weighs 0")
    salt = int.from_bytes(hashlib.sha256(domain.name.encode()).digest()[:8], "little")
    rng = np.random.default_rng([seed, salt])
    with np.errstate(divide="ignore"):
        keys = np.log(1 - rng.random(len(weights))) / weights  # -inf at weight 0
    effective = round(weights.sum() ** 2 / (weights**2).sum())
    order = np.argsort(-keys, kind="stable")[: max(1, effective)]
    return [int(i) for i in order if weights[i] > 0]
