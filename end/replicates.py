"""COCO mAP on bootstrap draws of the evaluation frames, exactly, without evaluating again.

mAP does not add over frames, so its error cannot be had from scores of single frames. Detections
and boxes are matched once, frame by frame, and every draw counts the frames as often as it drew
them: precision and recall are then weighted sums (B. Efron, R. Tibshirani, *An Introduction to the
Bootstrap*, 1993). Where frames come in groups (a scene, a flight) the groups are drawn.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from endedge.data.coco import Dataset
from endedge.data.errors import BadInput
from endedge.data.frames import Batch
from endedge.distill.model import DetectionModel
from endedge.distill.package.compiled import compiled
from endedge.end.inference import Detections, detect
from endedge.end.metric import FAST, CocoScore, coco_map, matched

__all__ = ["draws_of", "evaluate_resampled", "groups_drawn", "map_replicates"]

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


def groups_drawn(truth: Dataset) -> list[Hashable]:
    """What is drawn of ``truth``, a name for each of its frames: its group, or the frame itself
    where the file says none."""
    return [i if f.group is None else f.group for i, f in enumerate(truth.frames)]


def evaluate_resampled(
    model: DetectionModel,
    frames: Batch,
    truth: Dataset,
    draws: NDArray[np.int64],
    device: str = "cpu",
) -> tuple[CocoScore, Floats]:
    """Detect once on ``frames`` (the pictures of ``truth``, same order): the score, and mAP on
    each of ``draws``."""
    detections = detect(model, frames, device=device)
    return coco_map(truth, detections), map_replicates(truth, detections, draws)


def map_replicates(
    truth: Dataset,
    detections: Sequence[Detections],
    draws: NDArray[np.int64],
    *,
    fast: bool = FAST,
) -> Floats:
    """mAP50-95 in [0, 1] of ``detections`` on each of ``draws`` (replicates, frames of ``truth``),
    as COCOeval defines it: all areas, 100 detections, classes without a box in a draw left out.
    Returns (replicates,); 0 for a draw without any box. ``fast``: matched by hotcoco."""
    position = {f.image_id: i for i, f in enumerate(truth.frames)}
    by_class: dict[int, list[dict[str, Any]]] = {}
    for entry in matched(truth, detections, fast=fast):
        by_class.setdefault(entry["category_id"], []).append(entry)
    total, classes = np.zeros(len(draws)), np.zeros(len(draws))
    for seen in by_class.values():
        at = np.array([position[e["image_id"]] for e in seen])
        boxes = np.array([np.sum(np.asarray(e["gtIgnore"]) == 0) for e in seen])
        positives = draws[:, at] @ boxes
        total += _precision(seen, at, draws, positives)
        classes += positives > 0
    return np.asarray(total / np.maximum(classes, 1))


def _precision(
    frames: Sequence[dict[str, Any]],
    at: NDArray[np.int64],
    draws: NDArray[np.int64],
    positives: NDArray[np.int64],
) -> Floats:
    """AP of one class: the mean over recall and IoU thresholds of the interpolated precision, for
    each draw; 0 for one without ``positives``. ``at``: which frame each of ``frames`` is."""
    scores = np.concatenate([np.asarray(e["dtScores"], float) for e in frames])
    if len(scores) == 0:
        return np.zeros(len(draws))
    order = np.argsort(-scores, kind="mergesort")
    frame = np.repeat(at, [len(e["dtScores"]) for e in frames])[order]
    some = [e for e in frames if len(e["dtScores"])]  # no detection: no rows of a known length
    right = np.concatenate([np.asarray(e["dtMatches"]) for e in some], axis=1)[:, order] > 0
    ignored = np.concatenate([np.asarray(e["dtIgnore"]) for e in some], axis=1)[:, order] > 0
    precision = np.zeros(len(draws))
    hits, left_out = _listed(right & ~ignored), _listed(ignored)
    _accumulate(*hits, *left_out, frame, draws, positives, _RECALL, precision)
    return precision


def _listed(rows: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each row is true, one row after the other, and where each row begins in that."""
    row, at = np.nonzero(rows)
    return at, np.searchsorted(row, np.arange(len(rows) + 1))


@compiled
def _accumulate(
    hits: NDArray[np.int64],
    hits_from: NDArray[np.int64],
    ignored: NDArray[np.int64],
    ignored_from: NDArray[np.int64],
    frame: NDArray[np.int64],
    draws: NDArray[np.int64],
    positives: NDArray[np.int64],
    recalls: Floats,
    out: Floats,
) -> None:
    """Add to ``out`` (draws,) the mean precision of n detections, best first.

    Args:
        hits, hits_from: the detections that find a box, for each IoU threshold as :func:`_listed`.
        ignored, ignored_from: those that count neither as right nor as wrong, the same way.
        frame: on which each detection is (n,).
        draws: how often each frame was drawn (draws, frames).
        positives: boxes of each draw (draws,).
        recalls: at which precision is read.
    """
    thresholds, n = len(hits_from) - 1, len(frame)
    counted, precise, recall = np.empty(n), np.empty(n), np.empty(n)
    for r in range(len(draws)):
        if positives[r] == 0:
            continue
        total, so_far = 0.0, 0
        for d in range(n):
            so_far += draws[r, frame[d]]
            counted[d] = so_far
        for t in range(thresholds):
            true_hits, skipped, points, q = 0, 0, 0, ignored_from[t]
            for h in range(hits_from[t], hits_from[t + 1]):
                d = hits[h]
                while q < ignored_from[t + 1] and ignored[q] < d:
                    skipped += draws[r, frame[ignored[q]]]
                    q += 1
                weight = draws[r, frame[d]]
                if weight > 0:  # copies of a frame follow each other: its last one counts
                    true_hits += weight
                    precise[points] = true_hits / (counted[d] - skipped)
                    recall[points] = true_hits / positives[r]
                    points += 1
            k = len(recalls) - 1
            while k >= 0 and (points == 0 or recalls[k] > recall[points - 1]):
                k -= 1
            best = 0.0
            for p in range(points - 1, -1, -1):  # the envelope, from the right
                best = max(best, precise[p])
                while k >= 0 and (p == 0 or recalls[k] > recall[p - 1]):
                    total += best
                    k -= 1
        out[r] += total / (thresholds * len(recalls))
