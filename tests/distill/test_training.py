from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from endedge.data.coco import Frame
from endedge.data.errors import BadInput
from endedge.data.frames import Batch, stack_frames
from endedge.distill.feed import gather
from endedge.distill.losses import Objective, Targets, labels
from endedge.distill.model import DetectionModel, model_hash
from endedge.distill.training import Recipe, interpolate, train


@pytest.fixture
def frames() -> Batch:
    """Six frames, each with one bright square on black."""
    rng = np.random.default_rng(0)
    made, pictures = [], {}
    for i in range(6):
        x, y = (int(v) for v in rng.integers(0, 32, 2))
        picture = np.zeros((64, 64, 3), np.uint8)
        picture[y : y + 30, x : x + 30] = 255
        pictures[i] = picture
        box = np.array([[x, y, 30, 30]], np.float32)
        made.append(Frame(i, Path(), 64, 64, box, np.array([i % 2]), np.zeros(1, bool)))
    return stack_frames(made, 64, lambda f: pictures[f.image_id])


QUICK = Recipe(steps=3, batch=2, lr=1e-3, layers=None)


def test_only_the_first_layers_move_and_the_start_does_not(
    tiny: DetectionModel, frames: Batch
) -> None:
    before = model_hash(tiny)
    moved = train(tiny, frames, labels, Recipe(steps=3, batch=2, lr=1e-3, layers=2))
    assert model_hash(tiny) == before
    start, end = tiny.state_dict(), moved.state_dict()
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    assert changed
    assert {int(name.split(".")[1]) for name in changed} == {0, 1}
    assert not any("running" in name for name in changed)  # batch-norm statistics stay


def test_train_norm_lets_the_statistics_follow(tiny: DetectionModel, frames: Batch) -> None:
    moved = train(tiny, frames, labels, Recipe(steps=2, batch=2, layers=2, train_norm=True))
    start, end = tiny.state_dict(), moved.state_dict()
    changed = {n for n in start if "running_mean" in n and not torch.equal(start[n], end[n])}
    assert {int(name.split(".")[1]) for name in changed} == {0, 1}


def test_the_same_seed_gives_the_same_weights(tiny: DetectionModel, frames: Batch) -> None:
    assert model_hash(train(tiny, frames, labels, QUICK)) == model_hash(
        train(tiny, frames, labels, QUICK)
    )
    other = Recipe(steps=3, batch=2, lr=1e-3, layers=None, seed=1)
    assert model_hash(train(tiny, frames, labels, QUICK)) != model_hash(
        train(tiny, frames, labels, other)
    )


def test_it_learns(tiny: DetectionModel, frames: Batch) -> None:
    losses: list[float] = []
    recipe = Recipe(steps=40, batch=6, lr=5e-3, layers=None, train_norm=True)
    train(tiny, frames, labels, recipe, on_step=lambda step, loss: losses.append(loss))
    assert len(losses) == 40
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])


def test_the_criterion_moves_with_the_model(tiny: DetectionModel, frames: Batch) -> None:
    assert model_hash(train(tiny, frames, labels, Recipe(steps=0))) == model_hash(tiny)


def test_interpolation_is_linear(tiny: DetectionModel, tiny_teacher: DetectionModel) -> None:
    other = train_free_copy(tiny)
    half = interpolate(tiny, other, 0.5).state_dict()
    a, b = tiny.state_dict(), other.state_dict()
    for name, tensor in half.items():
        if tensor.is_floating_point():
            assert torch.allclose(tensor, (a[name] + b[name]) / 2, atol=1e-6)
    assert model_hash(interpolate(tiny, other, 0.0)) == model_hash(tiny)


def train_free_copy(model: DetectionModel) -> DetectionModel:
    from endedge.distill.model import clone

    twin = clone(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return twin


def test_a_mirrored_frame_has_mirrored_boxes(frames: Batch) -> None:
    plain, mirrored = gather(frames, [0], [False], "cpu"), gather(frames, [0], [True], "cpu")
    assert torch.equal(mirrored.images, plain.images.flip(3))
    assert torch.allclose(mirrored.rows[:, 2], 1 - plain.rows[:, 2])
    assert torch.equal(mirrored.rows[:, 3:], plain.rows[:, 3:])
    # the pixels under the mirrored box are the bright square
    x, y, w, h = (mirrored.rows[0, 2:] * 64).round().int().tolist()
    assert mirrored.images[0, :, y - h // 2 : y + h // 2, x - w // 2 : x + w // 2].min() > 0.9


@pytest.mark.parametrize("wrong", [{"steps": -1}, {"batch": 0}, {"lr": 0.0}, {"ema": 1.0}])
def test_bad_recipes(wrong: dict[str, float]) -> None:
    with pytest.raises(BadInput, match="recipe needs"):
        Recipe(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_training_that_diverges_stops_at_once(
    tiny: DetectionModel, frames: Batch, poison: float
) -> None:
    heard: list[int] = []

    def objective(model: DetectionModel) -> Objective:
        inner = labels(model)

        def loss(predictions: dict[str, Any], targets: Targets) -> torch.Tensor:
            value: torch.Tensor = inner(predictions, targets)
            return value * poison if len(heard) == 2 else value

        return loss

    recipe = Recipe(steps=9, batch=2, lr=0.25)
    with pytest.raises(BadInput, match=r"is (nan|inf) at step 3 of 9, at a rate of 0\.2"):
        train(tiny, frames, objective, recipe, on_step=lambda step, _: heard.append(step))
    assert heard == [1, 2]


def test_weights_that_the_last_step_broke_are_no_result(
    tiny: DetectionModel, frames: Batch
) -> None:
    def objective(model: DetectionModel) -> Objective:
        inner, first = labels(model), next(model.parameters())

        def loss(predictions: dict[str, Any], targets: Targets) -> torch.Tensor:
            value: torch.Tensor = inner(predictions, targets)
            nothing: torch.Tensor = (first * 0).abs().sum().sqrt()  # 0, of a slope that is none
            return value.add(nothing)

        return loss

    with pytest.raises(BadInput, match="training diverged"):
        train(tiny, frames, objective, Recipe(steps=1, batch=2, lr=1e-3))
