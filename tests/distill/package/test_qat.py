"""Integers that are trained: closer to the whole model, never over the budget, decoded exactly."""

from __future__ import annotations

import pytest
import torch

from endedge.configs import SHIPPED
from endedge.data.coco import read_image
from endedge.data.errors import BadInput
from endedge.data.frames import stack_frames
from endedge.data.generated import generate
from endedge.distill.losses import divergence
from endedge.distill.model import DetectionModel, load_detector, model_hash
from endedge.distill.package.format import unpack
from endedge.distill.package.packing import pack
from endedge.distill.training import Recipe

RECIPE = Recipe(steps=25, batch=8, lr=1e-3)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    folder = tmp_path_factory.mktemp("scenes")
    scenes = generate(folder, domain="source", split="pool", n=64, seed=0, size=128)
    return stack_frames(scenes.frames, 128, lambda f: read_image(f.path)).images


@pytest.fixture(scope="module")
def model() -> DetectionModel:
    return load_detector(SHIPPED / "demo/student.safetensors")


def test_small_packages_come_closer_in_the_same_bytes(
    model: DetectionModel, frames: torch.Tensor
) -> None:
    heard: list[str] = []
    plain = pack(model, 10_000, frames=frames[:24], aware=Recipe(steps=0))
    trained = pack(
        model,
        10_000,
        frames=frames[:24],
        aware=RECIPE,
        watch=lambda share, text: heard.append(text),
    )
    assert 0.97 * 10_000 <= len(trained.data) <= 10_000
    assert sum("integers, step" in text for text in heard) == RECIPE.steps
    far, near = (divergence(model, unpack(p.data), frames[24:]) for p in (plain, trained))
    assert near < far


def test_a_delta_is_left_alone(model: DetectionModel, frames: torch.Tensor) -> None:
    base = unpack(pack(model, 12_000, frames=frames[:24]).data)
    one, other = (
        pack(model, 6_000, base=base, frames=frames, mode="delta", aware=aware).data
        for aware in (None, RECIPE)
    )
    assert one == other


def test_training_that_harms_is_thrown_away(model: DetectionModel, frames: torch.Tensor) -> None:
    before = model_hash(model)
    brutal = pack(model, 14_000, frames=frames, aware=Recipe(steps=2, batch=8, lr=1.0))
    untrained = pack(model, 14_000, frames=frames, aware=Recipe(steps=0))
    assert brutal.data == untrained.data
    assert model_hash(model) == before


def test_it_needs_frames(model: DetectionModel) -> None:
    with pytest.raises(BadInput, match="at least 2"):
        pack(model, 14_000, aware=RECIPE)
