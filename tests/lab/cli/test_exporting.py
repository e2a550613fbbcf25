"""``endedge export``, ``predict`` and ``latency`` from the command line."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from endedge.configs import SHIPPED
from endedge.data.errors import BadInput
from endedge.data.generated import generate
from endedge.distill.adapter import attach, start_adapter
from endedge.distill.model import load_detector, model_hash, save_detector
from endedge.distill.package.format import unpack
from endedge.distill.package.packing import pack
from endedge.end.inference import Detections
from endedge.lab.cli.held import one_held
from endedge.lab.cli.main import main
from endedge.lab.drawn import draw

STUDENT = "endedge:demo/student.safetensors"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled frames, a package, and a device that holds an update."""
    root = tmp_path_factory.mktemp("place")
    generate(root, domain="source", split="eval", n=8, seed=5, size=128)
    model = load_detector(SHIPPED / "demo/student.safetensors")
    (root / "u.eeu").write_bytes(pack(model, 60_000).data)
    held = root / "cam1" / "models" / "model-00000001.safetensors"
    save_detector(model, held)
    digest = hashlib.sha256(held.read_bytes()).hexdigest()
    current = {"round_index": 1, "file": held.name, "model_sha256": digest}
    (held.parent / "current.json").write_text(json.dumps(current))
    return root


def test_an_export_names_the_input_adapter_within(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_detector(SHIPPED / "demo/student.safetensors")
    attach(model, start_adapter("inverted"))
    save_detector(model, tmp_path / "m.safetensors")
    out = tmp_path / "m.torchscript"
    command = [
        "export",
        str(tmp_path / "m.safetensors"),
        "--format",
        "torchscript",
        "--imgsz",
        "64",
    ]
    assert main([*command, "-o", str(out)]) == 0
    assert capsys.readouterr().out.rstrip().endswith("; input adapter within: fixed")
    assert main([*command, "-o", str(tmp_path / "other.torchscript"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["adapter"] == "fixed"


def _frames(place: Path) -> list[str]:
    return [
        "--imgsz",
        "128",
        "--annotations",
        str(place / "source-eval.json"),
        "--images",
        str(place / "source-eval"),
    ]


@pytest.mark.parametrize("model", [STUDENT, "u.eeu", "cam1"])
def test_export_says_in_one_line_that_it_is_ours(
    model: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = model if ":" in model else str(place / model)
    out = tmp_path / "m.torchscript"
    command = ["export", name, "--format", "torchscript", "-o", str(out), *_frames(place)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert re.search(r"mAP \d+\.\d\d %, in PyTorch", said)
    assert out.is_file()


def test_export_refuses_in_one_line(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["-o", str(tmp_path / "m"), "--imgsz", "128"]
    (tmp_path / "empty").mkdir()
    for words, says in (
        ([str(tmp_path / "empty"), "--format", "onnx"], "no device's folder"),
        ([STUDENT, "--format", "onnx", "--int8"], "--int8 is for"),
        ([STUDENT, "--format", "openvino", "--int8"], "needs frames"),
        ([STUDENT, "--format", "pt", "--annotations", "x.json"], "belong together"),
        ([STUDENT, "--format", "pt", "--imgsz", "100"], "multiples of 16"),
        (["nowhere.pt", "--format", "pt"], "weights not found"),
    ):
        assert main(["export", *out, *words]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert says in said
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]
    with pytest.raises(SystemExit) as refused:
        main(["export", STUDENT, "--format", "onxx"])
    assert refused.value.code == 2
    assert "did you mean onnx?" in capsys.readouterr().err


def test_latency_is_a_row_of_the_results(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text("name: x\n")
    command = ["latency", STUDENT, "--seconds", "0.1", "--into", str(tmp_path), *_frames(place)]
    engines = ["torch"] + ["onnx"] * (importlib.util.find_spec("onnxruntime") is not None)
    for engine in engines:
        command += ["--runtime", engine]
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["runtime"] for row in told] == engines
    assert main(command) == 0  # again: rows are replaced
    assert "ms a frame" in capsys.readouterr().out
    with (tmp_path / "latency.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["runtime"] for row in rows] == engines
    for row in rows:
        assert float(row["low_s"]) <= float(row["latency_s"]) <= float(row["high_s"])
        assert float(row["map"]) == pytest.approx(told[0]["map"], abs=0.005)
        assert row["threads"] == "1"


def test_latency_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, says in (
        (["--threads", "0"], "from 1 to 256"),
        (["--seconds", "-1"], "more than 0"),
        (["--into", str(tmp_path)], "not a results folder"),
        (["--runtime", "openvino-int8"], "needs frames"),
    ):
        assert main(["latency", STUDENT, "--imgsz", "128", *words]) == 2
        assert says in capsys.readouterr().err


def test_eval_has_the_latency(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", STUDENT, *_frames(place), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["latency_low_s"] <= found["latency_s"] <= found["latency_high_s"]
    assert (found["threads"], found["runtime"]) == (1, "torch")


def test_predict_draws_and_lists(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = place / "source-eval", tmp_path / "seen"
    assert main(["predict", STUDENT, str(source), "--out", str(out), "--imgsz", "128"]) == 0
    assert "boxes on 8 pictures" in capsys.readouterr().out
    listed = json.loads((out / "detections.json").read_text())
    assert len(listed) == 8
    for entry in listed:
        drawn = np.asarray(Image.open(out / entry["picture"]))
        plain = np.asarray(Image.open(source / entry["picture"]).convert("RGB"))
        assert drawn.shape == plain.shape
        assert (drawn != plain).any() == bool(entry["boxes"])
        assert len(entry["boxes"]) == len(entry["scores"]) == len(entry["classes"])
        assert all(score >= 0.25 for score in entry["scores"])
    assert any(entry["boxes"] for entry in listed)


def test_predict_films(place: Path, tmp_path: Path) -> None:
    import cv2

    code = cv2.VideoWriter.fourcc(*"MJPG")
    film = cv2.VideoWriter(str(tmp_path / "day.avi"), code, 5, (128, 128))
    for path in sorted((place / "source-eval").glob("*.png")):
        film.write(np.asarray(Image.open(path).convert("RGB"))[:, :, ::-1].copy())
    film.release()
    out = tmp_path / "seen"
    assert main(["predict", STUDENT, str(tmp_path / "day.avi"), "--out", str(out)]) == 0
    listed = json.loads((out / "detections.json").read_text())
    assert [entry["picture"] for entry in listed] == [f"{i / 5:.3f} s" for i in range(8)]
    drawn = cv2.VideoCapture(str(out / "day.mp4"))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 8
    assert drawn.get(cv2.CAP_PROP_FPS) == 5


def test_predict_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jpg").write_bytes(b"no picture")
    (tmp_path / "text.txt").write_text("x")
    for source, says in (
        ("empty", "holds no pictures"),
        ("broken", "no picture of"),
        ("text.txt", "is no picture"),
        ("gone.mp4", "not found"),
    ):
        out = tmp_path / "out"
        assert main(["predict", STUDENT, str(tmp_path / source), "--out", str(out)]) == 2
        assert says in capsys.readouterr().err
        assert not out.exists()
    assert list(tmp_path.glob(".*")) == []


def test_boxes_are_drawn_where_they_are() -> None:
    grey = np.full((60, 80, 3), 128, np.uint8)
    found = Detections(0, np.array([[20.0, 30, 40, 20]]), np.array([0.5]), np.array([0]))
    shown = draw(grey, found, {0: "dog"})
    assert (grey == 128).all()
    changed = np.argwhere((shown != grey).any(axis=2))
    assert changed[:, 0].max() == 50
    assert changed[:, 1].min() == 20
    assert (shown[40, 25:55] == 128).all()


def test_a_folder_of_results_is_its_best_update(
    seam: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = max(seam.rows.values(), key=lambda row: float(row["map"]) * int(row["sent"]))
    node = json.loads((seam.out / "nodes" / best["cell"] / "record.json").read_text())
    package = seam.out / "nodes" / node["determinants"]["package"] / "update.eeu"
    held = one_held(str(seam.out), None)
    start = load_detector(SHIPPED / "demo/student.safetensors")
    assert model_hash(held) == model_hash(unpack(package.read_bytes(), base=start))
    assert f"{package.stat().st_size:,} B after 32 frames" in capsys.readouterr().err

    broken = shutil.copytree(seam.out, tmp_path / "out")
    shutil.rmtree(broken / "nodes" / package.parent.name)
    with pytest.raises(BadInput, match="is gone; `endedge measure"):
        one_held(str(broken), None)
    with (broken / "surface.csv").open(newline="") as file:
        rows = [{**row, "sent": "0"} for row in csv.DictReader(file)]
    with (broken / "surface.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(BadInput, match="no update was worth sending"):
        one_held(str(broken), None)
