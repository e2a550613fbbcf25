"""Label sources of the edge: matching, calibration, budgets, and what is reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from endedge.data.coco import Frame
from endedge.data.errors import BadInput
from endedge.data.frames import stack_frames
from endedge.edge.labels import (
    Labels,
    apply_labels,
    calibrate,
    mixed_labels,
    pseudo_labels,
    quality,
    truth_labels,
)
from endedge.end.inference import Detections

SIDE = 100


def frame(
    image_id: int, boxes: list[list[float]], labels: list[int], crowd: list[bool] | None = None
) -> Frame:
    return Frame(
        image_id,
        Path("none"),
        SIDE,
        SIDE,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
        np.array(crowd if crowd is not None else [False] * len(labels), np.bool_),
    )


def detections(
    image_id: int, boxes: list[list[float]], scores: list[float], labels: list[int]
) -> Detections:
    return Detections(
        image_id,
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(scores, np.float64),
        np.array(labels, np.int64),
    )


def scene(seed: int, n: int) -> tuple[list[Frame], list[Detections]]:
    """Random truth and a noisy detector of it, crowds included."""
    rng = np.random.default_rng(seed)
    frames, found = [], []
    for i in range(n):
        k = int(rng.integers(0, 6))
        boxes = np.concatenate([rng.uniform(0, 60, (k, 2)), rng.uniform(5, 40, (k, 2))], 1)
        labels, crowd = rng.integers(0, 3, k), rng.random(k) < 0.15
        frames.append(frame(i, boxes.tolist(), labels.tolist(), crowd.tolist()))
        again = np.repeat(boxes, rng.integers(0, 3, k), 0)
        again_labels = np.repeat(labels, 1)
        at = rng.integers(0, max(k, 1), len(again)) if k else np.zeros(0, np.int64)
        again = boxes[at] + rng.normal(0, 2, (len(at), 4)) if k else np.zeros((0, 4))
        again[:, 2:] = again[:, 2:].clip(1)
        guess = np.where(rng.random(len(at)) < 0.8, again_labels[at], 0) if k else at
        scores = np.round(rng.random(len(at)), 2)  # ties on purpose
        found.append(detections(i, again.tolist(), scores.tolist(), guess.tolist()))
    return frames, found


def naive_counts(labels: list[Labels], frames: list[Frame]) -> tuple[int, int]:
    """Right and wrong labels by plain loops over one box at a time."""
    right = wrong = 0
    for entry, truth in zip(labels, frames, strict=True):
        used: set[int] = set()
        for box, label in zip(entry.boxes, entry.labels, strict=True):
            best, best_iou, on_crowd = -1, 0.0, False
            for j in range(len(truth.labels)):
                if truth.labels[j] != label:
                    continue
                iou = naive_iou(box, truth.boxes[j].astype(float), bool(truth.crowd[j]))
                if iou < 0.5:
                    continue
                if truth.crowd[j]:
                    on_crowd = True
                elif j not in used and iou > best_iou:
                    best, best_iou = j, iou
            if best >= 0:
                used.add(best)
                right += 1
            elif not on_crowd:
                wrong += 1
    return right, wrong


def naive_iou(a: NDArray[np.float64], b: NDArray[np.float64], crowd: bool) -> float:
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(w, 0.0) * max(h, 0.0)
    return float(shared / (a[2] * a[3] + (0 if crowd else b[2] * b[3] - shared)))


def by_score(found: Detections, threshold: float) -> Labels:
    order = [i for i in np.argsort(-found.scores, kind="stable") if found.scores[i] >= threshold]
    return Labels(found.image_id, found.boxes[order], found.labels[order])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000))
def test_quality_equals_plain_loops(seed: int) -> None:
    frames, found = scene(seed, 8)
    labels = [by_score(d, 0.3) for d in found]
    right, wrong = naive_counts(labels, frames)
    got = quality(labels, frames)
    true_boxes = sum(int((~f.crowd).sum()) for f in frames)
    assert (got.true_boxes - got.missed_boxes, got.wrong_boxes) == (right, wrong)
    assert got.precision == pytest.approx(right / (right + wrong) if right + wrong else 1)
    assert got.recall == pytest.approx(right / true_boxes if true_boxes else 1)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000))
def test_calibration_equals_trying_every_threshold(seed: int) -> None:
    frames, found = scene(seed, 6)
    true_boxes = sum(int((~f.crowd).sum()) for f in frames)
    scores = sorted({float(s) for d in found for s in d.scores}, reverse=True)
    best_f1, best = -1.0, 0.0
    for threshold in scores:
        right, wrong = naive_counts([by_score(d, threshold) for d in found], frames)
        f1 = 2 * right / (right + wrong + true_boxes)
        if f1 > best_f1 + 1e-12:
            best_f1, best = f1, threshold
    got = calibrate(found, frames)
    assert got.f1 == pytest.approx(best_f1)
    on_the_same = quality([by_score(d, got.threshold) for d in found], frames)
    assert on_the_same.precision == pytest.approx(got.precision)
    assert on_the_same.recall == pytest.approx(got.recall)
    if best_f1 > 0:
        right, wrong = naive_counts([by_score(d, best) for d in found], frames)
        assert 2 * right / (right + wrong + true_boxes) == pytest.approx(got.f1)


def test_calibration_cuts_between_right_and_wrong() -> None:
    truth = frame(0, [[10, 10, 20, 20], [50, 50, 20, 20]], [0, 1])
    found = detections(
        0,
        [[10, 10, 20, 20], [50, 50, 20, 20], [70, 5, 20, 20], [5, 70, 20, 20]],
        [0.9, 0.6, 0.4, 0.2],
        [0, 1, 0, 0],
    )
    got = calibrate([found], [truth])
    assert (got.threshold, got.precision, got.recall) == (0.6, 1.0, 1.0)
    assert len(pseudo_labels([found], got.threshold)[0].labels) == 2


def test_the_wrong_class_is_label_noise_and_a_missed_box() -> None:
    truth = frame(0, [[10, 10, 20, 20]], [0])
    got = quality([Labels(0, np.array([[10.0, 10, 20, 20]]), np.array([1]))], [truth])
    assert (got.precision, got.recall, got.wrong_boxes, got.missed_boxes) == (0.0, 0.0, 1, 1)


def test_a_box_on_a_crowd_counts_neither_way() -> None:
    truth = frame(0, [[0, 0, 100, 100], [40, 40, 10, 10]], [0, 0], [True, False])
    labels = Labels(0, np.array([[5.0, 5, 10, 10], [40, 40, 10, 10]]), np.array([0, 0]))
    got = quality([labels], [truth])
    assert (got.precision, got.recall, got.true_boxes) == (1.0, 1.0, 1)


def test_truth_is_perfect_and_leaves_crowds_out() -> None:
    frames, _ = scene(3, 20)
    got = quality(truth_labels(frames), frames)
    assert (got.precision, got.recall) == (1.0, 1.0)
    assert got.boxes == got.true_boxes == sum(int((~f.crowd).sum()) for f in frames)


@given(st.integers(0, 1000), st.integers(0, 60))
def test_mix_spends_its_budget_and_is_nested(seed: int, budget: int) -> None:
    frames, found = scene(seed, 12)
    pseudo = pseudo_labels(found, 0.5)
    order = np.random.default_rng(seed).permutation(12).tolist()
    mix = mixed_labels(frames, pseudo, order, budget)
    assert mix.drawn_boxes <= budget
    costs = [max(1, int((~frames[i].crowd).sum())) for i in order]
    n = len(mix.annotated)
    assert mix.drawn_boxes == sum(costs[:n])
    assert n == 12 or sum(costs[: n + 1]) > budget
    assert mix.annotated == tuple(order[:n])
    truth = truth_labels(frames)
    for i in range(12):
        want = truth[i] if i in order[:n] else pseudo[i]
        np.testing.assert_array_equal(mix.labels[i].boxes, want.boxes)
    more = mixed_labels(frames, pseudo, order, budget + 10)
    assert more.annotated[:n] == mix.annotated


def test_a_larger_budget_is_better_labels() -> None:
    frames, found = scene(5, 30)
    recalls = [
        quality(mixed_labels(frames, pseudo_labels(found, 0.5), range(30), b).labels, frames).recall
        for b in (0, 20, 40, 10_000)
    ]
    assert recalls == sorted(recalls)
    assert recalls[0] < recalls[-1] == 1.0


@pytest.mark.parametrize("codec_scale", [1.0, 0.5])
def test_applied_truth_equals_the_frames_own_labels(codec_scale: float) -> None:
    """Also when the decoded picture is smaller than the annotated frame."""
    frames = [frame(i, [[10, 20, 30, 40], [0, 0, 5, 5]], [1, 0]) for i in range(3)]
    size = int(SIDE * codec_scale)
    batch = stack_frames(frames, 64, lambda _: np.zeros((size // 2, size, 3), np.uint8))
    again = apply_labels(batch, truth_labels(frames)[::-1])  # found by id, not by position
    for a, b in zip(again.boxes, batch.boxes, strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(again.labels, batch.labels, strict=True):
        torch.testing.assert_close(a, b)
    empty = [Labels(i, np.zeros((0, 4)), np.zeros(0, np.int64)) for i in range(3)]
    assert apply_labels(batch, empty).boxes[0].shape == (0, 4)


def test_what_does_not_correspond_is_refused() -> None:
    frames, found = scene(1, 4)
    with pytest.raises(BadInput, match="same image ids"):
        calibrate(found[:3], frames)
    with pytest.raises(BadInput, match="same image ids"):
        quality(truth_labels(frames[:3]), frames)
    with pytest.raises(BadInput, match="same image ids"):
        mixed_labels(frames, pseudo_labels(found[:3], 0.5), range(4), 5)
    batch = stack_frames(frames, 32, lambda _: np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(BadInput, match="no labels for frame 3"):
        apply_labels(batch, truth_labels(frames[:3]))
    with pytest.raises(BadInput, match="cannot calibrate"):
        calibrate([detections(0, [], [], [])], [frame(0, [[1, 1, 5, 5]], [0])])
