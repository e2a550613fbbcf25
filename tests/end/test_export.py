"""Engines answer what PyTorch answers, or nothing is written; times are of what was asked."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from endedge.configs import SHIPPED
from endedge.data.coco import Dataset
from endedge.data.errors import BadInput, Unfinished
from endedge.data.frames import Batch, stack_frames, unlabelled
from endedge.data.generated import generate
from endedge.distill.adapter import attach, start_adapter
from endedge.distill.model import DetectionModel, load_detector
from endedge.distill.package.sensitivity import synthetic_frames
from endedge.distill.pruning import prune
from endedge.end.export import FORMATS, Agreement, agreement, export, suffix_of
from endedge.end.inference import Network, detect, detect_square
from endedge.end.latency import latency
from endedge.end.metric import coco_map
from endedge.end.runtime import load_exported, torch_network

NEEDS = {"onnx": ("onnx", "onnxruntime"), "openvino": ("openvino",), "ncnn": ("ncnn", "pnnx")}
NOISE = unlabelled(synthetic_frames(4, 128))


@pytest.fixture(scope="module")
def student() -> DetectionModel:
    return load_detector(SHIPPED / "demo/student.safetensors")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Batch]:
    folder = tmp_path_factory.mktemp("frames")
    truth = generate(folder, domain="source", split="eval", n=12, seed=5, size=128)
    return truth, stack_frames(truth.frames, 128, lambda f: f.read())


def _have(kind: str) -> None:
    for module in NEEDS.get(kind, ()):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: endedge[{kind}]")


@pytest.mark.parametrize("kind", FORMATS)
def test_the_demo_student_in_every_engine(
    kind: str, student: DetectionModel, scenes: tuple[Dataset, Batch], tmp_path: Path
) -> None:
    _have(kind)
    truth, frames = scenes
    out = tmp_path / f"student{suffix_of(kind)}"
    found = export(
        student, kind, out, 128, lambda network: agreement(student, network, frames, truth)
    )
    assert out.exists()
    assert [p.name for p in tmp_path.iterdir()] == [out.name]
    assert found.map_torch is not None
    assert found.map_torch > 0.3
    assert found.map == pytest.approx(found.map_torch, abs=0.005)
    assert found.score < 1e-4
    with pytest.raises(BadInput, match="exists"):
        export(student, kind, out, 128, lambda network: None)
    if kind != "pt":
        network = load_exported(out, kind, 2)
        assert network(frames.images[:1].float() / 255).shape == (1, 10, 320)


@pytest.mark.parametrize("kind", ["torchscript", "onnx", "openvino"])
@pytest.mark.parametrize("per_frame", [False, True])
def test_an_input_adapter_travels_along(kind: str, per_frame: bool, tmp_path: Path) -> None:
    _have(kind)
    model = load_detector(SHIPPED / "demo/student.safetensors")
    plain = load_detector(SHIPPED / "demo/student.safetensors")
    attach(model, start_adapter("inverted", per_frame=per_frame))
    export(model, kind, tmp_path / "m", 128, lambda network: agreement(model, network, NOISE))
    with pytest.raises(Unfinished, match="is not ours"):
        agreement(plain, load_exported(tmp_path / "m", kind), NOISE)
    for none in ("pt", "ncnn"):
        with pytest.raises(BadInput, match="input adapter"):
            export(model, none, tmp_path / "none", 128, lambda network: None)
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_pruned_detector_is_exported(student: DetectionModel, tmp_path: Path) -> None:
    small = prune(student, 0.6, NOISE.images)
    found = export(
        small, "torchscript", tmp_path / "m", 128, lambda network: agreement(small, network, NOISE)
    )
    assert found.frames == len(NOISE)
    assert found.score < 1e-3


def test_ultralytics_opens_what_is_exported(student: DetectionModel, tmp_path: Path) -> None:
    from ultralytics import YOLO

    export(student, "pt", tmp_path / "m.pt", 128, lambda network: None)
    opened = YOLO(tmp_path / "m.pt")
    assert list(opened.names.values()) == list(student.names.values())
    image = NOISE.images[:1].float() / 255
    with torch.no_grad():
        theirs, ours = opened.model.eval()(image)[0], student.eval()(image)[0]
    assert torch.equal(theirs, ours)


def test_what_differs_is_not_kept(student: DetectionModel, tmp_path: Path) -> None:
    def wrong(network: Network) -> Agreement:
        return agreement(student, lambda images: network(1 - images), NOISE)

    def broken(network: Network) -> Agreement:
        return agreement(student, lambda images: network(images) * math.nan, NOISE)

    for check in (wrong, broken):
        with pytest.raises(Unfinished, match="is not ours"):
            export(student, "torchscript", tmp_path / "m", 128, check)
    assert list(tmp_path.iterdir()) == []


def test_bad_exports(
    student: DetectionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, side, says in (("tflite", 128, "unknown format"), ("pt", 100, "multiples of 16")):
        with pytest.raises(BadInput, match=says):
            export(student, kind, tmp_path / "m", side, lambda network: None)
    with pytest.raises(BadInput, match="for openvino"):
        export(student, "onnx", tmp_path / "m", 128, lambda n: None, calibrate=NOISE.images)

    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(BadInput, match=r"pip install 'endedge\[onnx\]'"):
        export(student, "onnx", tmp_path / "m", 128, lambda network: None)
    monkeypatch.undo()
    (tmp_path / "bad").write_text("no model")
    with pytest.raises(BadInput, match="does not load"):
        load_exported(tmp_path / "bad", "torchscript")


def test_whole_squares_detect_what_windows_do(
    student: DetectionModel, scenes: tuple[Dataset, Batch]
) -> None:
    """Square frames have no padding to leave out, so the two ways are the same computation."""
    truth, frames = scenes
    windows = coco_map(truth, detect(student, frames)).map
    squares = coco_map(truth, detect_square(torch_network(student), frames)).map
    assert squares == pytest.approx(windows, abs=1e-4)


def test_latency_times_every_run(student: DetectionModel) -> None:
    calls: list[int] = []

    def counted(images: Tensor) -> Tensor:
        calls.append(len(images))
        return torch.zeros(1, 10, 320)

    found = latency(counted, NOISE.images, runtime="none", threads=1, seconds=0.05)
    assert len(calls) == found.runs + 3
    assert 20 <= found.runs <= 200
    assert set(calls) == {1}
    assert 0 < found.network_s <= found.median_s
    assert found.low_s <= found.median_s <= found.high_s


@pytest.mark.slow
def test_yolov8n_in_the_engines(shared: Path, tmp_path: Path) -> None:
    """On real frames, int8 too: mAP of the engine's own outputs."""
    from endedge.data.coco import load_coco

    model = load_detector(shared / "weights" / "yolov8n.pt")
    truth = load_coco(
        shared / "coco/annotations/instances_eval.json", shared / "coco/images/eval"
    ).take(range(60))
    frames = stack_frames(truth.frames, 320, lambda f: f.read())
    for kind in ("onnx", "openvino"):
        _have(kind)
        found = export(
            model, kind, tmp_path / kind, 320, lambda n: agreement(model, n, frames, truth)
        )
        assert found.map == pytest.approx(found.map_torch, abs=0.002)
    if importlib.util.find_spec("nncf") is None:
        return
    int8 = export(
        model,
        "openvino",
        tmp_path / "int8",
        320,
        lambda n: agreement(model, n, frames, truth, exact=False),
        calibrate=frames.images,
    )
    assert int8.map is not None
    assert int8.map_torch is not None
    assert int8.map > int8.map_torch - 0.03
