"""Detections before and after the update: how they are judged, chosen, kept and drawn."""

from __future__ import annotations

import base64
import io
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import endedge.lab
from endedge.data.coco import Frame
from endedge.data.errors import BadInput
from endedge.end.inference import Detections
from endedge.lab import pipeline
from endedge.lab.config import load_config
from endedge.lab.inputs import Inputs
from endedge.lab.report.examples import gallery, read_examples
from endedge.lab.store import Node, Store
from endedge.lab.sweep.cell import Cell, CellRunner
from endedge.lab.sweep.examples import _f1, _judged, compared


def _seen(*rows: tuple[float, float, float, float, int]) -> Detections:
    boxes = np.array([r[:4] for r in rows], np.float64).reshape(-1, 4)
    labels = np.array([r[4] for r in rows], np.int64)
    return Detections(1, boxes, np.linspace(0.9, 0.3, len(rows)), labels)


FRAME = Frame(
    1,
    Path("x"),
    100,
    100,
    np.array([[10, 10, 20, 20], [60, 60, 30, 30]], np.float32),
    np.array([0, 1]),
    np.zeros(2, bool),
)


@pytest.mark.parametrize(
    ("detections", "right", "why"),
    [
        ([(10, 10, 20, 20, 0)], [True], "the very box"),
        ([(10, 10, 20, 20, 1)], [False], "another class"),
        ([(10, 10, 20, 10, 0)], [True], "IoU is exactly 0.5"),
        ([(10, 10, 20, 9.9, 0)], [False], "IoU just below"),
        ([(10, 10, 20, 20, 0), (11, 11, 20, 20, 0)], [True, False], "an object counts once"),
        ([(0, 0, 5, 5, 0), (10, 10, 20, 20, 0)], [False, True], "a wrong one takes nothing"),
        ([], [], "nothing seen"),
    ],
)
def test_a_detection_is_right_when(
    detections: list[tuple[float, float, float, float, int]], right: list[bool], why: str
) -> None:
    assert _judged(_seen(*detections), FRAME) == right, why


def test_f1() -> None:
    assert _f1([], FRAME) == 0
    assert _f1([True, True], FRAME) == 1
    assert _f1([True, False], FRAME) == pytest.approx(0.5)


@pytest.fixture
def inputs(place: Path) -> Inputs:
    return Inputs.of(load_config(place / "c.yaml"), place / "out")


def test_frames_are_chosen_by_rank_and_kept_as_seen(inputs: Inputs) -> None:
    found = compared(inputs, inputs.student, inputs.teacher)
    assert 1 <= len(found["frames"]) <= 4
    assert found["of"] <= 4
    for frame in found["frames"]:
        picture = Image.open(io.BytesIO(base64.b64decode(frame["jpeg"])))
        assert picture.size == (frame["width"], frame["height"]) == (64, 64)
        truth = next(f for f in inputs.evaluation.frames if f.image_id == frame["image_id"])
        assert len(frame["objects"]) == len(truth.boxes)
        assert all(one["score"] >= found["score"] for one in frame["before"] + frame["after"])
    same = compared(inputs, inputs.student, inputs.student)
    assert all(f["before"] == f["after"] for f in same["frames"])
    json.dumps(found, allow_nan=False)


def test_only_an_update_that_was_sent_is_drawn(
    place: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = CellRunner(inputs, Store(place / "out"), lambda message: None)
    cell = Cell(0, 6, "jpeg-q75-64", 50_000)
    for sent in (False, True):
        verdict = Node("verdict", place, {"sent": sent}, 0.0)
        monkeypatch.setattr(CellRunner, "verdict", lambda *_, verdict=verdict: verdict)
        assert (runner.examples(cell) is not None) == sent
    monkeypatch.setattr(CellRunner, "examples", lambda *_: None)
    (place / "out" / "examples.json").write_text("of an older run")
    pipeline._examples(inputs, place / "out", lambda *_: None)
    assert not (place / "out" / "examples.json").exists()


EVIL = '"><script>alert(1)</script>'


def _example(name: str = "cat") -> dict[str, Any]:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG")
    box = {"box": [1, 1, 4, 4], "name": name}
    frame = {
        "image_id": 1,
        "scale": 1.0,
        "width": 8,
        "height": 8,
        "rank": "median",
        "jpeg": base64.b64encode(out.getvalue()).decode(),
        "objects": [box],
        "before": [],
        "after": [box | {"score": 0.5, "right": True}],
    }
    return {"cell": name, "score": 0.25, "iou": 0.5, "of": 3, "frames": [frame]}


class _Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def test_the_report_shows_them_and_fetches_nothing(results_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(results_folder, tmp_path / "copy"))
    (folder / "examples.json").write_text(json.dumps(_example(EVIL)))
    page = pipeline.report_stage(folder).read_text()
    assert "On 1 frame, 0 of 1 objects are found before, 1 after" in page
    tags = _Tags(page)
    assert [t for t, _ in tags.seen].count("script") == 4
    links = [a[k] for _, a in tags.seen for k in ("src", "href") if k in a]
    links = [link for link in links if not str(link).startswith(("#", "data:text/csv"))]
    assert len(links) == 2
    assert all(str(link).startswith("data:image/jpeg;base64,") for link in links)
    rectangles = [a["class"] for t, a in tags.seen if t == "rect"]
    assert rectangles == ["object", "object", "right"]
    assert EVIL not in gallery(_example(EVIL))
    assert endedge.lab.load(folder).examples is not None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda e: e["frames"][0].update(jpeg='x" onload="y'),
        lambda e: e["frames"][0].update(width=float("inf")),
        lambda e: e["frames"][0]["after"][0].update(box=[1, 2, 3]),
        lambda e: e["frames"][0]["after"][0].update(score="<b>"),
        lambda e: e["frames"][0]["after"][0].pop("right"),
        lambda e: e["frames"][0].pop("rank"),
        lambda e: e.pop("of"),
        lambda e: e.pop("frames"),
        lambda e: e.update(frames=None),
    ],
)
def test_broken_ones_are_named(tmp_path: Path, spoil: Any) -> None:
    example = _example()
    spoil(example)
    (tmp_path / "examples.json").write_text(json.dumps(example))
    with pytest.raises(BadInput, match="holds no examples"):
        read_examples(tmp_path / "examples.json")
    assert read_examples(tmp_path / "none.json") is None
