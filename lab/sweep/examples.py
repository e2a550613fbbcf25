"""What an update changes, on real frames: detections before and after, and objects gained and lost.

The frames are chosen by a rule, not by hand: of the first 256 evaluation frames with objects,
by the change of their F1 score, the best, the one at the upper quartile, the median, and the
worst. From the same frames come crops of what changed: objects that only one of the two models
finds and false alarms that only one of them raises, of every class the surest few. What was
counted is written beside what is shown. ``examples.json`` of a results folder holds all of it as
small JPEGs with their boxes; :mod:`endedge.lab.report.examples` draws them.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from endedge.data.coco import Frame
from endedge.distill.model import DetectionModel
from endedge.end.inference import Detections, detect
from endedge.end.metric import iou
from endedge.lab.devices import usable
from endedge.lab.inputs import Inputs

__all__ = ["KINDS", "compared"]

Boxes = NDArray[np.float64]
Picture = NDArray[np.uint8]

_MIN_SCORE = 0.25  # what a device would show; Ultralytics' default too
_MIN_IOU = 0.5
_CANDIDATES, _SIDE_PX, _QUALITY = 256, 416, 80
_RANKS = {"largest gain": 1.0, "upper quartile": 0.75, "median": 0.5, "largest loss": 0.0}

KINDS = ("gained", "lost", "alarm", "calmed")  # the last two: a false detection is new, or gone
_SHOWN_EACH, _SHOWN = 6, 96  # crops of a kind and class, and in all
_CROP_PX, _AROUND, _LEAST_PX = 144, 1.8, 24  # side, context as a factor of the box, smallest side


def compared(inputs: Inputs, before: DetectionModel, after: DetectionModel) -> dict[str, Any]:
    """The chosen frames with truth and both models' detections, as ``examples.json`` has them:
    boxes x, y, width, height in px of the embedded JPEG, scores, class names; ``changes``: crops
    of what one model finds and the other does not, ``counts`` of them by class."""
    at = [k for k, f in enumerate(inputs.evaluation.frames) if len(f.boxes)]
    at = [k for k in at if not inputs.evaluation.frames[k].crowd.any()][:_CANDIDATES]
    frames = inputs.evaluation_batch.take(at)
    truth = [inputs.evaluation.frames[k] for k in at]
    device = usable(inputs.device)  # who started a sweep need not have what it ran on
    seen = [detect(model, frames, device=device) for model in (before, after)]
    found = [[_shown(d) for d in detections] for detections in seen]
    judged = [[_judged(d, f) for d, f in zip(side, truth, strict=True)] for side in found]
    gain = np.array([_f1(a, f) - _f1(b, f) for b, a, f in zip(*judged, truth, strict=True)])
    order = np.argsort(gain, kind="stable")
    ranks = {int(order[round(q * (len(order) - 1))]): name for name, q in _RANKS.items()}
    names = inputs.evaluation.names
    changes = [
        change
        for frame, b, a in zip(truth, found[0], found[1], strict=True)
        for change in _changes(frame, b, a)
    ]
    return {
        "score": _MIN_SCORE,
        "iou": _MIN_IOU,
        "of": len(at),
        "frames": [
            _picture(inputs, truth[k], names)
            | {
                "rank": rank,
                "before": _boxes(found[0][k], judged[0][k], names),
                "after": _boxes(found[1][k], judged[1][k], names),
            }
            for k, rank in ranks.items()
        ],
        "counts": _counts(truth, changes, names),
        "changes": [_crop(inputs, change, names) for change in _chosen(changes)],
    }


def _shown(seen: Detections) -> Detections:
    """The detections that a device would show."""
    keep = seen.scores >= _MIN_SCORE
    return Detections(seen.image_id, seen.boxes[keep], seen.scores[keep], seen.labels[keep])


def _matched(seen: Detections, frame: Frame) -> list[int]:
    """The object that each detection finds, −1 for none: best first, each object once, class and
    IoU right."""
    free = np.ones(len(frame.boxes), dtype=bool)
    objects = []
    for box, label in zip(seen.boxes, seen.labels, strict=True):
        overlap = np.where(free & (frame.labels == label), iou(box[None], frame.boxes)[0], 0.0)
        best = int(overlap.argmax())
        objects.append(best if overlap[best] >= _MIN_IOU else -1)
        if objects[-1] >= 0:
            free[best] = False
    return objects


def _judged(seen: Detections, frame: Frame) -> list[bool]:
    """Which detections find an object."""
    return [k >= 0 for k in _matched(seen, frame)]


def _f1(right: Sequence[bool], frame: Frame) -> float:
    return 2 * sum(right) / max(len(right) + len(frame.boxes), 1)


# What changed ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Change:
    """A detection that only one of the models has: its kind, class and score, its box, and that
    of the object it finds (None: it is false)."""

    kind: str
    frame: Frame
    label: int
    score: float
    box: Boxes
    truth: Boxes | None


def _changes(frame: Frame, before: Detections, after: Detections) -> list[_Change]:
    """Objects that only one model finds; false detections of one that the other has not where IoU
    and class are right, which says that the alarm is new (or gone), not that it has moved."""
    found = []
    sides = (_matched(before, frame), _matched(after, frame))
    for mine, theirs, side, other, right, wrong in (
        (after, before, sides[1], sides[0], "gained", "alarm"),
        (before, after, sides[0], sides[1], "lost", "calmed"),
    ):
        for k, at in enumerate(side):
            box, label = mine.boxes[k], int(mine.labels[k])
            if at < 0:
                same = theirs.labels == label
                alike = (iou(box[None], theirs.boxes[same]) >= _MIN_IOU).any()
                if not alike:
                    found.append(_Change(wrong, frame, label, float(mine.scores[k]), box, None))
            elif at not in other:
                truth = frame.boxes[at].astype(np.float64)
                found.append(_Change(right, frame, label, float(mine.scores[k]), box, truth))
    return found


def _counts(
    truth: Sequence[Frame], changes: Iterable[_Change], names: Sequence[str]
) -> list[dict[str, Any]]:
    """By class: objects in these frames, and how many changes of each kind."""
    objects = Counter(int(label) for frame in truth for label in frame.labels)
    kinds = Counter((change.label, change.kind) for change in changes)
    labels = sorted({*objects, *(label for label, _ in kinds)})
    return [
        {"name": names[k], "objects": objects[k], **{kind: kinds[k, kind] for kind in KINDS}}
        for k in labels
    ]


def _chosen(changes: Sequence[_Change]) -> list[_Change]:
    """The surest of every kind and class, large enough to be seen; turn by turn, so that no class
    takes all of the room."""
    groups: dict[tuple[str, int], list[_Change]] = {}
    for change in sorted(changes, key=lambda c: -c.score):
        if max(change.box[2:]) >= min(
            _LEAST_PX, 0.1 * max(change.frame.width, change.frame.height)
        ):
            groups.setdefault((change.kind, change.label), []).append(change)
    turns = [
        group[turn] for turn in range(_SHOWN_EACH) for group in groups.values() if turn < len(group)
    ][:_SHOWN]
    return sorted(turns, key=lambda c: (KINDS.index(c.kind), c.label, -c.score))


def _crop(inputs: Inputs, change: _Change, names: Sequence[str]) -> dict[str, Any]:
    """A square around the boxes as the device's camera saw it; boxes in px of that picture."""
    boxes = [change.box] if change.truth is None else [change.box, change.truth]
    low = np.min([b[:2] for b in boxes], axis=0)
    high = np.max([b[:2] + b[2:] for b in boxes], axis=0)
    image = Image.fromarray(_seen(inputs, change.frame))
    side = min(max(_AROUND * float((high - low).max()), _LEAST_PX), *image.size)
    corner = np.clip((low + high) / 2 - side / 2, 0, np.array(image.size) - side)
    scale = _CROP_PX / side
    left, top = (float(v) for v in corner)
    small = image.resize((_CROP_PX, _CROP_PX), box=(left, top, left + side, top + side))

    def moved(box: Boxes) -> list[float]:
        return [float(v) for v in (*((box[:2] - corner) * scale), *(box[2:] * scale))]

    return {
        "kind": change.kind,
        "name": names[change.label],
        "score": change.score,
        "image_id": change.frame.image_id,
        "side": _CROP_PX,
        "box": moved(change.box),
        "object": None if change.truth is None else moved(change.truth),
        "jpeg": _jpeg(small),
    }


# Pictures -------------------------------------------------------------------------------------


def _seen(inputs: Inputs, frame: Frame) -> Picture:
    return inputs.camera.apply(frame.read(), frame.image_id)


def _jpeg(image: Image.Image) -> str:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=_QUALITY)
    return base64.b64encode(out.getvalue()).decode()


def _picture(inputs: Inputs, frame: Frame, names: Sequence[str]) -> dict[str, Any]:
    """The frame as the device's camera saw it, small; its objects in px of that picture."""
    image = Image.fromarray(_seen(inputs, frame))
    scale = min(1.0, _SIDE_PX / max(image.size))
    small = image.resize((round(image.width * scale), round(image.height * scale)))
    return {
        "image_id": frame.image_id,
        "scale": small.width / image.width,
        "width": small.width,
        "height": small.height,
        "jpeg": _jpeg(small),
        "objects": [
            {"box": [float(v) for v in box], "name": names[label]}
            for box, label in zip(frame.boxes, frame.labels, strict=True)
        ],
    }


def _boxes(seen: Detections, right: Sequence[bool], names: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"box": [float(v) for v in box], "score": float(score), "name": names[label], "right": ok}
        for box, score, label, ok in zip(seen.boxes, seen.scores, seen.labels, right, strict=True)
    ]
