"""Bootstrap replicates of mAP against evaluating every draw anew with pycocotools."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from endedge.data.coco import Dataset, Frame
from endedge.data.errors import BadInput
from endedge.end.inference import Detections
from endedge.end.metric import coco_map
from endedge.end.replicates import draws_of, map_replicates


def _scene(rng: np.random.Generator, frames: int = 12) -> tuple[Dataset, list[Detections]]:
    """Boxes of three classes, some of a crowd; detections near them, some wrong, all with their
    own score, so that no order is a matter of taste."""
    made, found = [], []
    for i in range(frames):
        n = int(rng.integers(0, 5))
        boxes = np.concatenate([rng.uniform(0, 60, (n, 2)), rng.uniform(10, 40, (n, 2))], axis=1)
        labels, crowd = rng.integers(0, 3, n), rng.random(n) < 0.15
        made.append(Frame(i + 1, Path(), 100, 100, boxes.astype(np.float32), labels, crowd))
        more = int(rng.integers(0, 4))
        near = boxes + rng.normal(0, 3, boxes.shape)
        wild = np.concatenate([rng.uniform(0, 60, (more, 2)), rng.uniform(10, 40, (more, 2))], 1)
        every = np.concatenate([near, wild]).clip(1, 100)
        wrong = rng.integers(0, 3, n + more)
        given = np.where(rng.random(n + more) < 0.8, [*labels, *wrong[n:]], wrong)
        found.append(Detections(i + 1, every, rng.random(n + more), given.astype(np.int64)))
    return Dataset(tuple(made), ("a", "b", "c"), (1, 2, 3)), found


@pytest.mark.parametrize("seed", range(4))
def test_every_draw_is_what_coco_says_of_the_frames_drawn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, found = _scene(rng)
    draws = draws_of(len(truth), count=8, seed=seed)
    assert (draws.sum(axis=1) == len(truth)).all()
    values = map_replicates(truth, found, draws)
    assert values == pytest.approx(map_replicates(truth, found, draws, fast=False), abs=1e-12)
    for counts, value in zip(draws, values, strict=True):
        picked = np.repeat(np.arange(len(truth)), counts)
        frames = [replace(truth.frames[i], image_id=n + 1) for n, i in enumerate(picked)]
        again = [replace(found[i], image_id=n + 1) for n, i in enumerate(picked)]
        wanted = coco_map(replace(truth, frames=tuple(frames)), again, fast=False).map
        assert value == pytest.approx(wanted, abs=1e-9)


def test_all_frames_once_is_the_score_itself() -> None:
    truth, found = _scene(np.random.default_rng(9), 30)
    once = np.ones((1, 30), dtype=np.int64)
    assert map_replicates(truth, found, once)[0] == pytest.approx(
        coco_map(truth, found, fast=False).map, abs=1e-12
    )
    nothing = [
        replace(d, boxes=d.boxes[:0], scores=d.scores[:0], labels=d.labels[:0]) for d in found
    ]
    assert map_replicates(truth, nothing, once).tolist() == [0.0]


def test_groups_are_drawn_whole_and_draws_are_the_same_for_everybody() -> None:
    groups = ["a"] * 3 + ["b"] * 5 + ["c"] * 2
    draws = draws_of(10, groups, count=50, seed=3)
    assert (draws[:, :3] == draws[:, :1]).all()
    assert (draws[:, 3:8] == draws[:, 3:4]).all()
    assert (draws[:, [0, 3, 8]].sum(axis=1) == 3).all()
    assert (draws == draws_of(10, groups, count=50, seed=3)).all()
    with pytest.raises(BadInput, match="2 groups for 10 frames"):
        draws_of(10, ["a", "b"])
