"""Which of the models that a device keeps suits the frames that came."""

from __future__ import annotations

import pytest
import torch

from endedge.configs import SHIPPED
from endedge.data.frames import Batch, stack_frames
from endedge.data.generated import generate
from endedge.distill.model import DetectionModel, clone, load_detector
from endedge.edge.adapt import held_back_loss
from endedge.edge.recall import Kept, recall


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    made = generate(
        tmp_path_factory.mktemp("f"), domain="source", split="pool", n=8, seed=2, size=64
    )
    return stack_frames(made.frames, 64, lambda frame: frame.read())


def dimmed(model: DetectionModel, factor: float) -> DetectionModel:
    other = clone(model)
    with torch.no_grad():
        next(iter(other.parameters())).mul_(factor)
    return other


def test_the_best_of_them_if_it_is_surely_better_than_what_runs(frames: Batch) -> None:
    good = load_detector(SHIPPED / "demo/student.safetensors")
    bad, worse = dimmed(good, 0.4), dimmed(good, 0.2)
    kept = [Kept(worse, "c"), Kept(good, "a")]
    found = recall(kept, bad, frames, least=4)
    assert found is not None
    assert (found.model, found.architecture) == (good, "a")
    assert found.verdict.helps
    assert found.verdict.frames == 8
    assert found.verdict.before == pytest.approx(held_back_loss(bad, frames))
    for some, running, least in (
        ([Kept(bad, "b"), Kept(worse, "c")], good, 4),  # what runs is better
        ([Kept(clone(good), "a")], good, 4),  # the same
        (kept, bad, 9),  # too few frames say so
        ([], bad, 4),
    ):
        assert recall(some, running, frames, least=least) is None
