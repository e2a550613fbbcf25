"""What only a real GPU shows: run with ``pytest -m gpu`` where there is one. test_rehearsal.py runs
all of it on the pretend accelerator, so that the first who has a GPU meets no slip of the pen."""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from endedge.configs import SHIPPED
from endedge.data.coco import Dataset
from endedge.data.frames import Batch, stack_frames
from endedge.data.generated import generate
from endedge.distill import descent
from endedge.distill.feed import Feed, Targets
from endedge.distill.graphs import recording
from endedge.distill.losses import TeacherCache, distillation
from endedge.distill.memory import release
from endedge.distill.model import DetectionModel, load_detector
from endedge.distill.precision import PRECISIONS, computing
from endedge.distill.training import Recipe, train
from endedge.edge.adapt import held_back_losses
from endedge.end.inference import detect
from endedge.end.metric import evaluate
from endedge.lab.devices import why_no_gpu

_WHY_NOT = why_no_gpu()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT or "-")]

STUDENT = load_detector(SHIPPED / "demo/student.safetensors")
TEACHER = load_detector(SHIPPED / "demo/teacher.safetensors")
DEVICE = "cuda"
SIDE, POOL, EVAL = 128, 64, 100
STEPS, SEEDS = 60, 3


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Dataset, Batch]]:
    place, found = tmp_path_factory.mktemp("frames"), {}
    for split, n in (("pool", POOL), ("eval", EVAL)):
        truth = generate(place, domain="field", split=split, n=n, seed=0, size=SIDE)
        found[split] = truth, stack_frames(truth.frames, SIDE, lambda f: f.read())
    return found


def _trained(frames: Batch, recipe: Recipe, losses: list[float] | None = None) -> DetectionModel:
    towards = distillation(TeacherCache(TEACHER, DEVICE))

    def heard(step: int, loss: float) -> None:
        if losses is not None:
            losses.append(loss)

    return train(STUDENT, frames, towards, recipe, device=DEVICE, on_step=heard)


def test_cuda_sees_no_step_wait(
    seen: dict[str, tuple[Dataset, Batch]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch itself raises where the program waits, from the fourth step to the last."""
    batches, read = Feed.__iter__, descent._read

    def strict(feed: Feed) -> Iterator[Targets]:
        for step, targets in enumerate(batches(feed)):
            if step == 3:
                torch.cuda.set_sync_debug_mode("error")
            yield targets
        torch.cuda.set_sync_debug_mode("default")  # what was learned is looked at then

    def reading(*given: object) -> None:
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("default")
        read(*given)  # type: ignore[arg-type]
        torch.cuda.set_sync_debug_mode(mode)

    monkeypatch.setattr(Feed, "__iter__", strict)
    monkeypatch.setattr(descent, "_read", reading)
    try:
        _trained(seen["pool"][1], Recipe(steps=25, batch=16, train_norm=True))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_it_computes_what_the_processor_does(seen: dict[str, tuple[Dataset, Batch]]) -> None:
    truth, frames = seen["eval"]
    assert evaluate(STUDENT, frames, truth, DEVICE).map == pytest.approx(
        evaluate(STUDENT, frames, truth).map, abs=1e-3
    )
    some = frames.take(range(8))
    with computing("fp32", DEVICE):
        there = held_back_losses(STUDENT, some, DEVICE)
    assert there == pytest.approx(held_back_losses(STUDENT, some), rel=1e-3)


def test_precisions_are_worth_the_same(seen: dict[str, tuple[Dataset, Batch]]) -> None:
    """The mean of three seeds each; the seeds themselves differ by a point or two here."""
    truth, frames = seen["eval"]
    means = {}
    for name in PRECISIONS:
        scores = []
        for seed in range(SEEDS):
            recipe = Recipe(steps=STEPS, batch=16, lr=1e-3, train_norm=True, seed=seed)
            with computing(name, DEVICE):
                model = _trained(seen["pool"][1], recipe)
            scores.append(100 * evaluate(model, frames, truth, DEVICE).map)
        means[name] = statistics.mean(scores)
        print(name, [round(s, 2) for s in scores])
    assert max(means.values()) - min(means.values()) < 2.0


def test_memory_is_bounded_and_given_back(seen: dict[str, tuple[Dataset, Batch]]) -> None:
    _trained(seen["pool"][1], Recipe(steps=1, batch=16))  # libraries keep what they first take
    release()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model = _trained(seen["pool"][1], Recipe(steps=10, batch=16))
    detect(model, seen["eval"][1], device=DEVICE)
    peak = torch.cuda.max_memory_allocated() - before
    print(f"peak {peak / 2**20:.0f} MiB")
    assert peak < 2 * 2**30
    release()
    assert torch.cuda.memory_allocated() - before < 2**20
    assert torch.cuda.memory_reserved() < 2**28


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_recorded_step_learns_the_same(
    seen: dict[str, tuple[Dataset, Batch]], precision: str
) -> None:
    """CUDA graphs; kernels that add in any order let the losses drift apart a little."""
    losses: dict[bool, list[float]] = {True: [], False: []}
    for wanted, heard in losses.items():
        recipe = Recipe(steps=12, batch=16, train_norm=True)
        with computing(precision, DEVICE), recording(wanted):
            _trained(seen["pool"][1], recipe, heard)
        print("recorded" if wanted else "one by one", [round(loss, 4) for loss in heard])
    assert len(losses[True]) == 12
    near = 1e-3 if precision == "fp32" else 0.05
    assert losses[True] == pytest.approx(losses[False], rel=near)


def test_killed_and_resumed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    changes = [f"device={DEVICE}", "workers_per_gpu=2", "seeds=[0]", "uplink.frames=[20,32]"]
    changes += ["downlink.budgets_bytes=[30000,110000]", "student.steps=20", "teacher.steps=10"]
    changes += ["data.pool_frames=32", "data.eval_frames=24"]
    code = "from endedge.lab.cli.main import main; raise SystemExit(main())"
    verb = [sys.executable, "-c", code, "measure", "demo", "--out", str(out), *changes]
    job = subprocess.Popen(verb)
    until = time.monotonic() + 300
    while not list((out / "nodes").glob("student-*")) and time.monotonic() < until:
        assert job.poll() is None
        time.sleep(0.2)
    job.send_signal(signal.SIGKILL)
    job.wait()
    students = {p: (p / "record.json").stat().st_mtime for p in (out / "nodes").glob("student-*")}
    assert students
    assert subprocess.run(verb, timeout=600).returncode == 0
    for path, made in students.items():
        assert (path / "record.json").stat().st_mtime == made
    assert len(list((out / "cells").glob("*.json"))) == 4
    record = json.loads(next((out / "nodes").glob("student-*/record.json")).read_text())
    assert record["determinants"]["device"] == DEVICE
