"""A training step as one recording: what it needs, on the pretend accelerator, and that it computes
what steps one by one do. The recordings are pretend, too (simulated.py): of a real one ask
``pytest -m gpu``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from endedge.configs import SHIPPED
from endedge.data.errors import BadInput
from endedge.data.frames import Batch, unlabelled
from endedge.distill.adapter import adapter_of
from endedge.distill.adapter_training import learn_adapter
from endedge.distill.feed import Feed, Targets
from endedge.distill.graphs import check_graphs, recorded_on, recording
from endedge.distill.losses import TeacherCache, distillation, labels
from endedge.distill.model import DetectionModel, load_detector
from endedge.distill.precision import computing
from endedge.distill.training import Recipe, train
from endedge.lab.config import load_config
from endedge.lab.inputs import Inputs

STUDENT = load_detector(SHIPPED / "demo/student.safetensors")
TEACHER = load_detector(SHIPPED / "demo/teacher.safetensors")
RECIPE = Recipe(steps=7, batch=4, lr=1e-3, layers=5, train_norm=True)


@pytest.fixture(scope="module")
def frames() -> Batch:
    """Six frames with no box, one, and up to nine: two rows of eight."""
    drawn = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8, generator=drawn)
    counts = (0, 1, 9, 2, 3, 8)
    where = [0.25 + 0.5 * torch.rand(n, 4, generator=drawn) for n in counts]
    return unlabelled(images).relabel(where, [torch.zeros(n, dtype=torch.int64) for n in counts])


def _towards(name: str) -> Callable[[DetectionModel], Any]:
    return labels if name == "labels" else distillation(TeacherCache(TEACHER, "sim"))


def _into(losses: list[float]) -> Callable[[int, float], None]:
    return lambda step, loss: losses.append(loss)


def test_every_step_has_the_same_shapes(sim: Any, frames: Batch) -> None:
    """Boxes are filled up to those of the fullest frame, and to a multiple of eight."""
    some = frames.take([0, 1, 3])
    orders = [([0, 1], [False, True]), ([2, 1], [True, True]), ([0, 0], [False, False])]
    full = [([2, 0], [False, False]), ([0, 0], [True, True])]
    shapes = [t.padded.shape for t in Feed(some, orders, "sim") if t.padded is not None]
    assert shapes == [(2, 8, 5)] * 3
    assert [t.padded.shape for t in Feed(frames, full, "sim") if t.padded is not None] == [
        (2, 16, 5)
    ] * 2


@pytest.mark.parametrize("name", ["labels", "responses"])
def test_every_step_does_the_same_operations(
    sim: Any, monkeypatch: pytest.MonkeyPatch, frames: Batch, name: str
) -> None:
    counts: list[int] = []
    batches = Feed.__iter__

    def between(feed: Feed) -> Iterator[Targets]:
        for targets in batches(feed):
            counts.append(sim.kernels)
            sim.forget()
            yield targets

    monkeypatch.setattr(Feed, "__iter__", between)
    train(STUDENT, frames, _towards(name), RECIPE, device="sim")
    assert len(set(counts[3:])) == 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["labels", "responses"])
def test_a_recording_trains_as_steps_do(
    sim: Any, tapes: list[Any], frames: Batch, name: str, precision: str
) -> None:
    models: dict[bool, DetectionModel] = {}
    losses: dict[bool, list[float]] = {False: [], True: []}
    for wanted, heard in losses.items():
        with computing(precision, "sim"), recording(wanted):
            models[wanted] = train(
                STUDENT,
                frames,
                _towards(name),
                RECIPE,
                device="sim",
                on_step=_into(heard),
            )
    assert len(tapes) == 1
    near = 1e-4 if precision == "fp32" else 0.02
    assert losses[True] == pytest.approx(losses[False], rel=near)
    assert len(set(losses[True])) == RECIPE.steps
    if precision == "bf16":  # rounding then decides where AdamW goes
        return
    states = (models[True].state_dict(), models[False].state_dict())
    for (key, ours), theirs in zip(states[0].items(), states[1].values(), strict=True):
        assert torch.allclose(ours.float(), theirs.float(), rtol=1e-2, atol=5e-4), key


def test_short_trainings_are_not_recorded(sim: Any, tapes: list[Any], frames: Batch) -> None:
    with recording(True):
        train(STUDENT, frames, labels, Recipe(steps=3, batch=4), device="sim")
    assert tapes == []


def test_adapters_are_learned_by_one_too(sim: Any, tapes: list[Any], frames: Batch) -> None:
    learned = []
    for wanted in (False, True):
        with recording(wanted):
            model = learn_adapter(STUDENT, frames, RECIPE, device="sim")
        adapter = adapter_of(model)
        assert adapter is not None
        learned.append(adapter.curve)
    assert len(tapes) == 1
    assert torch.allclose(learned[0], learned[1], atol=1e-5)


def test_a_loss_that_waits_cannot_be_recorded(sim: Any, tapes: list[Any], frames: Batch) -> None:
    def towards(model: DetectionModel) -> Any:
        own = labels(model)
        return lambda predictions, targets: own(predictions, targets) * float(targets.images.max())

    with recording(True), pytest.raises(RuntimeError, match="when stream is capturing"):
        train(STUDENT, frames, towards, RECIPE, device="sim")


def test_nor_one_that_reads_rows(sim: Any, tapes: list[Any], frames: Batch) -> None:
    """How many there are changes from batch to batch."""

    def towards(model: DetectionModel) -> Any:
        own = labels(model)
        return lambda predictions, targets: own(predictions, targets) + targets.rows.sum()

    with recording(True), pytest.raises(AttributeError, match="sum"):
        train(STUDENT, frames, towards, RECIPE, device="sim")


def test_there_are_none_elsewhere(tmp_path: Path) -> None:
    with recording(True):
        assert not recorded_on("cpu")
        assert recorded_on("cuda")
        assert recorded_on("cuda:1")
    assert not recorded_on("cuda")
    check_graphs("cuda:1")
    with pytest.raises(BadInput, match="cuda_graphs: there are none on cpu") as refused:
        check_graphs("cpu")
    assert "\n" not in str(refused.value)
    config = load_config(SHIPPED / "demo.yaml", ["cuda_graphs=true", "device=cpu"])
    with pytest.raises(BadInput, match="cuda_graphs: there are none on cpu"):
        Inputs.of(config, tmp_path)
