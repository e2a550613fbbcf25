"""COCO mAP on bootstrap draws of the evaluation frames, exactly, without evaluating again.

mAP does not add over frames, so its error cannot be had from scores of single frames. Detections
and boxes are matched once, frame by frame, and every draw counts the frames as often as it drew
them: precision and recall are then weighted sums (B. Efron, R. Tibshirani, *An Introduction to the
Bootstrap*, 1993). Where frames come in groups (a scene, a flight) the groups are drawn.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from endedge.data.coco import Dataset
from endedge.data.errors import BadInput
from endedge.end.inference import Detections
from endedge.end.metric import _as_coco

__all__ = ["draws_of", "map_replicates"]

Floats = NDArray[np.float64]

REPLICATES = 200
_RECALL = np.linspace(0.0, 1.0, 101)


def draws_of(
    frames: int, groups: Sequence[Hashable] | None = None, count: int = REPLICATES, seed: int = 0
) -> NDArray[np.int64]:
    """How often each of ``frames`` is in each of ``count`` draws (count, frames); ``groups``: of
    each frame, which are then drawn whole. The same arguments give the same draws, so that the
    replicates of all models are paired.

    Raises :class:`BadInput` for groups that are not one a frame.
    """
    if groups is not None and len(groups) != frames:
        raise BadInput(f"{len(groups)} groups for {frames} frames; give one a frame")
    number = {key: i for i, key in enumerate(dict.fromkeys(groups or range(frames)))}
    of_frame = np.array([number[key] for key in (groups or range(frames))])
    rng, n = np.random.default_rng(seed), len(number)
    drawn = rng.multinomial(n, np.full(n, 1.0 / n), size=count)
    return np.asarray(drawn[:, of_frame], dtype=np.int64)


def map_replicates(
    truth: Dataset, detections: Sequence[Detections], draws: NDArray[np.int64]
) -> Floats:
    """mAP50-95 in [0, 1] of ``detections`` on each of ``draws`` (replicates, frames of ``truth``),
    as COCOeval defines it: all areas, 100 detections, classes without a box in a draw left out.
    Returns (replicates,); 0 for a draw without any box."""
    position = {f.image_id: i for i, f in enumerate(truth.frames)}
    results = [
        [d.image_id, *box, score, truth.category_ids[label]]
        for d in detections
        for box, score, label in zip(d.boxes, d.scores, d.labels, strict=True)
    ]
    if not results:
        return np.zeros(len(draws))
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = _as_coco(truth)
        known.createIndex()
        run = COCOeval(known, known.loadRes(np.asarray(results, np.float64)), "bbox")
        run.params.areaRng, run.params.areaRngLbl = run.params.areaRng[:1], ["all"]
        run.params.maxDets = [100]
        run.evaluate()
    frames, thresholds = len(run.params.imgIds), len(run.params.iouThrs)
    total, classes = np.zeros(len(draws)), np.zeros(len(draws))
    for k in range(len(run.params.catIds)):
        seen = [e for e in run.evalImgs[k * frames : (k + 1) * frames] if e is not None]
        if not seen:
            continue
        at = np.array([position[e["image_id"]] for e in seen])
        boxes = np.array([np.sum(np.asarray(e["gtIgnore"]) == 0) for e in seen])
        positives = draws[:, at] @ boxes
        there = positives > 0
        precision = _precision(seen, draws[:, at], positives, thresholds)
        total += np.where(there, precision, 0.0)
        classes += there
    return np.asarray(total / np.maximum(classes, 1))


def _precision(
    seen: Sequence[dict[str, object]],
    draws: NDArray[np.int64],
    positives: NDArray[np.int64],
    thresholds: int,
) -> Floats:
    """Mean over recall and IoU thresholds of the interpolated precision of one class, a draw."""
    scores = np.concatenate([np.asarray(e["dtScores"], float) for e in seen])
    if len(scores) == 0:
        return np.zeros(len(draws))
    order = np.argsort(-scores, kind="mergesort")
    frame = np.repeat(np.arange(len(seen)), [len(np.asarray(e["dtScores"])) for e in seen])[order]
    matched = np.concatenate([np.asarray(e["dtMatches"]) for e in seen], axis=1)[:, order] > 0
    ignored = np.concatenate([np.asarray(e["dtIgnore"]) for e in seen], axis=1)[:, order] > 0
    weight = draws[:, frame]
    found = np.zeros(len(draws))
    for t in range(thresholds):
        right = np.flatnonzero(matched[t] & ~ignored[t])
        if len(right) == 0:
            continue
        counted = np.cumsum(weight * ~ignored[t], axis=1)[:, right]
        hits = np.cumsum(weight[:, right], axis=1)
        # The envelope from the right; a hit that was not drawn adds no point of its own.
        precise = np.where(weight[:, right] > 0, hits / np.maximum(counted, 1), 0.0)
        envelope = np.maximum.accumulate(precise[:, ::-1], axis=1)[:, ::-1]
        recall = hits / np.maximum(positives, 1)[:, None]
        for r in np.flatnonzero(positives):
            first = np.searchsorted(recall[r], _RECALL, side="left")
            inside = first < len(right)
            found[r] += envelope[r, first[inside]].sum() / len(_RECALL)
    return np.asarray(found / thresholds)
