"""What each stage of a cell is given: frames, models and seeds that are told apart by construction.

The edge's steps are replaced by ones that mark the model that they get and note it down, so a
stage that is given another's model, another seed or another upload is found out in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import yaml

from endedge.data.coco import nested_subset
from endedge.data.codec import Codec, batch_bytes, decode, encode
from endedge.data.frames import stack_frames
from endedge.data.shift import Shift
from endedge.distill.model import DetectionModel, clone, load_detector, model_hash
from endedge.edge.adapt import Adapted, Upload, Verdict
from endedge.edge.edge import EdgeEnd
from endedge.end.metric import CocoScore
from endedge.lab.config import load_config
from endedge.lab.inputs import Inputs
from endedge.lab.store import Node, Store, digest
from endedge.lab.sweep import cell as cells
from endedge.lab.sweep.cell import Cell, CellRunner
from endedge.lab.sweep.evaluating import resampled, scored
from endedge.lab.sweep.grid import grid
from endedge.lab.sweep.replicates import IN_NODE

CELL = Cell(seed=1, frames=6, codec="webp-q50-48", budget_bytes=77_777)


def marked(model: DetectionModel, mark: float) -> DetectionModel:
    """A copy that is told apart from all others."""
    copy = clone(model)
    next(copy.parameters()).data.add_(mark)
    return copy


@dataclass(frozen=True)
class Marking(EdgeEnd):
    """An edge that trains nothing and notes down what it is given."""

    heard: ClassVar[list[tuple[Any, ...]]] = []

    def teach(self, teacher: DetectionModel, known: Upload) -> Adapted:
        self.heard.append(("teach", self.seed, self.frames, model_hash(teacher)))
        return Adapted(marked(teacher, 1.0), 1.0, {0.0: 2.0, 1.0: 1.0})

    def distil(
        self,
        start: DetectionModel,
        teacher: DetectionModel,
        known: Upload,
        held: DetectionModel | None = None,
    ) -> Adapted:
        has = None if held is None else model_hash(held)
        self.heard.append(("distil", self.seed, model_hash(start), model_hash(teacher), has))
        return Adapted(marked(start, 2.0), 1.0, {0.0: 2.0, 1.0: 1.0})

    def prune(self, whole: DetectionModel, keep: float, known: Upload) -> DetectionModel:
        self.heard.append(("prune", self.seed, keep, model_hash(whole)))
        return marked(whole, 4.0)

    def prepare(
        self, students: Sequence[DetectionModel], base: DetectionModel | None, known: Upload
    ) -> Any:
        assert base is not None
        hashes = [model_hash(student) for student in students]
        self.heard.append(("prepare", self.seed, hashes, model_hash(base)))

        def pack(budget_bytes: int, *, params: int | None, order: Any) -> Any:
            self.heard.append(("pack", budget_bytes, params))
            report = SimpleNamespace(
                parameters=62, transmitted=59, mean_bits=6.3, kept=0.75, mode="delta"
            )
            return SimpleNamespace(data=b"p" * 61, report=report, candidate=1)

        return SimpleNamespace(pack=pack)


@pytest.fixture
def inputs(place: Path) -> Inputs:
    document = yaml.safe_load((place / "c.yaml").read_text())
    document["data"]["camera"] = {"kind": "infrared", "severity": 2, "seed": 5}
    document["uplink"]["codecs"] = ["jpeg-q75-64", CELL.codec]
    document["downlink"]["keep"] = [0.5, 1]
    document["seeds"] = [0, 1]
    (place / "c.yaml").write_text(yaml.safe_dump(document))
    return Inputs.of(load_config(place / "c.yaml"), place)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Any, ...]]]:
    monkeypatch.setattr(cells, "EdgeEnd", Marking)
    for name in ("scored", "resampled"):
        monkeypatch.setattr(cells, name, lambda *_: {"map": 0.5, "map50": 0.6, "seconds": 1.0})
    Marking.heard.clear()
    yield Marking.heard
    Marking.heard.clear()


def test_a_stage_is_given_what_the_one_before_made(
    inputs: Inputs, heard: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    runner = CellRunner(inputs, Store(tmp_path / "out"), lambda message: None)
    upload = runner.upload(CELL)
    teacher = runner.teacher(CELL, upload)
    students = runner.students(CELL, upload, teacher)
    package = runner.package(CELL, upload, students)
    given = {call[0]: call[1:] for call in heard}
    start, taught = model_hash(inputs.student), marked(inputs.teacher, 1.0)
    distilled = marked(inputs.student, 2.0)
    cut = marked(distilled, 4.0)
    assert given == {
        "teach": (1, 6, model_hash(inputs.teacher)),
        "distil": (1, start, model_hash(taught), start),
        "prune": (1, 0.5, model_hash(distilled)),
        "prepare": (1, [model_hash(distilled), model_hash(cut)], start),  # the whole one first
        "pack": (77_777, None),
    }
    assert model_hash(load_detector(teacher.folder / "teacher.safetensors")) == model_hash(taught)
    assert {**package.record, "seconds": 0} == {
        "update_bytes": 61,
        "params": 62,
        "transmitted": 59,
        "bits": 6.3,
        "prune": 0.25,
        "mode": "delta",
        "seconds": 0,
        "student": "student.safetensors",
        "shallow": False,
        "keep": 0.5,  # of the second line of the menu, which won
    }


def test_an_upload_is_what_the_camera_saw_through_the_codec(inputs: Inputs, tmp_path: Path) -> None:
    runner = CellRunner(inputs, Store(tmp_path / "out"), lambda message: None)
    camera, codec = Shift("infrared", 2, 5), Codec.parse(CELL.codec)
    frames = [inputs.pool.frames[i] for i in nested_subset(12, 1)[:6]]
    blobs = {f.image_id: encode(camera.apply(f.read(), f.image_id), codec) for f in frames}
    sent = runner.upload(CELL).record["upload_bytes"]
    assert sent == batch_bytes([len(blob) for blob in blobs.values()])
    known = runner.received(CELL)
    seen = stack_frames(frames, inputs.side, lambda frame: decode(blobs[frame.image_id]))
    held = len(known.held_back)
    assert held == max(2, round(inputs.config.held_back.share * 6))
    for part, wanted in (
        (known.trained, seen.take(range(6 - held))),
        (known.held_back, seen.take(range(6 - held, 6))),
    ):
        assert part.image_ids.tolist() == wanted.image_ids.tolist()
        assert (part.images == wanted.images).all()
        for boxes, true in zip(part.boxes, wanted.boxes, strict=True):
            assert np.allclose(boxes, true, atol=1e-6)


def test_what_is_judged_and_scored_is_the_decoded_package(
    inputs: Inputs,
    heard: list[tuple[Any, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoded = marked(inputs.student, 8.0)
    measured: list[str] = []
    judged: list[tuple[int, str, int]] = []

    def score(end: Any, around: Inputs, model: DetectionModel, *folder: Path) -> dict[str, float]:
        measured.append(model_hash(model))
        return {"map": 0.1 * len(measured), "map50": 0.9, "seconds": 1.0}

    def judge(self: Any, before: Any, model: DetectionModel, known: Upload) -> Verdict:
        judged.append((len(before), model_hash(model), len(known.held_back)))
        return Verdict(1.0, 1.5, 0.1, 4, 2)  # worse: it is to stay at home

    for name in ("scored", "resampled"):
        monkeypatch.setattr(cells, name, score)
    monkeypatch.setattr(Marking, "judge", judge)
    monkeypatch.setattr(CellRunner, "_decoded", lambda self, package: decoded)
    runner = CellRunner(inputs, Store(tmp_path / "out"), lambda message: None)
    upload = runner.upload(CELL)
    teacher = runner.teacher(CELL, upload)
    students = runner.students(CELL, upload, teacher)
    package, start = runner.package(CELL, upload, students), runner.start()
    assert runner.verdict(CELL, package, students[0]).record["sent"] is False
    assert judged == [(2, model_hash(decoded), 2)]
    taught, applied = runner.taught(teacher, start), runner.applied(package, start)
    assert measured == [
        model_hash(inputs.student),
        model_hash(inputs.teacher),
        model_hash(marked(inputs.teacher, 1.0)),  # adapted
        model_hash(decoded),
    ]
    assert start.record["map"] == pytest.approx(0.1)
    assert start.record["teacher_map"] == pytest.approx(0.2)
    assert taught.record["map"] == pytest.approx(0.3)
    assert applied.record["map"] == pytest.approx(0.4)


def test_the_device_is_scored_through_its_camera(inputs: Inputs) -> None:
    camera, batch = Shift("infrared", 2, 5), inputs.evaluation_batch
    assert batch.image_ids.tolist() == [f.image_id for f in inputs.evaluation.frames]
    for image, frame in zip(batch.images, inputs.evaluation.frames, strict=True):
        seen = camera.apply(frame.read(), frame.image_id)
        assert (image.permute(1, 2, 0).numpy() == seen).all()


def test_a_score_keeps_its_two_figures_apart(inputs: Inputs, tmp_path: Path) -> None:
    """And replicates are of the same frames."""
    heard: list[Any] = []

    def evaluate(model: Any, frames: Any, truth: Any) -> CocoScore:
        heard.append((frames, truth))
        return CocoScore(0.31, 0.52, 4)

    def resample(model: Any, frames: Any, truth: Any, draws: Any) -> Any:
        assert draws.shape[1] == len(truth) == 4
        return evaluate(model, frames, truth), np.array([0.11, 0.22])

    end: Any = SimpleNamespace(evaluate=evaluate, resampled=resample)
    for found in (
        scored(end, inputs, inputs.student),
        resampled(end, inputs, inputs.student, tmp_path),
    ):
        assert (found["map"], found["map50"]) == (0.31, 0.52)
    assert np.load(tmp_path / IN_NODE).tolist() == [1100, 2200]  # in 1/100 of a point
    for frames, truth in heard:
        assert (frames, truth) == (inputs.evaluation_batch, inputs.evaluation)


def test_the_grid_is_every_combination(inputs: Inputs) -> None:
    config = inputs.config
    wanted = {
        (seed, frames, codec, budget)
        for seed in (0, 1)
        for frames in (4, 6, 9, 12)
        for codec in ("jpeg-q75-64", "webp-q50-48")
        for budget in (50_000, 200_000)
    }
    assert {(c.seed, c.frames, c.codec, c.budget_bytes) for c in grid(config)} == wanted
    assert len(grid(config)) == len(wanted)


# Names: what determines a result is in its name, or it is taken for another's -------------------

AFTER_UPLOAD = ["teacher", "taught", "student", "pruned", "package", "verdict", "cell"]
AFTER_TEACHER = AFTER_UPLOAD[2:]
AFTER_STUDENT = AFTER_UPLOAD[4:]


class Names:
    """A store that only names what it is asked for."""

    def __init__(self) -> None:
        self.keys: dict[str, str] = {}

    def node(self, stage: str, determinants: Mapping[str, Any], make: Any) -> Node:
        self.keys[stage] = f"{stage}-{digest(determinants)}"
        record: dict[str, Any] = dict.fromkeys(
            (
                *("map", "map50", "upload_bytes", "update_bytes", "params", "bits", "prune"),
                *("mode", "seconds", "sent", "share", "adapter"),
            ),
            1,
        )
        record |= {"student": "student.safetensors", "keep": 0.5}
        return Node(self.keys[stage], Path("nowhere"), record, 0.0)


def _names(inputs: Inputs, cell: Cell) -> dict[str, str]:
    store: Any = Names()
    CellRunner(inputs, store, lambda message: None).measure(cell)
    return dict(store.keys)


def _renamed(inputs: Inputs, other: Inputs, cell: Cell = CELL) -> list[str]:
    names, others = _names(inputs, CELL), _names(other, cell)
    assert list(names) == list(others)
    return sorted(stage for stage in names if names[stage] != others[stage])


@pytest.mark.parametrize(
    ("change", "renamed"),
    [
        ("data.camera.severity=3", ["start", "upload", *AFTER_UPLOAD]),
        ("data.camera.seed=6", ["start", "upload", *AFTER_UPLOAD]),
        ("data.image_side=96", ["start", *AFTER_UPLOAD]),
        ("teacher.steps=2", AFTER_UPLOAD),
        ("teacher.lr=0.002", AFTER_UPLOAD),
        ("held_back.share=0.4", AFTER_UPLOAD),
        ("student.steps=2", AFTER_TEACHER),
        ("distillation.score_gain=2", AFTER_TEACHER),
        ("recovery.steps=2", AFTER_UPLOAD[3:]),
        ("downlink.mode=full", AFTER_STUDENT),
        ("held_back.least=1", ["verdict"]),
        ("workers=2", []),
        ("link.period_s=7", []),
    ],
)
def test_a_changed_key_renames_what_it_changes(
    inputs: Inputs, place: Path, change: str, renamed: list[str]
) -> None:
    other = replace(inputs, config=load_config(place / "c.yaml", [change]))
    assert _renamed(inputs, other) == sorted(renamed)


def test_other_cells_and_other_weights_have_other_names(inputs: Inputs, place: Path) -> None:
    whole = sorted(["upload", *AFTER_UPLOAD])
    assert _renamed(inputs, inputs, replace(CELL, seed=0)) == whole
    assert _renamed(inputs, inputs, replace(CELL, frames=9)) == whole
    assert _renamed(inputs, inputs, replace(CELL, codec="jpeg-q75-64")) == whole
    assert _renamed(inputs, inputs, replace(CELL, budget_bytes=50_000)) == sorted(AFTER_STUDENT)
    other = replace(inputs, student=marked(inputs.student, 1.0))
    assert _renamed(inputs, other) == sorted(["start", "taught", *AFTER_TEACHER])
    other = replace(inputs, teacher=marked(inputs.teacher, 1.0))
    assert _renamed(inputs, other) == sorted(["start", *AFTER_UPLOAD])
    fewer = replace(inputs, pool=inputs.pool.take(range(11)))
    assert _renamed(inputs, fewer) == sorted(["start", *whole])
    labels = replace(inputs, config=load_config(place / "c.yaml", ["edge.labels=pseudo"]))
    assert _renamed(inputs, labels) == sorted(AFTER_UPLOAD)
    fewer = replace(inputs, evaluation=inputs.evaluation.take(range(3)))
    assert _renamed(inputs, fewer) == ["cell", "start", "taught"]  # what was trained is the same


def test_a_package_is_named_by_the_model_that_the_device_holds(inputs: Inputs) -> None:
    """Also where its students are the same."""
    names = []
    for other in (inputs, replace(inputs, student=marked(inputs.student, 1.0))):
        store: Any = Names()
        students = [Node("student-same", Path("nowhere"), {}, 0.0)]
        runner = CellRunner(other, store, lambda message: None)
        names.append(runner.package(CELL, runner.upload(CELL), students).key)
    assert names[0] != names[1]
