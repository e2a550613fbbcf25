"""``endedge import``: each tool's export becomes a folder that ``endedge run`` takes as it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from endedge.data.coco import Dataset, load_coco
from endedge.data.errors import BadInput
from endedge.data.generated import generate
from endedge.lab.cli.main import main
from endedge.lab.config import Config, load_config
from endedge.lab.inputs import Inputs

Export = Callable[[Path, Dataset], None]
DEMO = ["--teacher", "endedge:demo/teacher.safetensors"]
DEMO += ["--student", "endedge:demo/student.safetensors"]


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("frames")
    return generate(folder, domain="field", split="pool", n=12, seed=3, size=64)


@pytest.mark.parametrize("tool", ["cvat", "label-studio", "roboflow", "yolo", "voc"])
def test_an_export_becomes_a_world(
    tool: str,
    frames: Dataset,
    tmp_path: Path,
    exports: dict[str, Export],
    capsys: pytest.CaptureFixture[str],
) -> None:
    exports[tool](tmp_path / "x", frames)
    mine = tmp_path / "mine"
    assert main(["import", str(tmp_path / "x"), "--out", str(mine), "--json", *DEMO]) == 0
    report = json.loads(capsys.readouterr().out)
    assert sum(report["pictures"].values()) == 12
    assert sum(report["boxes"].values()) == sum(len(f.boxes) for f in frames.frames)
    assert report["labels"] == {"pool": "truth", "eval": "truth"}
    assert report["left_out"] == {}
    config = load_config(mine)
    inputs = Inputs.of(config, tmp_path / "run")  # no further key
    assert inputs.pool.names == frames.names
    assert len(inputs.pool) == report["pictures"]["pool"]
    assert config.data.image_side == 64
    assert max(config.uplink.frames) == len(inputs.pool)
    assert min(config.uplink.frames) >= config.fewest_frames > 0  # else `run` refuses it
    assert inputs.pool.labels == "truth"


def test_run_and_eval_take_the_folder(
    frames: Dataset, tmp_path: Path, exports: dict[str, Export], capsys: pytest.CaptureFixture[str]
) -> None:
    exports["yolo"](tmp_path / "x", frames)
    mine, run = str(tmp_path / "mine"), tmp_path / "run"
    assert main(["import", str(tmp_path / "x"), "--out", mine, *DEMO]) == 0
    assert "YOLO data.yaml" in capsys.readouterr().out
    quick = ["teacher.steps=1", "student.steps=1", "seeds=[0]", "workers=1"]
    assert main(["measure", mine, *quick, "--out", str(run)]) == 0
    assert len((run / "surface.csv").read_text().splitlines()) > 4


def test_a_mapping_is_told_and_classes_that_match_nothing_are_refused(
    frames: Dataset, tmp_path: Path, exports: dict[str, Export], capsys: pytest.CaptureFixture[str]
) -> None:
    exports["yolo"](tmp_path / "x", frames)
    text = (tmp_path / "x" / "data.yaml").read_text()
    (tmp_path / "x" / "data.yaml").write_text(
        text.replace("- striped disk", "- stripy disk").replace("- dotted square", "- zzz")
    )
    command = ["import", str(tmp_path / "x"), "--out", str(tmp_path / "mine"), *DEMO]
    assert main(command) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("endedge import: ")
    assert "did you mean 'striped disk'?" in said
    assert not (tmp_path / "mine").exists()
    assert main([*command, "--map", "stripy disk=striped disk", "--map", "*="]) == 0
    said = capsys.readouterr().out
    assert "stripy disk -> striped disk" in said
    assert "boxes of 'zzz'" in said


def test_pictures_without_labels(
    frames: Dataset, tmp_path: Path, exports: dict[str, Export], capsys: pytest.CaptureFixture[str]
) -> None:
    bare, labelled, mine = tmp_path / "bare", tmp_path / "labelled", tmp_path / "mine"
    others = generate(tmp_path / "o", domain="field", split="eval", n=8, seed=4, size=64)
    bare.mkdir()
    for frame in others.frames:
        shutil.copyfile(frame.path, bare / frame.path.name)
    exports["voc"](labelled, frames)
    asked = ["import", str(bare), "--out", str(mine), "--score", "0.05", *DEMO]
    assert main(asked) == 2
    assert "--teacher-labels" in capsys.readouterr().err
    assert main([*asked, "--teacher-labels", "pool"]) == 2
    assert "not accuracy" in capsys.readouterr().err
    assert list(tmp_path.glob(".*")) == []
    assert not mine.exists()

    pool = [*asked, "--teacher-labels", "pool", "--eval-from", str(labelled), "--json"]
    assert main(pool) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["labels"] == {"pool": "teacher", "eval": "truth"}
    assert report["pictures"] == {"pool": 8, "eval": 12}
    loaded = load_coco(mine / "annotations/instances_pool.json", mine / "images/pool")
    assert loaded.labels == "teacher"
    assert loaded.take([0]).labels == "teacher"
    document = json.loads((mine / "annotations/instances_pool.json").read_text())
    assert {r["labels"] for r in document["images"]} == {"teacher"}
    Inputs.of(load_config(mine), tmp_path / "run")
    with pytest.raises(BadInput, match="measure agreement"):
        Inputs.of(load_config(mine, ["data.pool_labels=truth"]), tmp_path / "run")


def test_evaluation_by_the_teacher_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = generate(tmp_path / "o", domain="source", split="eval", n=8, seed=4, size=128)
    mine = str(tmp_path / "mine")
    source = str(others.frames[0].path.parent)
    assert main(["import", source, "--out", mine, "--teacher-labels", "all", *DEMO]) == 0
    assert "agreement with the teacher, not accuracy" in capsys.readouterr().out
    annotations, images = f"{mine}/annotations/instances_eval.json", f"{mine}/images/eval"
    demo = "endedge:demo/student.safetensors"
    scored = ["eval", demo, "--annotations", annotations, "--images", images, "--imgsz", "128"]
    assert main([*scored, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == "teacher"


@pytest.mark.parametrize("labels", ["teacher", "truth"])
def test_run_measure_and_bench_say_first_whose_labels_judged(
    labels: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an experiment that was measured already: nothing is trained here."""
    out, asked = tmp_path / "out", ["demo", f"data.eval_labels={labels}"]

    def measured(config: Config, folder: Path, *rest: Any) -> Path:
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text(config.to_yaml())
        return folder / "surface.csv"

    monkeypatch.setattr("endedge.lab.pipeline.run", measured)
    monkeypatch.setattr("endedge.lab.pipeline.measure_stage", measured)
    monkeypatch.setattr("endedge.lab.benchmark.stage.bench_folder", lambda *a: None)
    monkeypatch.setattr("endedge.lab.benchmark.ranking.summary", lambda path: "headroom: …")
    said = "evaluated on the teacher's labels: agreement with it, not accuracy"
    for words in (["measure", *asked], ["run", *asked]):
        assert main([*words, "--out", str(out)]) == 0
        first = capsys.readouterr().out.splitlines()[0]
        assert (first == said) == (labels == "teacher"), words
    assert main(["bench", str(out)]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert (first == said) == (labels == "teacher")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--eval-share", "1"], "between 0 and 1"),
        (["--near", "99"], "from 0 to 64"),
        (["--imgsz", "100"], "multiple of 32"),
        (["--map", "x"], "is not OLD=NEW"),
        (["--student", "nowhere.safetensors"], "weights not found"),
        (["--group", "folder"], "one group"),
    ],
)
def test_bad_wishes_are_one_line(
    words: list[str],
    says: str,
    frames: Dataset,
    tmp_path: Path,
    exports: dict[str, Export],
    capsys: pytest.CaptureFixture[str],
) -> None:
    exports["cvat"](tmp_path / "x", frames)
    assert main(["import", str(tmp_path / "x"), "--out", str(tmp_path / "y"), *DEMO, *words]) == 2
    assert says in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "y").exists()


def test_a_full_disk_leaves_nothing(
    frames: Dataset,
    tmp_path: Path,
    exports: dict[str, Export],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    exports["cvat"](tmp_path / "x", frames)
    copied: list[Path] = []

    def full(source: Path, to: Path) -> None:
        copied.append(to)
        if len(copied) == 5:
            raise OSError(28, "No space left on device")
        to.write_bytes(source.read_bytes())

    monkeypatch.setattr("shutil.copyfile", full)
    assert main(["import", str(tmp_path / "x"), "--out", str(tmp_path / "mine"), *DEMO]) == 2
    assert "No space left" in capsys.readouterr().err.splitlines()[-1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x"]
