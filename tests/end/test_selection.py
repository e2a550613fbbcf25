"""Selection orders against naive implementations, and the promise that they are nested."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from endedge.data.codec import frames_within
from endedge.data.errors import BadInput
from endedge.data.frames import Batch
from endedge.distill.model import build_detector
from endedge.end.inference import Detections, detect
from endedge.end.selection import (
    RULES,
    Observations,
    disagreement,
    entropy,
    k_centre,
    margin,
    observe,
    select,
)


def random_detections(rng: np.random.Generator, image_id: int, classes: int = 4) -> Detections:
    """A few boxes, some with two classes on the same box, as multi-label NMS leaves them."""
    boxes = rng.uniform(0, 100, (int(rng.integers(0, 6)), 4))
    boxes = np.repeat(boxes, rng.integers(1, 3, len(boxes)), axis=0)
    scores = np.sort(rng.uniform(0, 1, len(boxes)) ** 2)[::-1].copy()
    boxes = boxes[rng.permutation(len(boxes))]
    return Detections(image_id, boxes, scores, rng.integers(0, classes, len(boxes)))


def seen(n: int, seed: int = 0, d: int = 5) -> Observations:
    rng = np.random.default_rng(seed)
    return Observations(
        [random_detections(rng, i) for i in range(n)],
        rng.normal(size=(n, d)).astype(np.float32),
        np.sort(rng.uniform(0, 60, n)),
    )


# Scores


def test_entropy_equals_the_sum_by_hand() -> None:
    frames = seen(30).detections
    for value, found in zip(entropy(frames), frames, strict=True):
        by_hand = sum(
            -p * math.log2(p) - (1 - p) * math.log2(1 - p) for p in found.scores if p >= 0.05
        )
        assert value == pytest.approx(by_hand)


def test_margin_equals_grouping_by_hand() -> None:
    frames = seen(40, seed=3).detections
    for value, found in zip(margin(frames), frames, strict=True):
        groups: dict[tuple[float, ...], list[float]] = {}
        for box, score in zip(found.boxes, found.scores, strict=True):
            if score >= 0.05:
                groups.setdefault(tuple(box), []).append(float(score))
        by_hand = 0.0
        for scores in groups.values():
            first, second = [*sorted(scores, reverse=True), 0.0][:2]
            by_hand += (1 - (first - second)) ** 2
        assert value == pytest.approx(by_hand)


def test_margin_tells_two_near_classes_from_one_sure_class() -> None:
    box = np.ones((2, 4))
    sure = Detections(0, box[:1], np.array([0.9]), np.array([0]))
    torn = Detections(1, box, np.array([0.5, 0.45]), np.array([0, 1]))
    low, high = margin([sure, torn])
    assert low == pytest.approx(0.01)
    assert high == pytest.approx(0.95**2)


def test_disagreement_equals_the_naive_loop() -> None:
    frames = seen(300, seed=5)  # more than one block of rows
    counts = np.zeros((300, 4))
    for i, found in enumerate(frames.detections):
        for score, label in zip(found.scores, found.labels, strict=True):
            counts[i, label] += score * (score >= 0.05)
    got = disagreement(frames, neighbours=3)
    assert got.min() >= 0
    assert got.max() <= 1
    features = frames.features.astype(float)
    for i in range(0, 300, 17):
        away = np.linalg.norm(features - features[i], axis=1)
        near = [j for j in np.argsort(away) if j != i][:3]
        terms = [
            np.abs(counts[i] - counts[j]).sum() / max(counts[i].sum() + counts[j].sum(), 1e-12)
            for j in near
        ]
        assert got[i] == pytest.approx(np.mean(terms))


@pytest.mark.parametrize("n", [0, 1, 2])
def test_disagreement_of_hardly_any_frames(n: int) -> None:
    assert disagreement(seen(n)).shape == (n,)


# Orders


def naive_k_centre(
    points: NDArray[np.float64], first: int, weight: NDArray[np.float64]
) -> list[int]:
    chosen = [first]
    while len(chosen) < len(points):
        best, best_value = -1, -1.0
        for i in range(len(points)):
            if i not in chosen:
                value = min(float(np.linalg.norm(points[i] - points[c])) for c in chosen)
                if value * weight[i] > best_value:
                    best, best_value = i, value * weight[i]
        chosen.append(best)
    return chosen


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 18), st.integers(0, 1000), st.booleans())
def test_k_centre_equals_the_naive_loop(n: int, seed: int, weighted: bool) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, 3))
    weight = rng.uniform(0.1, 1, n) if weighted else np.ones(n)
    first = int(rng.integers(n))
    got = k_centre(points, first, weight if weighted else None)
    assert got.tolist() == naive_k_centre(points, first, weight)


def test_k_centre_of_clusters_visits_every_cluster_first() -> None:
    rng = np.random.default_rng(0)
    centres = 100 * rng.normal(size=(6, 8))
    cluster = np.repeat(np.arange(6), 20)
    points = centres[cluster] + rng.normal(size=(120, 8))
    assert set(cluster[k_centre(points, 0)[:6]]) == set(range(6))


def test_k_centre_with_identical_points_is_still_an_order() -> None:
    assert sorted(k_centre(np.zeros((7, 2)), 3)) == list(range(7))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("n", [0, 1, 2, 37])
def test_every_rule_orders_all_frames_and_repeats_with_its_seed(rule: str, n: int) -> None:
    frames = seen(n)
    order = select(rule, frames, seed=4)
    assert sorted(order.tolist()) == list(range(n))
    assert order.tolist() == select(rule, frames, seed=4).tolist()


@pytest.mark.parametrize("rule", RULES)
def test_a_smaller_budget_takes_a_subset(rule: str) -> None:
    frames = seen(50)
    sizes = np.random.default_rng(1).integers(500, 4000, 50)
    order = select(rule, frames, seed=0)
    taken = [
        set(order[: frames_within(sizes[order].tolist(), budget)].tolist())
        for budget in (0, 3_000, 20_000, 60_000, 10**6)
    ]
    assert [len(t) for t in taken] == sorted(len(t) for t in taken)
    assert all(small <= large for small, large in pairwise(taken))
    assert len(taken[0]) == 0
    assert len(taken[-1]) == 50


@pytest.mark.parametrize("rule", ["random", "uniform", "diversity"])
def test_the_seed_matters_where_chance_decides(rule: str) -> None:
    frames = seen(40)
    orders = {tuple(select(rule, frames, seed).tolist()) for seed in range(5)}
    assert len(orders) > 1


@pytest.mark.parametrize("rule", ["entropy", "margin", "disagreement", "combined"])
def test_ties_are_broken_by_the_seed_not_by_position(rule: str) -> None:
    empty = Detections(0, np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
    blank = Observations([empty] * 30, np.zeros((30, 2), np.float32), np.arange(30.0))
    assert select(rule, blank, 0).tolist() != select(rule, blank, 1).tolist()


@pytest.mark.parametrize("rule", ["entropy", "margin", "disagreement"])
def test_scores_come_out_in_falling_order(rule: str) -> None:
    frames = seen(40)
    score = {
        "entropy": entropy(frames.detections),
        "margin": margin(frames.detections),
        "disagreement": disagreement(frames),
    }[rule]
    assert (np.diff(score[select(rule, frames, 0)]) <= 0).all()


@pytest.mark.parametrize("count", [4, 8, 16, 32])
def test_uniform_leaves_no_long_gap_at_any_prefix(count: int) -> None:
    n = 1000
    frames = Observations(
        seen(n).detections, np.zeros((n, 1), np.float32), np.linspace(0.0, 100.0, n)
    )
    times = np.sort(frames.time_s[select("uniform", frames, 7)[:count]])
    gaps = np.diff(np.concatenate([[0.0], times, [100.0]]))
    assert gaps.max() <= 100.0 / count + 0.2  # a power of two of the sequence is a regular grid


def test_unknown_rule_and_unequal_lengths_are_refused() -> None:
    with pytest.raises(BadInput, match="one of random"):
        select("best", seen(3), 0)
    with pytest.raises(BadInput):
        Observations(seen(3).detections, np.zeros((2, 4), np.float32), np.zeros(3))


# One pass of the student


@pytest.fixture(scope="module")
def tiny() -> Any:
    torch.manual_seed(0)
    spec = {
        "yaml": {
            "reg_max": 4,
            "backbone": [
                [-1, 1, "Conv", [8, 3, 2]],
                [-1, 1, "Conv", [8, 3, 2]],
                [-1, 1, "Conv", [16, 3, 2]],
                [-1, 1, "Conv", [24, 3, 2]],
            ],
            "head": [[[2, 3], 1, "Detect", ["nc"]]],
        },
        "names": {0: "a", 1: "b"},
    }
    return build_detector(spec).eval()


def pictures(n: int) -> Batch:
    rng = np.random.default_rng(2)
    images = torch.from_numpy(rng.integers(0, 256, (n, 3, 64, 64), dtype=np.uint8))
    none = tuple(torch.zeros((0, 4)) for _ in range(n))
    empty = tuple(torch.zeros(0, dtype=torch.int64) for _ in range(n))
    return Batch(
        images, none, empty, np.ones(n), np.zeros((n, 2)), np.full((n, 2), 64), np.arange(n)
    )


def test_observe_takes_features_and_detections_of_the_same_frames(tiny: Any) -> None:
    frames = pictures(5)
    result = observe(tiny, frames, range(5), batch_size=2)
    assert result.features.shape == (5, 16 + 24)
    np.testing.assert_allclose((result.features[:, :16] ** 2).sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose((result.features[:, 16:] ** 2).sum(1), 1, rtol=1e-5)
    alone = observe(tiny, frames.take([3]), [3.0])
    np.testing.assert_allclose(alone.features[0], result.features[3], rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(result.detections, detect(tiny, frames, batch_size=2), strict=True):
        np.testing.assert_array_equal(ours.boxes, theirs.boxes)
    assert not tiny.model[-1]._forward_pre_hooks


def test_features_of_wide_and_tall_frames_are_their_own(tiny: Any) -> None:
    """Frames of one shape are computed together, so in another order than they came."""
    shapes = [(64, 64), (64, 32), (64, 64), (32, 64), (64, 32)]
    frames = replace(
        pictures(5),
        size=np.array(shapes),
        offset=np.array([((64 - w) / 2, (64 - h) / 2) for w, h in shapes]),
    )
    for batch_size in (1, 2, 5):
        seen = observe(tiny, frames, range(5), batch_size=batch_size)
        for i in range(5):
            alone = observe(tiny, frames.take([i]), [0.0])
            np.testing.assert_allclose(seen.features[i], alone.features[0], rtol=1e-4, atol=1e-6)
            np.testing.assert_array_equal(seen.detections[i].labels, alone.detections[0].labels)
