"""Shared by all tests: one thread, the tiny detectors, and where real frames may be."""

from __future__ import annotations

import copy
import functools
import os
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # what tests start computes with one thread, too

import pytest
import torch
import yaml
from hypothesis import settings

from endedge.configs import SHIPPED
from endedge.data.coco import Dataset
from endedge.data.storage import locked
from endedge.distill.model import DetectionModel, build_detector

settings.register_profile("patient", deadline=None)  # a busy machine is no failure
settings.load_profile("patient")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """Whatever ran before."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """``once(name, make)``: the folder ``name`` that ``make(folder)`` fills, once for all processes
    of a session. Whoever changes something in it copies it first."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def made(name: str, make: Callable[[Path], None]) -> Path:
        folder, mark = base / name, base / f".{name}.made"
        with locked(base / f".{name}.lock"):
            if not mark.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                mark.touch()
        return folder

    return made


@functools.cache
def _built(name: str, seed: int) -> tuple[DetectionModel, torch.Tensor]:
    """A demo detector with random weights, and where the generator stands after it."""
    torch.manual_seed(seed)
    model = build_detector(yaml.safe_load((SHIPPED / f"demo/{name}.yaml").read_text()))
    return model, torch.get_rng_state()


def _copied(name: str, seed: int) -> DetectionModel:
    model, state = _built(name, seed)
    torch.set_rng_state(state)
    return copy.deepcopy(model)


@pytest.fixture
def tiny() -> DetectionModel:
    """The demo's student with random weights (seeded)."""
    return _copied("student", 0)


@pytest.fixture
def tiny_teacher() -> DetectionModel:
    """The demo's teacher with random weights (seeded)."""
    return _copied("teacher", 1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real COCO frames and weights, where there are any."""
    folder = Path(os.environ.get("ENDEDGE_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "coco" / "annotations").is_dir() or not (folder / "weights").is_dir():
        pytest.skip("real frames and weights are not here: set ENDEDGE_SHARED to their folder")
    return folder


@pytest.fixture(scope="session")
def exports() -> dict[str, Callable[[Path, Dataset], None]]:
    """By label tool: writes a data set into a folder as that tool exports it."""
    tools: dict[str, Callable[[Path, Dataset], None]]
    tools = runpy.run_path(str(Path(__file__).parent / "exports.py"))["TOOLS"]
    return tools
