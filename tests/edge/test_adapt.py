from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from endedge.data.frames import Batch
from endedge.distill.feed import gather
from endedge.distill.losses import Targets, labels, labels_by_frame
from endedge.distill.model import DetectionModel, model_hash
from endedge.distill.network import DEFAULT_CFG
from endedge.distill.training import Recipe, interpolate, train
from endedge.edge.adapt import (
    Verdict,
    adapt_teacher,
    compare,
    distil_student,
    held_back_loss,
    split_upload,
)


@pytest.fixture
def frames(squares: Callable[[int], Batch]) -> Batch:
    return squares(10)


@pytest.mark.parametrize(
    ("n", "share", "most", "held"),
    # at least 2, at most `most`, never all: 0.2·10 = 2; 0.5·10 = 5, capped at 3; 1 of 2
    [(10, 0.2, 64, 2), (10, 0.5, 3, 3), (10, 0.5, 64, 5), (4, 0.2, 64, 2), (2, 0.2, 64, 1)],
)
def test_what_is_held_back_is_never_trained_on(
    frames: Batch, n: int, share: float, most: int, held: int
) -> None:
    upload = split_upload(frames.take(range(n)), share, most)
    assert len(upload.held_back) == held
    ids = [*upload.trained.image_ids, *upload.held_back.image_ids]
    assert ids == list(range(n))


@pytest.mark.parametrize(
    ("groups", "share", "trained", "held_back"),
    [
        ("aabbbccddd", 0.2, [0, 1, 2, 3, 4, 5, 6], [8, 9]),  # 7 is of the group that judges
        ("aabbbccddd", 0.5, [0, 1, 2, 3, 4], [5, 6, 7, 8, 9]),
        ("abcabcabca", 0.2, [0, 1, 3, 4, 6, 7, 9], [5, 8]),
        ("abbbbbbbbc", 0.3, [1, 2, 3, 4, 5, 6, 7, 8], [0, 9]),  # without b, which is most of all
        ("abc", 0.2, [0], [1, 2]),  # one frame alone would judge: not divided by groups,
        ("aaaaabbbbb", 0.2, [0, 1, 2, 3, 4, 5, 6, 7], [8, 9]),  # and no two groups are
    ],
)
def test_no_group_is_on_both_sides(
    frames: Batch, groups: str, share: float, trained: list[int], held_back: list[int]
) -> None:
    upload = split_upload(frames.take(range(len(groups))), share, 64, groups)
    assert list(upload.trained.image_ids) == trained
    assert list(upload.held_back.image_ids) == held_back


def test_held_back_loss_is_the_mean_over_frames_one_by_one(
    tiny: DetectionModel, frames: Batch
) -> None:
    loss_of, model = labels(tiny), tiny.eval()
    with torch.no_grad():
        each = [
            float(
                loss_of(
                    model(gather(frames, [i], [False], "cpu").images)[1],
                    gather(frames, [i], [False], "cpu"),
                )
            )
            for i in range(10)
        ]
    assert held_back_loss(tiny, frames) == pytest.approx(np.mean(each), rel=1e-5)


def _of_each_alone(model: DetectionModel, raw: Any, targets: Targets) -> list[float]:
    """The criterion called for every picture of a batch, as if there were no other."""
    criterion = model.init_criterion()

    def row(part: Any, i: int) -> Any:
        if isinstance(part, dict):
            return {name: row(value, i) for name, value in part.items()}
        return part[i : i + 1] if isinstance(part, torch.Tensor) else [row(p, i) for p in part]

    found = []
    for i in range(len(targets.images)):
        rows = targets.rows[targets.rows[:, 0] == i]
        told = {"batch_idx": 0 * rows[:, 0], "cls": rows[:, 1], "bboxes": rows[:, 2:]}
        found.append(float(criterion(row(raw, i), told)[0].sum()))
    return found


_EDGE = st.floats(1 / 64, 63 / 64, width=32)
_BOX = st.tuples(st.integers(0, 2), _EDGE, _EDGE, _EDGE, _EDGE)


@pytest.mark.parametrize("name", ["yolov8n", "yolo11n", "yolov10n", "yolo26n"])
@settings(max_examples=10, deadline=None)
@given(boxes=st.lists(st.lists(_BOX, max_size=6), min_size=1, max_size=4), seed=st.integers(0, 9))
def test_losses_of_a_batch_are_those_of_its_pictures_alone(
    name: str, boxes: list[list[tuple[float, ...]]], seed: int
) -> None:
    """Whatever is in the other pictures: none at all, or a crowd."""
    model = _detector(name)
    torch.manual_seed(seed)
    images = torch.rand(len(boxes), 3, 64, 64)
    rows = [(i, *box) for i, own in enumerate(boxes) for box in own]
    targets = Targets(images, torch.tensor(rows).reshape(-1, 6), (), ())
    with torch.no_grad():
        raw = model(images)[1]
        found = labels_by_frame(model)(raw, targets)
    assert found.tolist() == pytest.approx(_of_each_alone(model, raw, targets), rel=1e-5)


@functools.cache
def _detector(name: str) -> DetectionModel:
    torch.manual_seed(0)
    model = DetectionModel(f"{name}.yaml", nc=3, verbose=False)
    model.args = DEFAULT_CFG
    for parameter in model.model[-1].parameters():  # else no class is ever likely
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.eval()


@pytest.mark.parametrize(
    ("verdict", "helps", "why"),
    [
        (Verdict(5.0, 4.5, 0.4, 12, 4), True, "better"),
        (Verdict(5.0, 4.5, 0.6, 4, 4), True, "better, if not surely"),
        (Verdict(5.0, 5.5, 0.1, 12, 4), False, "worse"),
        (Verdict(5.0, 5.0, 0.0, 12, 4), False, "the same model"),
        (Verdict(5.8, 5.1, 0.02, 3, 4), False, "three frames agree by chance"),
    ],
)
def test_what_is_sent(verdict: Verdict, helps: bool, why: str) -> None:
    assert verdict.helps == helps, why


def test_two_models_are_compared_frame_by_frame(
    tiny: DetectionModel, tiny_teacher: DetectionModel, frames: Batch
) -> None:
    for model in (tiny_teacher, tiny):  # else all frames are alike to them
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    few = frames.take(range(5))
    old, new = (
        [held_back_loss(model, frames.take([i])) for i in range(5)]
        for model in (tiny_teacher, tiny)
    )
    gains = np.subtract(old, new)
    found = compare(tiny_teacher, tiny, few, 4)
    assert (found.before, found.after) == pytest.approx((np.mean(old), np.mean(new)), rel=1e-5)
    assert found.error == pytest.approx(gains.std(ddof=1) / 5**0.5, rel=1e-3)
    assert found.frames == 5


RECIPE = Recipe(steps=6, batch=4, lr=2e-3, layers=None, ema=0.5)


def test_the_share_with_the_lowest_held_back_loss_is_taken(
    tiny: DetectionModel, tiny_teacher: DetectionModel, frames: Batch
) -> None:
    before = model_hash(tiny), model_hash(tiny_teacher)
    upload = split_upload(frames, 0.3, 64)
    teacher = adapt_teacher(tiny_teacher, upload, RECIPE, (0.5, 1.0))
    student = distil_student(tiny, teacher.model, upload, RECIPE, (0.25, 1.0))
    for adapted, shares in ((teacher, (0.5, 1.0)), (student, (0.25, 1.0))):
        assert set(adapted.losses) == {0.0, *shares}
        assert adapted.share == min(shares, key=lambda s: adapted.losses[s])
        assert held_back_loss(adapted.model, upload.held_back) == pytest.approx(
            adapted.losses[adapted.share], rel=1e-5
        )
    assert (model_hash(tiny), model_hash(tiny_teacher)) == before
    end = train(tiny_teacher, upload.trained, labels, RECIPE)
    expected = interpolate(tiny_teacher, end, teacher.share)
    assert model_hash(teacher.model) == model_hash(expected)
