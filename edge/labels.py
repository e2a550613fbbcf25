"""Where the edge's labels come from: an annotator, its own teacher, or some of each.

A real edge has no ground truth. What it can have is the teacher's detections above a score
threshold (pseudo-labels), and an annotator who draws a limited number of boxes a period. The
threshold is *calibrated*: the one with the best F1 at IoU 0.5 on frames whose truth is known
(held back, or of the source domain), never chosen by hand and never on the uploaded frames.
What the labels are worth is reported against truth as precision (one minus it: label noise)
and recall (one minus it: missed boxes), the two ways in which they mislead a training.

Matching is COCO's: per frame and class, detections in falling order of score, each to the free
true box of highest IoU, at least 0.5; what falls on a crowd box counts neither way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from endedge.data.coco import Frame
from endedge.data.errors import BadInput
from endedge.data.frames import Batch
from endedge.end.inference import Detections
from endedge.end.metric import iou

__all__ = [
    "Calibration",
    "Labels",
    "Mix",
    "Quality",
    "apply_labels",
    "calibrate",
    "mixed_labels",
    "pseudo_labels",
    "quality",
    "truth_labels",
]

_IOU = 0.5
_CROWD = -1  # outcome of a detection that lies on a crowd box: neither right nor wrong


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of one frame: ``boxes`` (n, 4) x, y, width, height in px of the frame, ``labels``
    (n,) class indices. A frame with none is a statement too: nothing is there."""

    image_id: int
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Calibration:
    """The chosen score ``threshold`` and what it gave on the ``frames`` frames it was chosen on."""

    threshold: float
    precision: float
    recall: float
    f1: float
    frames: int


@dataclass(frozen=True)
class Quality:
    """Labels against truth at IoU 0.5 with the right class. ``precision`` = 1 - label noise,
    ``recall`` = 1 - share of missed boxes; both 1 when there is nothing to get wrong."""

    precision: float
    recall: float
    boxes: int
    true_boxes: int
    wrong_boxes: int
    missed_boxes: int


@dataclass(frozen=True, eq=False)
class Mix:
    """Labels of all frames; ``annotated`` image ids have true ones, for ``drawn_boxes`` paid."""

    labels: list[Labels]
    annotated: tuple[int, ...]
    drawn_boxes: int


def truth_labels(frames: Iterable[Frame]) -> list[Labels]:
    """What an annotator without a budget would draw: every box that is not a crowd."""
    return [
        Labels(f.image_id, f.boxes[~f.crowd].astype(np.float64), f.labels[~f.crowd]) for f in frames
    ]


def pseudo_labels(detections: Iterable[Detections], threshold: float) -> list[Labels]:
    """The teacher's detections that score at least ``threshold``."""
    out = []
    for detected in detections:
        kept = detected.scores >= threshold
        out.append(Labels(detected.image_id, detected.boxes[kept], detected.labels[kept]))
    return out


def calibrate(detections: Sequence[Detections], frames: Sequence[Frame]) -> Calibration:
    """The threshold with the best F1 of ``detections`` against the truth of the same ``frames``.

    Greedy matching goes down the scores, so one matching serves all thresholds: cutting the list
    keeps the matches above the cut. Among equals the higher threshold is taken. Raises
    :class:`BadInput` when the frames do not correspond, or hold no box or no detection.
    """
    by_id = _matched(frames, [d.image_id for d in detections])
    outcomes = [
        _match(d.boxes, d.scores, d.labels, by_id[d.image_id]) for d in detections if len(d.scores)
    ]
    true_boxes = sum(int((~f.crowd).sum()) for f in frames)
    if not true_boxes or not outcomes:
        raise BadInput(
            f"cannot calibrate on {len(frames)} frames with {true_boxes} boxes and "
            f"{sum(len(d.scores) for d in detections)} detections; give frames with both"
        )
    outcome = np.concatenate(outcomes)
    scores = np.concatenate([d.scores for d in detections])[outcome != _CROWD]
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], (outcome[outcome != _CROWD] == 1)[order]
    last = np.append(scores[1:] != scores[:-1], True)  # equal scores cannot be told apart
    hits = np.cumsum(right)[last]
    kept = np.arange(1, len(scores) + 1)[last]
    f1 = 2 * hits / (kept + true_boxes)
    best = int(np.argmax(f1))
    return Calibration(
        float(scores[last][best]),
        float(hits[best] / kept[best]),
        float(hits[best] / true_boxes),
        float(f1[best]),
        len(frames),
    )


def mixed_labels(
    frames: Sequence[Frame], pseudo: Sequence[Labels], order: Sequence[int], box_budget: int
) -> Mix:
    """Truth for as many frames as ``box_budget`` boxes pay for, pseudo-labels for the others.

    The annotator takes whole frames (half a frame would teach that the other half is empty) in
    ``order`` (indices into ``frames``) until one does not fit; to look at a frame without boxes
    costs one. So a smaller budget annotates a subset of a larger one's frames.
    """
    by_id = {p.image_id: p for p in pseudo}
    if set(by_id) != {f.image_id for f in frames}:
        raise BadInput("pseudo-labels and frames do not have the same image ids")
    labels = [by_id[f.image_id] for f in frames]
    truth = truth_labels(frames)
    annotated, left = [], box_budget
    for i in order:
        left_after = left - max(1, len(truth[i].labels))
        if left_after < 0:
            break
        labels[i], left = truth[i], left_after
        annotated.append(frames[i].image_id)
    return Mix(labels, tuple(annotated), box_budget - left)


def quality(labels: Sequence[Labels], frames: Sequence[Frame]) -> Quality:
    """Label noise and missed boxes of ``labels`` against the truth of the same ``frames``.

    Labels carry no score; when several fit one true box, the first given matches.
    """
    by_id = _matched(frames, [p.image_id for p in labels])
    right = wrong = 0
    for entry in labels:
        falling = np.arange(len(entry.labels), 0, -1, dtype=np.float64)
        outcome = _match(entry.boxes, falling, entry.labels, by_id[entry.image_id])
        right += int((outcome == 1).sum())
        wrong += int((outcome == 0).sum())
    true_boxes = sum(int((~f.crowd).sum()) for f in frames)
    return Quality(
        right / (right + wrong) if right + wrong else 1.0,
        right / true_boxes if true_boxes else 1.0,
        sum(len(entry.labels) for entry in labels),
        true_boxes,
        wrong,
        true_boxes - right,
    )


def apply_labels(frames: Batch, labels: Sequence[Labels]) -> Batch:
    """``frames`` (letterboxed, as decoded) with ``labels`` in place of their own, for training.

    Raises :class:`BadInput` when a frame has no entry in ``labels``.
    """
    by_id = {entry.image_id: entry for entry in labels}
    side = frames.images.shape[-1]
    boxes, classes = [], []
    for i, image_id in enumerate(frames.image_ids.tolist()):
        if image_id not in by_id:
            raise BadInput(f"no labels for frame {image_id}")
        entry = by_id[image_id]
        x, y, w, h = entry.boxes.astype(np.float64).T * frames.scale[i]
        left, top = frames.offset[i]
        relative = np.stack([x + w / 2 + left, y + h / 2 + top, w, h], 1) / side
        boxes.append(torch.from_numpy(relative.astype(np.float32)))
        classes.append(torch.from_numpy(entry.labels.astype(np.int64)))
    return frames.relabel(boxes, classes)


# Matching -----------------------------------------------------------------------------------


def _matched(frames: Sequence[Frame], image_ids: Sequence[int]) -> Mapping[int, Frame]:
    by_id = {f.image_id: f for f in frames}
    if len(image_ids) != len(frames) or set(image_ids) != set(by_id):
        raise BadInput(
            f"{len(image_ids)} frames with labels or detections, {len(frames)} with truth; "
            "give the same image ids, each once"
        )
    return by_id


def _match(
    boxes: NDArray[np.float64],
    scores: NDArray[np.float64],
    labels: NDArray[np.int64],
    frame: Frame,
) -> NDArray[np.int64]:
    """Outcome of each box (n,): 1 right, 0 wrong, -1 on a crowd; in the order given."""
    outcome = np.zeros(len(scores), np.int64)
    same = labels[:, None] == frame.labels
    overlap = np.where(same, iou(boxes, frame.boxes, frame.crowd), 0.0)
    reachable = overlap >= _IOU
    free = ~frame.crowd
    order = np.argsort(-scores, kind="stable")
    reached = np.asarray(reachable.any(axis=1))
    for i in order[reached[order]]:
        candidates = np.where(free & reachable[i], overlap[i], 0.0)
        best = int(np.argmax(candidates))
        if candidates[best] > 0:
            free[best] = False
            outcome[i] = 1
        elif (reachable[i] & frame.crowd).any():
            outcome[i] = _CROWD
    return outcome
