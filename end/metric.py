"""COCO mAP of detections, by pycocotools, or by hotcoco where that is installed.

hotcoco (MIT, Rust; a dependency where it has wheels) computes the same figures; a test holds it to
pycocotools, the reference, to 1e-9 on real detections and on made-up hard cases.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from endedge.data.coco import Dataset
from endedge.data.frames import Batch
from endedge.distill.model import DetectionModel
from endedge.end.inference import Detections, detect

__all__ = ["FAST", "CocoScore", "coco_map", "evaluate", "iou", "matched"]

FAST = importlib.util.find_spec("hotcoco") is not None


@dataclass(frozen=True)
class CocoScore:
    """``map``: COCO mAP50-95 in [0, 1]; ``map50``: AP at IoU 0.5; ``images`` evaluated;
    ``classes``: of each class with objects their number and its AP50-95."""

    map: float
    map50: float
    images: int
    classes: Mapping[str, tuple[int, float]] = field(default_factory=dict)


def coco_map(truth: Dataset, detections: Sequence[Detections], *, fast: bool = FAST) -> CocoScore:
    """Score ``detections`` of all frames of ``truth`` (bbox, all areas, 100 detections).

    Classes without a box in ``truth`` do not count, as in COCOeval. With no boxes at all the
    score is 0, not COCOeval's −1. ``fast``: by hotcoco.
    """
    run = _matched(truth, detections, fast)
    if run is None:
        return CocoScore(0.0, 0.0, len(truth), _by_class(truth, None))
    with contextlib.redirect_stdout(io.StringIO()):
        run.accumulate()
    precision = np.asarray(run.eval["precision"])[:, :, :, 0, 0]  # iou, recall, class
    by_class = _by_class(truth, precision)
    return CocoScore(_mean(precision), _mean(precision[0]), len(truth), by_class)


def matched(
    truth: Dataset, detections: Sequence[Detections], *, fast: bool = FAST
) -> list[dict[str, Any]]:
    """Which detections find which boxes: COCOeval's ``evalImgs``, one entry a class and frame
    that has any of either, by class and frame. Empty where nothing was detected."""
    run = _matched(truth, detections, fast)
    return [] if run is None else [entry for entry in run.evalImgs if entry is not None]


def _matched(truth: Dataset, detections: Sequence[Detections], fast: bool) -> Any:
    """COCOeval with every detection matched; None where there is none."""
    ids = np.array(truth.category_ids, np.float64)
    results = np.concatenate(
        [np.zeros((0, 7))]
        + [
            np.column_stack(
                [
                    np.full(len(d.scores), d.image_id),
                    d.boxes.reshape(-1, 4),
                    d.scores,
                    ids[d.labels],
                ]
            )
            for d in detections
        ]
    )
    if not len(results):
        return None
    with contextlib.redirect_stdout(io.StringIO()):
        run = _compared(_as_coco(truth), results, fast)
        run.params.areaRng, run.params.areaRngLbl = run.params.areaRng[:1], ["all"]
        run.params.maxDets = [100]  # only what mAP and mAP50 need; the values stay the same
        run.evaluate()
    return run


def _compared(truth: dict[str, Any], results: Any, fast: bool) -> Any:
    if fast:
        library = importlib.import_module("hotcoco")
        truth_set = library.COCO(truth)
        return library.COCOeval(truth_set, truth_set.load_res(results), "bbox")
    truth_set = COCO()
    truth_set.dataset = truth
    truth_set.createIndex()
    return COCOeval(truth_set, truth_set.loadRes(results), "bbox")


def evaluate(
    model: DetectionModel, frames: Batch, truth: Dataset, device: str = "cpu"
) -> CocoScore:
    """Detect on ``frames`` (the pictures of ``truth``, same order) and score."""
    return coco_map(truth, detect(model, frames, device=device))


def _by_class(truth: Dataset, precision: Any) -> dict[str, tuple[int, float]]:
    """``precision`` (iou, recall, class); None: nothing was detected."""
    objects = np.zeros(len(truth.names), np.int64)
    for frame in truth.frames:
        np.add.at(objects, frame.labels[~frame.crowd], 1)
    # COCOeval sorts its categories by id
    place = {k: at for at, k in enumerate(np.argsort(truth.category_ids, kind="stable"))}
    return {
        name: (int(n), 0.0 if precision is None else _mean(precision[:, :, place[k]]))
        for k, (name, n) in enumerate(zip(truth.names, objects, strict=True))
        if n
    }


def _mean(precision: Any) -> float:
    valid = precision[precision > -1]
    return float(valid.mean()) if valid.size else 0.0


def _as_coco(truth: Dataset) -> dict[str, Any]:
    annotations = [
        {
            "id": 0,
            "image_id": f.image_id,
            "category_id": truth.category_ids[int(label)],
            "bbox": [float(v) for v in box],
            "area": float(box[2]) * float(box[3]),
            "iscrowd": int(crowd),
        }
        for f in truth.frames
        for box, label, crowd in zip(f.boxes, f.labels, f.crowd, strict=True)
    ]
    for number, entry in enumerate(annotations, 1):
        entry["id"] = number
    return {
        "images": [{"id": f.image_id, "width": f.width, "height": f.height} for f in truth.frames],
        "annotations": annotations,
        "categories": [
            {"id": i, "name": n} for i, n in zip(truth.category_ids, truth.names, strict=True)
        ],
    }


def iou(a: NDArray[Any], b: NDArray[Any], crowd: NDArray[np.bool_] | None = None) -> NDArray[Any]:
    """(n, m) IoU in [0, 1] of x, y, width, height boxes ``a`` (n, 4) and ``b`` (m, 4), as COCOeval
    has it: against a ``crowd`` (m,) of ``b`` the share of ``a`` inside it."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, :2] + a[:, None, 2:], b[None, :, :2] + b[None, :, 2:])
    shared = (high - low).clip(0).prod(2)
    area_a, area_b = a[:, 2:].prod(1)[:, None], b[:, 2:].prod(1)[None]
    union = area_a + area_b - shared
    if crowd is not None:
        union = np.where(crowd, area_a, union)
    return np.asarray(shared / np.maximum(union, 1e-12))
