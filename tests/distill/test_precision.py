"""The arithmetic of networks: what is rounded, where, and what never is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from endedge.data.errors import BadInput
from endedge.data.frames import Batch, unlabelled
from endedge.distill.adapter import attach, start_adapter
from endedge.distill.adapter_training import learn_adapter
from endedge.distill.losses import Targets, TeacherCache, labels
from endedge.distill.model import DetectionModel, clone, model_hash
from endedge.distill.precision import autocast, check_precision, computing
from endedge.distill.training import Recipe, train
from endedge.edge.adapt import held_back_losses
from endedge.end.inference import detect

RECIPE = Recipe(steps=3, batch=2, lr=1e-3, layers=None)


@pytest.fixture
def frames() -> Batch:
    pictures = np.random.default_rng(0).integers(0, 255, (4, 3, 64, 64), np.uint8)
    return replace(
        unlabelled(torch.from_numpy(pictures)),
        boxes=tuple(torch.tensor([[0.3, 0.4 + 0.1 * i, 0.4, 0.5]]) for i in range(4)),
        labels=tuple(torch.tensor([i % 2]) for i in range(4)),
    )


@pytest.fixture
def switches() -> Iterator[Callable[[bool, bool], None]]:
    """Sets PyTorch's two switches of tf32, and puts them back."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32

    def turn(one: bool, other: bool) -> None:
        products.allow_tf32, convolutions.allow_tf32 = one, other

    yield turn
    turn(*before)


@pytest.mark.parametrize(
    ("precision", "device", "says"),
    [
        ("fp16", "cpu", "precision 'fp16'; there are fp32, tf32, bf16"),
        ("auto", "cpu", "precision 'auto'; there are"),
        ("tf32", "cpu", "precision tf32 is one of NVIDIA's GPUs, the device is cpu; use"),
    ],
)
def test_what_there_is_not_is_refused_in_one_line(precision: str, device: str, says: str) -> None:
    with pytest.raises(BadInput, match=says) as caught, computing(precision, device):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("precision", "device"), [("fp32", "cpu"), ("bf16", "cpu")])
def test_what_there_is_is_taken(precision: str, device: str) -> None:
    check_precision(precision, device)
    check_precision("tf32", "cuda:1")


def test_eight_bits_of_a_fraction_are_kept_and_the_ninth_is_not() -> None:
    layer = nn.Conv2d(1, 1, 1, bias=False)
    seen = {}
    for bits in (7, 9):
        layer.weight.data.fill_(1 + 2.0**-bits)
        for precision in ("fp32", "bf16"):
            with computing(precision), autocast("cpu"), torch.no_grad():
                seen[bits, precision] = float(layer(torch.ones(1, 1, 1, 1)))
    assert seen[7, "fp32"] == seen[7, "bf16"] == 1 + 2.0**-7
    assert seen[9, "fp32"] == 1 + 2.0**-9
    assert seen[9, "bf16"] == 1.0


def test_it_is_over_when_the_block_is_even_after_an_error() -> None:
    def dtype() -> torch.dtype:
        with autocast("cpu"), torch.no_grad():
            found: torch.dtype = nn.Linear(2, 2)(torch.ones(1, 2)).dtype
            return found

    assert dtype() == torch.float32
    with computing("bf16"):
        assert dtype() == torch.bfloat16
        with computing("fp32"):
            assert dtype() == torch.float32
        with pytest.raises(ValueError, match="stop"), computing("fp32"):
            raise ValueError("stop")
        assert dtype() == torch.bfloat16
    assert dtype() == torch.float32


def test_tf32_is_put_back_as_it_was(switches: Callable[[bool, bool], None]) -> None:
    """The switches are PyTorch's, for the whole process: its own default is half on."""
    for products, convolutions in ((False, True), (True, True)):
        switches(products, convolutions)
        for precision, allowed in (("fp32", False), ("tf32", True), ("bf16", False)):
            with computing(precision, "cuda"):
                assert torch.backends.cuda.matmul.allow_tf32 is allowed
                assert torch.backends.cudnn.allow_tf32 is allowed
            assert torch.backends.cuda.matmul.allow_tf32 is products
            assert torch.backends.cudnn.allow_tf32 is convolutions


def test_a_training_in_bf16_gives_nearly_the_same_weights_in_fp32(
    tiny: DetectionModel, frames: Batch
) -> None:
    exact = train(tiny, frames, labels, RECIPE)
    with computing("bf16"):
        found = train(tiny, frames, labels, RECIPE)
        again = train(tiny, frames, labels, RECIPE)
    assert model_hash(found) == model_hash(again) != model_hash(exact)
    start = tiny.state_dict()
    moved = apart = 0.0
    for name, value in found.state_dict().items():
        assert value.dtype == start[name].dtype
        moved += float((exact.state_dict()[name].double() - start[name].double()).square().sum())
        apart += float((exact.state_dict()[name].double() - value.double()).square().sum())
    assert 0 < apart < 0.2 * moved


def test_the_adapter_of_the_input_is_learned_in_bf16_too(
    tiny: DetectionModel, frames: Batch
) -> None:
    exact = learn_adapter(tiny, frames, RECIPE)
    with computing("bf16"):
        found = learn_adapter(tiny, frames, RECIPE)
    ours, theirs = (m.input_adapter.curve for m in (found, exact))
    assert torch.allclose(ours, theirs, atol=5e-3)


def test_a_teacher_is_asked_in_the_precision_that_is_set(
    tiny: DetectionModel, frames: Batch
) -> None:
    images = frames.images.float() / 255
    targets = Targets(images, torch.zeros(0, 6), (0, 1, 2, 3), (False,) * 4)
    exact = TeacherCache(tiny)(targets)[0]
    with computing("bf16"):
        rounded = TeacherCache(tiny)(targets)[0]
    assert not torch.equal(exact, rounded)
    assert torch.allclose(exact, rounded, atol=0.1)


@pytest.mark.parametrize("adapted", [False, True])
def test_judging_in_bf16_is_nearly_that_in_fp32(
    tiny: DetectionModel, frames: Batch, adapted: bool
) -> None:
    model = clone(tiny)
    if adapted:
        attach(model, start_adapter("gamma-2", per_frame=True))
    exact = held_back_losses(model, frames)
    with computing("bf16"):
        found = held_back_losses(model, frames)
    assert not np.array_equal(found, exact)
    assert found == pytest.approx(exact, rel=0.02)


def test_detections_are_those_of_fp32_whatever_is_set(tiny: DetectionModel, frames: Batch) -> None:
    exact = detect(tiny, frames, min_score=1e-9)
    with computing("bf16"):
        found = detect(tiny, frames, min_score=1e-9)
    assert sum(len(one.scores) for one in exact) > 0
    for one, other in zip(exact, found, strict=True):
        assert np.array_equal(one.scores, other.scores)
        assert np.array_equal(one.boxes, other.boxes)
