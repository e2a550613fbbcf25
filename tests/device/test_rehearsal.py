"""The tests of a real GPU (test_gpu.py) on the pretend accelerator, with little to compute: what
they call is there, and takes what it is given. Of a GPU itself they say nothing here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from endedge.data.frames import stack_frames
from endedge.data.generated import generate
from tests.device import test_gpu

SIDE = 64


@pytest.fixture
def seen(tmp_path: Path) -> dict[str, Any]:
    found = {}
    for split in ("pool", "eval"):
        truth = generate(tmp_path, domain="field", split=split, n=8, seed=0, size=SIDE)
        found[split] = truth, stack_frames(truth.frames, SIDE, lambda f: f.read())
    return found


@pytest.fixture
def gpu(sim: Any, tapes: list[Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of those tests, as if the pretend accelerator were a GPU of NVIDIA's."""
    mode = ["default"]

    def watch(wanted: str) -> None:
        if mode[0] == "error":
            assert dict(sim.waits) == {}, "called a synchronizing CUDA operation"
        sim.forget()
        mode[0] = wanted

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", watch)
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: mode[0])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    for name in ("memory_allocated", "max_memory_allocated", "memory_reserved"):
        monkeypatch.setattr(torch.cuda, name, lambda: 0)
    monkeypatch.setattr("endedge.distill.precision.check_precision", lambda name, device: None)
    monkeypatch.setattr(test_gpu, "DEVICE", "sim")
    monkeypatch.setattr(test_gpu, "STEPS", 1)
    monkeypatch.setattr(test_gpu, "SEEDS", 1)
    return test_gpu


def test_no_wait(gpu: Any, seen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu.test_cuda_sees_no_step_wait(seen, monkeypatch)


def test_a_wait_would_be_noticed(gpu: Any, seen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "endedge.distill.descent.nn.utils.clip_grad_norm_",
        lambda trained, steepest: float(trained[0].grad.sum()),
    )
    with pytest.raises(AssertionError, match="a synchronizing CUDA operation"):
        gpu.test_cuda_sees_no_step_wait(seen, monkeypatch)


def test_results(gpu: Any, seen: Any) -> None:
    gpu.test_it_computes_what_the_processor_does(seen)


def test_precisions(gpu: Any, seen: Any) -> None:
    gpu.test_precisions_are_worth_the_same(seen)


def test_memory(gpu: Any, seen: Any) -> None:
    gpu.test_memory_is_bounded_and_given_back(seen)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recorded(gpu: Any, seen: Any, tapes: list[Any], precision: str) -> None:
    gpu.test_a_recorded_step_learns_the_same(seen, precision)
    assert len(tapes) == 1


@pytest.mark.slow  # two sweeps of the demo
def test_killed_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_gpu, "DEVICE", "cpu")
    test_gpu.test_killed_and_resumed(tmp_path)
