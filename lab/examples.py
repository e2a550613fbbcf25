"""What an update changes, on real frames: detections before and after, side by side.

The frames are chosen by a rule, not by hand: of the first 64 evaluation frames with objects,
by the change of their F1 score, the best, the one at the upper quartile, the median, and the
worst. ``examples.json`` of a results folder holds them as small JPEGs with their boxes.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from endedge.data.coco import Frame, read_image
from endedge.data.units import BadInput
from endedge.distill.model import DetectionModel
from endedge.end.inference import Detections, detect
from endedge.lab.tables import text
from endedge.lab.world import World

__all__ = ["compared", "gallery", "read_examples"]

Boxes = NDArray[np.float64]

_MIN_SCORE = 0.25  # what a device would show; Ultralytics' default too
_MIN_IOU = 0.5
_CANDIDATES, _SIDE_PX, _QUALITY = 64, 416, 80
_RANKS = {"largest gain": 1.0, "upper quartile": 0.75, "median": 0.5, "largest loss": 0.0}
_MAX_FILE_BYTES = 8 * 2**20


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
    image = Image.fromarray(world.camera.apply(read_image(frame.path), frame.image_id))
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


def read_examples(path: Path) -> dict[str, Any] | None:
    """``examples.json``, or None where there is none. Raises :class:`BadInput` for a broken
    one; everything in it is checked before it reaches a page."""
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ValueError(f"larger than {_MAX_FILE_BYTES} bytes")
        document: dict[str, Any] = json.loads(path.read_bytes())
        for frame in document["frames"]:
            if not re.fullmatch(r"[A-Za-z0-9+/=]+", frame["jpeg"]):
                raise ValueError("a frame that is not base64")
            drawn = [*frame["objects"], *frame["before"], *frame["after"]]
            numbers = [frame["width"], frame["height"], frame["scale"], document["score"]]
            numbers += [v for one in drawn for v in (*one["box"], one.get("score", 0.0))]
            if not all(math.isfinite(float(v)) for v in numbers):
                raise ValueError("a number that is not finite")
            if any(len(one["box"]) != 4 for one in drawn):
                raise ValueError("a box that is not x, y, width, height")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(
            f"{path} holds no examples ({error}); remove it and run 'endedge measure' again"
        ) from None
    return document


def gallery(examples: dict[str, Any]) -> str:
    """The frames as HTML: before and after side by side, objects dashed, boxes drawn as SVG."""
    return f"<div class=gallery>{''.join(_pair(frame) for frame in examples['frames'])}</div>"


def _pair(frame: dict[str, Any]) -> str:
    panels = []
    for when in ("before", "after"):
        hits = sum(bool(one["right"]) for one in frame[when])
        wrong = len(frame[when]) - hits
        said = f"{when}: {hits} of {len(frame['objects'])} found, {wrong} false"
        panels.append(
            f"<figure>{_drawn(frame, when)}<figcaption>{text(said)}</figcaption></figure>"
        )
    return f"<div><h4>{text(frame['rank'])}</h4><div class=pair>{''.join(panels)}</div></div>"


def _drawn(frame: dict[str, Any], when: str) -> str:
    width, height, scale = float(frame["width"]), float(frame["height"]), float(frame["scale"])
    line = max(width, height) / 160  # the same on the screen, however small the frame
    source = f"data:image/jpeg;base64,{frame['jpeg']}"
    parts = [f'<image width="{width:g}" height="{height:g}" href="{source}"/>']
    for one in frame["objects"]:
        parts.append(_rectangle(one["box"], scale, "object", line))
    for one in reversed(frame[when]):  # the surest on top
        kind = "right" if one["right"] else "false"
        parts.append(_rectangle(one["box"], scale, kind, line))
        x, y = float(one["box"][0]) * scale, max(float(one["box"][1]) * scale, 6 * line)
        label = text(f"{one['name']} {100 * float(one['score']):.0f}")
        parts.append(
            f'<text class={kind} x="{x + line:.1f}" y="{y - line:.1f}" '
            f'font-size="{5.5 * line:.1f}" stroke-width="{1.2 * line:.1f}">{label}</text>'
        )
    label = text(f"detections {when} the update")
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )


def _rectangle(box: Sequence[float], scale: float, kind: str, line: float) -> str:
    x, y, w, h = (float(v) * scale for v in box)
    dash = f' stroke-dasharray="{3 * line:.1f}"' if kind == "object" else ""
    return (
        f'<rect class={kind} x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" '
        f'stroke-width="{line * (1.0 if kind == "object" else 1.5):.1f}"{dash}/>'
    )
