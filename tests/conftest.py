"""Shared by all tests: one thread, the tiny detectors, and where real frames may be."""

from __future__ import annotations

import os
import runpy
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # what tests start computes with one thread, too

import pytest
import torch
import yaml

from endedge.configs import SHIPPED
from endedge.data.coco import Dataset
from endedge.distill.model import DetectionModel, build_detector


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def tiny() -> DetectionModel:
    """The demo's student with random weights (seeded)."""
    torch.manual_seed(0)
    return build_detector(yaml.safe_load((SHIPPED / "demo/student.yaml").read_text()))


@pytest.fixture
def tiny_teacher() -> DetectionModel:
    """The demo's teacher with random weights (seeded)."""
    torch.manual_seed(1)
    return build_detector(yaml.safe_load((SHIPPED / "demo/teacher.yaml").read_text()))


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
