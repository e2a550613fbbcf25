"""Real architectures with random weights: they travel, and pruned they run, export and keep
their interface."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from endedge.distill.model import (
    DetectionModel,
    build_detector,
    clone,
    count_parameters,
    load_detector,
    model_hash,
    save_detector,
    spec_of,
)
from endedge.distill.package.format import unpack
from endedge.distill.package.packing import pack
from endedge.distill.package.sensitivity import synthetic_frames
from endedge.distill.pruning import prune

FRAMES = synthetic_frames(4, 160)
PICTURE = torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))


def built(name: str) -> DetectionModel:
    torch.manual_seed(0)
    model = DetectionModel(f"{name}.yaml", verbose=False)
    model.names = {i: f"class {i}" for i in range(80)}
    return build_detector(spec_of(model)).eval()


def exported(model: DetectionModel, folder: Path) -> torch.Tensor:
    """What Ultralytics' own export of ``model`` gives for a picture."""
    from ultralytics.engine.exporter import Exporter

    twin = clone(model)
    twin.task, twin.pt_path = "detect", str(folder / "model.pt")  # beside which the file is put
    wanted = {"mode": "export", "format": "torchscript", "imgsz": 160, "device": "cpu"}
    file = Exporter(overrides=wanted)(model=twin)
    result = torch.jit.load(file)(PICTURE)  # type: ignore[no-untyped-call]
    return torch.as_tensor(result[0] if isinstance(result, tuple) else result)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ultralytics' exporter and of torch.jit
@pytest.mark.parametrize(
    ("name", "shares"), [("yolov8n", (0.5,)), ("yolo11n", (0.5,)), ("yolo26n", (0.3,))]
)
def test_real_architectures(name: str, shares: tuple[float, ...], tmp_path: Path) -> None:
    model = built(name)
    packed = pack(model, count_parameters(model) // 2, frames=FRAMES[:1])
    first, second = unpack(packed.data), unpack(packed.data)
    assert model_hash(first) == model_hash(second)
    with torch.no_grad():
        want = model(PICTURE)
    shape = exported(model, tmp_path).shape
    for kept in shares:
        small = prune(model, kept, FRAMES, rounds=1)
        assert count_parameters(small) <= kept * count_parameters(model)
        with torch.no_grad():
            got = small(PICTURE)
        assert got[0].shape == want[0].shape
        assert _shapes(got[1]) == _shapes(want[1])
        assert exported(small, tmp_path).shape == shape
        save_detector(small, tmp_path / "small.safetensors")
        assert model_hash(load_detector(tmp_path / "small.safetensors")) == model_hash(small)
    received = unpack(pack(small, count_parameters(small) // 2, frames=FRAMES[:1]).data)
    with torch.no_grad():
        assert np.isfinite(received(PICTURE)[0].numpy()).all()
    assert count_parameters(received) == count_parameters(small)


def _shapes(raw: dict[str, object]) -> dict[str, object]:
    """Of the head's outputs by name; its input maps lie within and may be narrower."""
    return {
        key: _shapes(value) if isinstance(value, dict) else value.shape
        for key, value in raw.items()
        if isinstance(value, dict | torch.Tensor)
    }
