"""Devices as people have them: named, resolved, found missing, and dealt out among workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from endedge.configs import SHIPPED
from endedge.data.errors import BadInput
from endedge.lab.cli.doctor import checks
from endedge.lab.config import Config, load_config, parse_device
from endedge.lab.devices import (
    check_device,
    device_of,
    gpus,
    kind_of_device,
    masks,
    pick_device,
    placed,
    usable,
    why_no_gpu,
)
from endedge.lab.store import Store
from endedge.lab.sweep import executors
from endedge.lab.sweep.executors import engine_of
from endedge.lab.sweep.workers import how_many, spawned
from tests.device.masked import mask_here

DEMO = SHIPPED / "demo.yaml"


def _config(*more: str) -> Config:
    return load_config(DEMO, list(more))


# Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "means"),
    [
        *((name, name) for name in ("auto", "cpu", "cuda", "mps", "cuda:0", "cuda:9")),
        ("0", "cuda:0"),
        (1, "cuda:1"),
        ("cuda:007", "cuda:7"),
    ],
)
def test_one_parser_for_all_names(said: object, means: str) -> None:
    assert parse_device(said) == means
    assert _config(f"device={said}").device == means
    assert kind_of_device(means) == means.split(":")[0]


@pytest.mark.parametrize(
    "said", ["gpu", "cuda:", "cuda:x", "CPU", "", "cpu\n", "-1", "cuda:-1", "cpu:0", "1.0", "0,1"]
)
def test_what_is_no_device(said: str) -> None:
    with pytest.raises(BadInput, match=r"there are auto, cpu, cuda, one GPU by its number"):
        parse_device(said)
    with pytest.raises(BadInput, match="device"):
        pick_device(said)
    with pytest.raises(ValueError, match="there are auto"):
        Config.model_validate({**_config().model_dump(), "device": said})


# What there is --------------------------------------------------------------------------------


def _fake(
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    *,
    says: str = "No CUDA GPUs are available",
    build: str | None = "13.0",
    code: tuple[str, ...] = ("sm_80", "sm_90", "compute_90"),
    capability: tuple[int, int] = (9, 0),
    mask: str | None = None,
) -> None:
    """As if PyTorch saw ``count`` GPUs, or said why not."""

    def init() -> None:
        if count == 0:
            raise RuntimeError(says)

    def properties(k: int) -> Any:
        major, minor = capability
        return SimpleNamespace(name="Fake 9000", total_memory=2**34, major=major, minor=minor)

    monkeypatch.setattr(torch.version, "cuda", build)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(code))
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if mask is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)


NO_DRIVER = "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU"
TOO_OLD = "The NVIDIA driver on your system is too old (found version 11040). Please update"
CAUSES: dict[str, tuple[dict[str, Any], str]] = {
    "a build for processors": ({"count": 0, "build": None}, "was built for processors only"),
    "no driver": ({"count": 0, "says": NO_DRIVER}, "driver is not installed here"),
    "no driver, masked too": ({"count": 0, "says": NO_DRIVER, "mask": "0"}, "is not installed"),
    "a driver too old": ({"count": 0, "says": TOO_OLD}, "too old for this PyTorch (CUDA 13.0)"),
    "masked": ({"count": 0, "mask": ""}, "CUDA_VISIBLE_DEVICES is '', which leaves PyTorch no"),
    "masked by a wrong one": ({"count": 0, "mask": "7"}, "CUDA_VISIBLE_DEVICES is '7'"),
    "a new architecture": (
        {"count": 1, "capability": (10, 0), "code": ("sm_80", "sm_90")},
        "has no code for Fake 9000 (sm_100; it has sm_80, sm_90)",
    ),
    "an old architecture": (
        {"count": 1, "capability": (6, 1)},
        "has no code for Fake 9000 (sm_61; it has sm_80, sm_90, compute_90)",
    ),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_doctor_says_why_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cause: str
) -> None:
    faked, says = CAUSES[cause]
    _fake(monkeypatch, **faked)
    [found] = [check for check in checks(tmp_path, test=False) if check.name == "gpu"]
    assert found.state == "note"
    assert says in found.says
    others = [text for name, (_, text) in CAUSES.items() if name.split(",")[0] not in cause]
    assert sum(text in found.says for text in others if text not in says and says not in text) == 0
    with pytest.raises(BadInput) as refused:
        check_device("cuda")
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert pick_device("auto") == usable("cuda:1") == "cpu"


@pytest.mark.parametrize(
    ("code", "capability"),
    [
        (("sm_80", "sm_90"), (8, 0)),
        (("sm_80", "sm_90"), (8, 9)),  # newer of the same generation
        (("sm_80", "compute_80"), (12, 0)),  # compiled when it is first used
        (("sm_90a", "sm_100"), (9, 0)),
    ],
)
def test_architectures_that_there_is_code_for(
    monkeypatch: pytest.MonkeyPatch, code: tuple[str, ...], capability: tuple[int, int]
) -> None:
    _fake(monkeypatch, 1, code=code, capability=capability)
    assert [gpu.supported for gpu in gpus()] == [True]
    assert why_no_gpu() == ""
    assert pick_device("auto") == "cuda"


def test_numbers_that_there_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _fake(monkeypatch, 2)
    assert pick_device("1") == "cuda:1"
    with pytest.raises(BadInput, match=r"device cuda:2: PyTorch sees 2 here, cuda:0 to cuda:1"):
        pick_device("cuda:2")
    [found] = [check for check in checks(tmp_path, test=False) if check.name == "gpu"]
    assert (found.state, found.says) == ("ok", "Fake 9000 16 GiB, Fake 9000 16 GiB, CUDA 13.0")


# Several of them ------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 8])
def test_all_gpus_are_used(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    _fake(monkeypatch, count)
    config = _config("device=cuda", "workers_per_gpu=3", "workers=auto")
    assert how_many(config) == 3 * count
    assert engine_of(config)[0] is executors.processes
    assert masks("cuda", 3) == [str(k) for k in range(count)] * 3
    assert masks("cuda:1", 3) == ["1"] * 3
    assert how_many(_config("device=cuda:1", "workers_per_gpu=3", "workers=auto")) == 3
    assert masks("cpu", 3) == []


def test_a_mask_of_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a scheduler gave this process is dealt out, by the names that it gave."""
    _fake(monkeypatch, 2, mask="5,GPU-1f")
    assert masks("cuda", 1) == ["5", "GPU-1f"]
    assert masks("cuda:1", 2) == ["GPU-1f"] * 2


def test_every_worker_has_its_mask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _fake(monkeypatch, 2)
    with spawned(2, "cuda") as pool:
        seen = [pool.submit(mask_here, tmp_path, 2) for _ in range(2)]
        assert sorted(mask.result() for mask in seen) == ["0", "1"]


def test_a_worker_s_modules_touch_no_gpu() -> None:
    """Else the mask, which a worker sets when it begins, would come too late."""
    code = (
        "import torch\n"
        "def touched(*_): raise SystemExit('touched')\n"
        "torch._C._cuda_getDeviceCount = torch._C._cuda_init = touched\n"
        "import endedge.lab.sweep.executors, endedge.lab.loop.loop\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# Folders --------------------------------------------------------------------------------------


def test_a_folder_reads_the_same_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What ``auto`` was where it was measured, it is everywhere."""
    auto, out = _config("device=auto"), tmp_path / "out"
    _fake(monkeypatch, 1)
    assert device_of(auto, out) == "cuda"
    began = placed(auto, out)
    out.mkdir()
    (out / "config.yaml").write_text(began.to_yaml())
    _fake(monkeypatch, 0, says=NO_DRIVER)
    assert device_of(auto, out) == "cuda"
    assert device_of(auto, tmp_path / "other") == "cpu"
    assert device_of(_config("device=1"), out) == "cuda:1"  # asked for, and not checked to read


def test_an_older_folder_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its configuration says ``auto``; its results say what that was."""
    auto = _config("device=auto")
    (tmp_path / "config.yaml").write_text(auto.to_yaml())
    _fake(monkeypatch, 1)
    assert device_of(auto, tmp_path) == "cuda"
    Store(tmp_path).node("start", {"version": 2, "device": "cpu"}, lambda folder: {})
    assert device_of(auto, tmp_path) == "cpu"


def test_engines_that_are_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    config = _config("engine=slurm", "workers=auto", "device=cpu")
    assert engine_of(config)[1] == how_many(config)
    sbatch = tmp_path / "sbatch"
    sbatch.write_text("#!/bin/sh\n")
    sbatch.chmod(0o755)
    assert engine_of(config)[1] == 64


def test_slurm_that_is_not_there_is_no_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so and takes no more processes than cores; for GPUs it is refused."""
    updated: dict[str, Any] = {}
    executor = SimpleNamespace(update_parameters=updated.update)
    library = SimpleNamespace(AutoExecutor=lambda folder: executor)
    monkeypatch.setattr(executors, "_has_slurm", lambda: False)
    monkeypatch.setattr(executors, "_library", lambda name: library)
    monkeypatch.setattr(executors, "cores", lambda: 3)

    def job(kind: str, share: float) -> Any:
        config = SimpleNamespace(name="x", slurm={})
        inputs = SimpleNamespace(kind=kind, device=kind)
        return SimpleNamespace(
            config=config, inputs=inputs, gpu_share=share, slots=40, folder=tmp_path
        )

    with caplog.at_level("WARNING", "endedge"), executors.slurm(job("cpu", 0.0)) as pool:
        assert pool.slots == 3
    assert ["no sbatch here; 3 processes" in r.getMessage() for r in caplog.records] == [True]
    with (
        pytest.raises(BadInput, match="there is no sbatch here to ask for GPUs"),
        executors.slurm(job("cuda", 1 / 12)),
    ):
        pass
