"""The stall lint: where the program waits for an accelerator, by file and line.

A wait costs as long as all kernels that were queued before it, and a training step here is a few
hundred small ones. What is counted as a wait is told in simulated.py.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from endedge.configs import SHIPPED
from endedge.data.coco import Dataset
from endedge.data.frames import Batch, stack_frames
from endedge.data.generated import generate
from endedge.distill import descent
from endedge.distill.adapter_training import learn_adapter
from endedge.distill.feed import Feed, Targets
from endedge.distill.losses import FeatureL2, TeacherCache, distillation, imitation, labels
from endedge.distill.model import DetectionModel, load_detector
from endedge.distill.package.packing import prepare
from endedge.distill.precision import computing
from endedge.distill.recovery import pruned_and_recovered
from endedge.distill.training import Recipe, train
from endedge.edge.adapt import held_back_losses
from endedge.end.inference import detect
from endedge.end.selection import observe
from endedge.lab.cli.main import main

STUDENT = load_detector(SHIPPED / "demo/student.safetensors")
TEACHER = load_detector(SHIPPED / "demo/teacher.safetensors")
RECIPE = Recipe(steps=5, batch=4, layers=5, train_norm=True)


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    place = tmp_path_factory.mktemp("frames")
    return generate(place, domain="field", split="pool", n=10, seed=0, size=64)


@pytest.fixture(scope="module")
def frames(truth: Dataset) -> Batch:
    """Ten frames, one of them without a box."""
    made = stack_frames(truth.frames, 64, lambda f: f.read())
    none = (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    return made.relabel([none[0], *made.boxes[1:]], [none[1], *made.labels[1:]])


def _features(device: str) -> Callable[[DetectionModel], FeatureL2]:
    def make(model: DetectionModel) -> FeatureL2:
        torch.manual_seed(0)
        return FeatureL2(model, TEACHER, device=device)

    return make


OBJECTIVES: dict[str, Callable[[str], Any]] = {
    "labels": lambda device: labels,
    "responses": lambda device: distillation(TeacherCache(TEACHER, device)),
    "feature-l2": _features,
    "imitation": lambda device: imitation(TEACHER, device),
}


def _by_step(
    monkeypatch: pytest.MonkeyPatch, sim: Any, run: Callable[[Any], object]
) -> tuple[list[dict[str, int]], list[float]]:
    """Waits of each step of the training that ``run(on_step)`` is, but for the last (then it ends),
    and its losses."""
    waits: list[dict[str, int]] = []
    losses: list[float] = []
    batches = Feed.__iter__

    def between(feed: Feed) -> Iterator[Targets]:
        for targets in batches(feed):
            waits.append(dict(sim.waits))
            sim.forget()
            yield targets

    monkeypatch.setattr(Feed, "__iter__", between)
    run(_into(losses))
    return waits[1:], losses


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_training_step_waits_for_nothing(
    sim: Any, monkeypatch: pytest.MonkeyPatch, frames: Batch, name: str, precision: str
) -> None:
    wanted: list[float] = []
    with computing(precision):
        train(STUDENT, frames, OBJECTIVES[name]("cpu"), RECIPE, on_step=_into(wanted))

    def run(on_step: Any) -> None:
        with computing(precision, "sim"):
            train(STUDENT, frames, OBJECTIVES[name]("sim"), RECIPE, device="sim", on_step=on_step)

    monkeypatch.setattr(descent, "_READ_EVERY", 3)
    waits, losses = _by_step(monkeypatch, sim, run)
    assert waits[:2] == [{}, {}]
    assert list(waits[2].values()) == [1]  # the losses of three steps are read
    assert next(iter(waits[2])).startswith("from the device @ distill/descent.py")
    assert waits[3:] == [{}]
    assert losses == pytest.approx(wanted, rel=2e-3 if precision == "fp32" else 0.1)
    assert len(losses) == RECIPE.steps
    assert dict(sim.host) == {}


def _into(losses: list[float]) -> Callable[[int, float], None]:
    return lambda step, loss: losses.append(loss)


def test_learning_an_input_adapter_waits_for_nothing(
    sim: Any, monkeypatch: pytest.MonkeyPatch, frames: Batch
) -> None:
    recipe = Recipe(steps=3, batch=4, lr=1e-2)
    waits, _ = _by_step(
        monkeypatch,
        sim,
        lambda on_step: learn_adapter(STUDENT, frames, recipe, device="sim", on_step=on_step),
    )
    assert waits == [{}, {}]


def test_training_integers_waits_for_nothing(
    sim: Any, monkeypatch: pytest.MonkeyPatch, frames: Batch
) -> None:
    aware = Recipe(steps=3, batch=4, lr=3e-4)
    prepared = prepare(STUDENT, frames=frames.images, mode="full", device="sim")
    waits, _ = _by_step(monkeypatch, sim, lambda _: prepared.pack(60_000, aware=aware))
    assert waits == [{}, {}]


def test_an_evaluation_waits_once_a_batch(sim: Any, frames: Batch) -> None:
    wanted = detect(STUDENT, frames)
    sim.forget()
    found = detect(STUDENT, frames, device="sim", batch_size=4)
    assert sim.waits[_only(sim.waits, "inference.py", "from the device")] == 3  # batches
    thrice = sum(sim.waits.values())
    for ours, theirs in zip(found, wanted, strict=True):
        assert np.allclose(ours.boxes, theirs.boxes, atol=1e-3)
        assert np.allclose(ours.scores, theirs.scores, atol=1e-5)
        assert (ours.labels == theirs.labels).all()
    assert dict(sim.host) == {}
    sim.forget()
    detect(STUDENT, frames, device="sim", batch_size=10)
    assert sum(sim.waits.values()) == thrice - 2


def test_what_is_seen_on_the_way_waits_once(sim: Any, frames: Batch) -> None:
    wanted = observe(STUDENT, frames, range(len(frames)))
    sim.forget()
    found = observe(STUDENT, frames, range(len(frames)), device="sim")
    assert np.allclose(found.features, wanted.features, atol=1e-5)
    assert sim.waits[_only(sim.waits, "selection.py", "from the device")] == 1


def test_judging_waits_once_for_all_frames(sim: Any, frames: Batch) -> None:
    wanted = held_back_losses(STUDENT, frames)
    sim.forget()
    assert held_back_losses(STUDENT, frames, "sim") == pytest.approx(wanted, rel=1e-5)
    assert sim.waits[_only(sim.waits, "adapt.py", "from the device")] == 1
    assert dict(sim.host) == {}


def _only(waits: Counter[str], file: str, what: str) -> str:
    [key] = [key for key in waits if file in key and what in key]
    return key


def test_packages_leave_no_convolution_on_the_host(sim: Any, frames: Batch) -> None:
    """What of a model matters is the same on both, so that the package is nearly."""
    here = prepare(STUDENT, frames=frames.images, mode="full").pack(60_000)
    sim.forget()
    prepared = prepare(STUDENT, frames=frames.images, mode="full", device="sim")
    there = prepared.pack(60_000)
    prepared.pack(60_000, aware=Recipe(steps=0))  # judged by what it predicts
    assert dict(sim.host) == {}
    assert there.report.step == pytest.approx(here.report.step, rel=0.05)
    assert there.report.expected_loss == pytest.approx(here.report.expected_loss, rel=0.05)


def test_pruning_and_recovery_leave_none_either(sim: Any, frames: Batch) -> None:
    recipe = Recipe(steps=2, batch=4, layers=None)

    def small(device: str) -> DetectionModel:
        return pruned_and_recovered(
            STUDENT, 0.8, frames, recipe, calibration=frames.images[:2], device=device
        )

    wanted = held_back_losses(small("cpu"), frames)
    sim.forget()
    found = small("sim")
    assert {k for k in sim.host if "conv" in k} == set()
    assert held_back_losses(found, frames) == pytest.approx(wanted, rel=0.02)


def test_the_verb_packs_on_the_device(
    sim: Any, truth: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sensitivities, pruning, recovery, trained integers and the last look at the result."""
    pictures = tmp_path / "frames"
    pictures.mkdir()
    for frame in truth.frames[:3]:
        shutil.copy(frame.path, pictures / frame.path.name)
    monkeypatch.setattr("endedge.lab.devices.pick_device", lambda said: {"cuda:1": "sim"}[said])
    verb = ["pack", str(SHIPPED / "demo/student.safetensors"), "--device", "cuda:1"]
    verb += ["--frames", str(pictures), "--imgsz", "64", "--keep", "1,0.8", "--steps", "1"]
    sim.forget()
    assert main([*verb, "--aware", "1", "--budget", "60kB", "-o", str(tmp_path / "u.eeu")]) == 0
    assert dict(sim.host) == {}
    assert sim.kernels > 1000


def test_the_lint_sees_what_it_should(sim: Any, tmp_path: Path) -> None:
    """Each kind of wait, so that a count of none says something."""
    there = torch.ones(4, device="sim")
    for wait, kind in (
        (lambda: float(there[0]), "_local_scalar_dense"),
        (lambda: there.nonzero(), "nonzero"),
        (lambda: there[there > 0], "index by a mask"),
        (lambda: there[torch.tensor([0, 2])], "index by indices of the host"),
        (lambda: there.cpu(), "from the device"),
        (lambda: torch.ones(3).to("sim"), "to the device"),
        (lambda: torch.tensor(3.0, device="sim"), "to the device"),
    ):
        sim.forget()
        wait()
        assert any(key.startswith(kind) for key in sim.waits), kind
    sim.forget()
    with pytest.raises(RuntimeError, match="sim and host"):
        there + torch.ones(4)
    assert (there + torch.tensor(1.0)).device.type == "sim"  # a number may come along
    assert torch.nn.functional.conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3)).item() == 9
    assert any("convolution" in key for key in sim.host)
