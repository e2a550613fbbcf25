"""What an update changes, on real frames: detections before and after, side by side.

The frames are chosen by a rule, not by hand: of the first 64 evaluation frames with objects,
by the change of their F1 score, the best, the one at the upper quartile, the median, and the
worst. ``examples.json`` of a results folder holds them as small JPEGs with their boxes;
:mod:`endedge.lab.report.examples` draws them.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from endedge.data.coco import Frame
from endedge.distill.model import DetectionModel
from endedge.end.inference import Detections, detect
from endedge.lab.inputs import World

__all__ = ["compared"]

Boxes = NDArray[np.float64]

_MIN_SCORE = 0.25  # what a device would show; Ultralytics' default too
_MIN_IOU = 0.5
_CANDIDATES, _SIDE_PX, _QUALITY = 64, 416, 80
_RANKS = {"largest gain": 1.0, "upper quartile": 0.75, "median": 0.5, "largest loss": 0.0}


def compared(world: World, before: DetectionModel, after: DetectionModel) -> dict[str, Any]:
    """The chosen frames with truth and both models' detections, as ``examples.json`` has them:
    boxes x, y, width, height in px of the embedded JPEG, scores, class names."""
    at = [k for k, f in enumerate(world.evaluation.frames) if len(f.boxes)]
    at = [k for k in at if not world.evaluation.frames[k].crowd.any()][:_CANDIDATES]
    frames = world.evaluation_batch.take(at)
    truth = [world.evaluation.frames[k] for k in at]
    seen = [detect(model, frames, device=world.device) for model in (before, after)]
    found = [[_shown(d) for d in detections] for detections in seen]
    judged = [[_judged(d, f) for d, f in zip(side, truth, strict=True)] for side in found]
    gain = np.array([_f1(a, f) - _f1(b, f) for b, a, f in zip(*judged, truth, strict=True)])
    order = np.argsort(gain, kind="stable")
    ranks = {int(order[round(q * (len(order) - 1))]): name for name, q in _RANKS.items()}
    names = world.evaluation.names
    return {
        "score": _MIN_SCORE,
        "iou": _MIN_IOU,
        "of": len(at),
        "frames": [
            _picture(world, truth[k], names)
            | {
                "rank": rank,
                "before": _boxes(found[0][k], judged[0][k], names),
                "after": _boxes(found[1][k], judged[1][k], names),
            }
            for k, rank in ranks.items()
        ],
    }


def _shown(seen: Detections) -> Detections:
    """The detections that a device would show."""
    keep = seen.scores >= _MIN_SCORE
    return Detections(seen.image_id, seen.boxes[keep], seen.scores[keep], seen.labels[keep])


def _judged(seen: Detections, frame: Frame) -> list[bool]:
    """Which detections find an object: best first, each object once, class and IoU right."""
    free = np.ones(len(frame.boxes), dtype=bool)
    right = []
    for box, label in zip(seen.boxes, seen.labels, strict=True):
        overlap = np.where(free & (frame.labels == label), _iou(box, frame.boxes), 0.0)
        best = int(overlap.argmax())
        right.append(bool(overlap[best] >= _MIN_IOU))
        free[best] &= not right[-1]
    return right


def _iou(box: Boxes, boxes: NDArray[np.float32]) -> Boxes:
    """IoU of one box with (n, 4), all x, y, width, height."""
    others = boxes.astype(np.float64)
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[:2] + box[2:], others[:, :2] + others[:, 2:])
    inside = np.clip(high - low, 0, None).prod(axis=1)
    return np.asarray(inside / np.maximum(box[2:].prod() + others[:, 2:].prod(1) - inside, 1e-9))


def _f1(right: Sequence[bool], frame: Frame) -> float:
    return 2 * sum(right) / max(len(right) + len(frame.boxes), 1)


def _picture(world: World, frame: Frame, names: Sequence[str]) -> dict[str, Any]:
    """The frame as the device's camera saw it, small; its objects in px of that picture."""
    image = Image.fromarray(world.camera.apply(frame.read(), frame.image_id))
    scale = min(1.0, _SIDE_PX / max(image.size))
    small = image.resize((round(image.width * scale), round(image.height * scale)))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=_QUALITY)
    return {
        "image_id": frame.image_id,
        "scale": small.width / image.width,
        "width": small.width,
        "height": small.height,
        "jpeg": base64.b64encode(out.getvalue()).decode(),
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
