from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from endedge.data.coco import Dataset, Frame, load_coco, read_image
from endedge.data.frames import stack_frames
from endedge.distill.model import DetectionModel, load_detector
from endedge.end.inference import Detections, detect
from endedge.end.metric import FAST, coco_map

needs_fast = pytest.mark.skipif(not FAST, reason="hotcoco has no wheel here")
EVALUATORS = [
    pytest.param(False, id="pycocotools"),
    pytest.param(True, id="hotcoco", marks=needs_fast),
]


def _frame(image_id: int, boxes: list[list[float]], labels: list[int]) -> Frame:
    n = len(boxes)
    return Frame(
        image_id,
        Path(),
        100,
        100,
        np.array(boxes, np.float32).reshape(n, 4),
        np.array(labels, np.int64),
        np.zeros(n, bool),
    )


def _found(image_id: int, rows: Sequence[tuple[Sequence[float], float, int]]) -> Detections:
    return Detections(
        image_id,
        np.array([r[0] for r in rows], float).reshape(-1, 4),
        np.array([r[1] for r in rows], float),
        np.array([r[2] for r in rows], np.int64),
    )


TRUTH = Dataset(
    (_frame(1, [[0, 0, 50, 50]], [0]), _frame(2, [[10, 10, 20, 20]], [0])), ("a", "b"), (1, 2)
)

HAND: dict[str, tuple[list[Any], list[Any], float | None]] = {
    "both found": ([([0, 0, 50, 50], 0.9, 0)], [([10, 10, 20, 20], 0.8, 0)], 1.0),
    # One of two boxes: precision 1 up to recall 0.5, 51 of COCO's 101 recall points.
    "one missed": ([([0, 0, 50, 50], 0.9, 0)], [], 51 / 101),
    "wrong class only": ([([0, 0, 50, 50], 0.9, 1)], [], 0.0),
    # IoU 0.82 counts at 7 of the 10 thresholds 0.5 … 0.95 (0.5 to 0.8).
    "loose box": ([([0, 0, 50, 41], 0.9, 0)], [([10, 10, 20, 20], 0.8, 0)], None),
    "nothing found": ([], [], 0.0),
}


@pytest.mark.parametrize("fast", EVALUATORS)
@pytest.mark.parametrize("case", HAND)
def test_by_hand(case: str, fast: bool) -> None:
    first, second, expected = HAND[case]
    score = coco_map(TRUTH, [_found(1, first), _found(2, second)], fast=fast)
    if expected is None:
        # thresholds <= 0.8: both right (1.0); above: the best-scored box is wrong, the other
        # right at rank 2, precision 1/2 up to recall 1/2 (51 points).
        expected = (7 * 1.0 + 3 * 0.5 * 51 / 101) / 10
    assert score.map == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("fast", EVALUATORS)
def test_the_best_hundred_detections_of_a_frame_count(fast: bool) -> None:
    """Twelve boxes, each found at a rank below ten wrong ones; the thirteenth at rank 101."""
    boxes = [[8.0 * i, 0, 6, 6] for i in range(12)]
    truth = Dataset((_frame(1, [*boxes, [0, 50, 40, 40]], [0] * 13),), ("a",), (1,))
    wrong = [([90.0, 90, 5, 5], 0.9 - i / 1000, 0) for i in range(88)]
    right = [(box, 0.5 - i / 1000, 0) for i, box in enumerate(boxes)]
    late = [([0.0, 50, 40, 40], 0.1, 0)]
    score = coco_map(truth, [_found(1, [*wrong, *right, *late])], fast=fast)
    # Right ones at ranks 89 to 100, so precision rises to 12 / 100 there, which is COCO's
    # interpolated precision at every recall up to 12 / 13; that is 93 of 101 points.
    assert score.map == pytest.approx(0.12 * 93 / 101, abs=1e-9)


@pytest.mark.parametrize("fast", EVALUATORS)
def test_a_crowd_is_neither_missed_nor_wrongly_found(fast: bool) -> None:
    frame = _frame(1, [[0, 0, 20, 20], [40, 40, 60, 60]], [0, 0])
    crowded = replace(frame, crowd=np.array([False, True]))
    truth = Dataset((crowded,), ("a",), (1,))
    box = ([0.0, 0, 20, 20], 0.8, 0)
    inside = ([50.0, 50, 20, 20], 0.9, 0)  # scores higher, lies on the crowd: does not count
    assert coco_map(truth, [_found(1, [box])], fast=fast).map == pytest.approx(1)
    assert coco_map(truth, [_found(1, [inside, box])], fast=fast).map == pytest.approx(1)


def _plain(truth: Dataset, found: list[Detections]) -> tuple[float, float]:
    """pycocotools with nothing left out."""
    number = itertools.count(1)
    coco = COCO()
    coco.dataset = {
        "images": [{"id": f.image_id} for f in truth.frames],
        "categories": [{"id": i} for i in truth.category_ids],
        "annotations": [
            {
                "id": next(number),
                "image_id": f.image_id,
                "category_id": truth.category_ids[c],
                "bbox": b.tolist(),
                "area": float(b[2] * b[3]),
                "iscrowd": int(k),
            }
            for f in truth.frames
            for b, c, k in zip(f.boxes, f.labels, f.crowd, strict=True)
        ],
    }
    results = [
        {
            "image_id": d.image_id,
            "category_id": truth.category_ids[c],
            "bbox": b.tolist(),
            "score": s,
        }
        for d in found
        for b, s, c in zip(d.boxes, d.scores, d.labels, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return float(run.stats[0]), float(run.stats[1])


@pytest.mark.parametrize("fast", EVALUATORS)
def test_equal_to_pycocotools_on_random_scenes(fast: bool) -> None:
    rng = np.random.default_rng(5)
    frames, found = [], []
    for i in range(12):
        boxes = np.concatenate([rng.uniform(0, 60, (6, 2)), rng.uniform(5, 40, (6, 2))], 1)
        frames.append(_frame(i, boxes.tolist(), rng.integers(0, 2, 6).tolist()))
        noisy = boxes + rng.normal(0, 4, boxes.shape)
        found.append(Detections(i, np.abs(noisy), rng.uniform(0, 1, 6), rng.integers(0, 2, 6)))
    truth = Dataset(tuple(frames), ("a", "b"), (1, 2))
    ours = coco_map(truth, found, fast=fast)
    assert (ours.map, ours.map50) == pytest.approx(_plain(truth, found), abs=1e-12)


@needs_fast
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 130), st.integers(1, 4))
def test_both_evaluators_agree_on_hard_cases(
    seed: int, n_frames: int, n_found: int, n_scores: int
) -> None:
    """Equal scores, crowds, empty frames, empty boxes, more than 100 detections a frame."""
    rng = np.random.default_rng(seed)
    frames, found = [], []
    for i in range(n_frames):
        n = int(rng.integers(0, 8))
        boxes = np.concatenate([rng.integers(0, 60, (n, 2)), rng.integers(0, 40, (n, 2))], 1)
        frames.append(
            Frame(
                i + 1,
                Path(),
                100,
                100,
                boxes.astype(np.float32),
                rng.integers(0, 3, n),
                rng.random(n) < 0.2,
            )
        )
        k = int(rng.integers(0, n_found + 1))
        at = rng.integers(0, max(1, n), k)
        near = (boxes[at] if n else rng.integers(0, 50, (k, 4))) + rng.integers(-3, 4, (k, 4))
        scores = np.sort(rng.integers(1, n_scores + 1, k) / n_scores)[::-1]
        found.append(Detections(i + 1, np.abs(near).astype(float), scores, rng.integers(0, 3, k)))
    truth = Dataset(tuple(frames), ("a", "b", "c"), (1, 5, 90))
    slow, fast = (coco_map(truth, found, fast=f) for f in (False, True))
    assert (fast.map, fast.map50) == pytest.approx((slow.map, slow.map50), abs=1e-9)


@pytest.mark.parametrize("fast", EVALUATORS)
def test_equal_to_pycocotools_on_real_detections(shared: Path, fast: bool) -> None:
    truth = load_coco(
        shared / "coco/annotations/instances_eval.json", shared / "coco/images/eval"
    ).take(range(40))
    frames = stack_frames(truth.frames, 320, lambda f: read_image(f.path))
    found = detect(load_detector(shared / "weights/yolov8n.pt"), frames)
    ours = coco_map(truth, found, fast=fast)
    assert ours.map > 0.2
    assert (ours.map, ours.map50) == pytest.approx(_plain(truth, found), abs=1e-9)


def test_padding_is_not_computed_and_boxes_land_in_the_frame(tiny: DetectionModel) -> None:
    rng = np.random.default_rng(0)
    shapes = [(60, 128), (128, 70), (128, 128), (64, 128)]
    frames = [
        Frame(
            i, Path(), w, h, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
        )
        for i, (h, w) in enumerate(shapes)
    ]
    pictures = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in shapes]
    batch = stack_frames(frames, 128, lambda f: pictures[f.image_id])
    seen: list[tuple[int, ...]] = []
    tiny.model[0].register_forward_pre_hook(lambda _, x: seen.append(tuple(x[0].shape[2:])))
    found = detect(tiny, batch)
    assert [d.image_id for d in found] == [0, 1, 2, 3]
    assert set(seen) == {(64, 128), (128, 80), (128, 128)}
    for d, (h, w) in zip(found, shapes, strict=True):
        assert (d.boxes[:, 0] + d.boxes[:, 2] <= w + 1e-9).all()
        assert (d.boxes[:, 1] + d.boxes[:, 3] <= h + 1e-9).all()
        assert (np.diff(d.scores) <= 0).all()


@pytest.mark.parametrize("size", [(1, 300), (300, 1), (2, 5000), (1, 1), (3, 8)])
def test_strips_and_specks_are_evaluated(size: tuple[int, int], tiny: DetectionModel) -> None:
    """A picture of one row or column: less than a pixel of it is left in the square."""
    height, width = size
    box = np.array([[0, 0, width, height]], np.float32)
    strip = Frame(7, Path(), width, height, box, np.array([0]), np.zeros(1, bool))
    frames = Dataset((strip, _frame(8, [[0, 0, 50, 50]], [1])), ("a", "b"), (1, 2))
    pictures = {7: np.full((height, width, 3), 200, np.uint8), 8: np.zeros((100, 100, 3), np.uint8)}
    batch = stack_frames(frames.frames, 64, lambda frame: pictures[frame.image_id])
    found = detect(tiny, batch)
    assert [d.image_id for d in found] == [7, 8]
    for detections, (w, h) in zip(found, ((width, height), (100, 100)), strict=True):
        assert (detections.boxes[:, :2] >= -1e-3).all()
        assert (detections.boxes[:, 0] + detections.boxes[:, 2] <= w + 1e-3).all()
        assert (detections.boxes[:, 1] + detections.boxes[:, 3] <= h + 1e-3).all()
    assert 0 <= coco_map(frames, found).map <= 1


def test_the_model_asked_is_left_as_it_was(tiny: DetectionModel) -> None:
    tiny.train()
    before = {k: v.clone() for k, v in tiny.state_dict().items()}
    frame = Frame(
        0, Path(), 64, 64, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
    )
    detect(tiny, stack_frames([frame], 64, lambda f: np.zeros((64, 64, 3), np.uint8)))
    assert tiny.training
    assert all(torch.equal(before[k], v) for k, v in tiny.state_dict().items())
