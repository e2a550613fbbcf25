"""Every export comes in with the boxes that were drawn; what cannot is counted or refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from endedge.data.coco import Dataset
from endedge.data.errors import BadInput
from endedge.data.generated import generate
from endedge.data.importing.detect import read_source
from endedge.data.importing.found import Found, clipped, side_of

Export = Callable[[Path, Dataset], None]
TOOLS = ("cvat", "label-studio", "roboflow", "yolo", "voc")
KINDS = {
    "cvat": "COCO (CVAT)",
    "label-studio": "COCO (Label Studio)",
    "roboflow": "COCO (Roboflow)",
    "yolo": "YOLO data.yaml",
    "voc": "Pascal VOC",
}


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("frames")
    return generate(folder, domain="field", split="pool", n=12, seed=3, size=64)


def _read(source: Path) -> Found:
    return read_source(source, source.parent / "scratch")


@pytest.mark.parametrize("tool", TOOLS)
def test_every_box_of_an_export(
    tool: str, frames: Dataset, tmp_path: Path, exports: dict[str, Export]
) -> None:
    exports[tool](tmp_path / "x", frames)
    found = _read(tmp_path / "x")
    assert found.kind == KINDS[tool]
    assert +found.left_out == {}
    assert len(found.pictures) == 12
    assert all(p.labelled for p in found.pictures)
    by_stem = {frame.path.stem: frame for frame in frames.frames}
    for picture in found.pictures:
        stem = re.search(r"(?:^|-)(\d{6})(?:_png|\.)", picture.path.name)
        assert stem is not None
        frame = by_stem[stem[1]]
        assert picture.size == (frame.width, frame.height)
        assert [b.name for b in picture.boxes] == [frames.names[int(k)] for k in frame.labels]
        tolerance = 1.01 if tool == "voc" else 0.01
        for box, true in zip(picture.boxes, frame.boxes, strict=True):
            assert np.allclose(box.xywh, true, atol=tolerance)


@pytest.mark.parametrize(("tool", "n_eval"), [("roboflow", 6), ("yolo", 4), ("voc", 6)])
def test_the_splits_of_the_source(
    tool: str, n_eval: int, frames: Dataset, tmp_path: Path, exports: dict[str, Export]
) -> None:
    exports[tool](tmp_path / "x", frames)
    sides = [p.side for p in _read(tmp_path / "x").pictures]
    assert (sides.count("eval"), sides.count("pool")) == (n_eval, 12 - n_eval)


def test_a_label_file_alone_finds_its_pictures(
    frames: Dataset, tmp_path: Path, exports: dict[str, Export]
) -> None:
    exports["cvat"](tmp_path / "x", frames)
    exports["yolo"](tmp_path / "y", frames)
    for file in ("x/annotations/instances_default.json", "y/data.yaml"):
        assert len(_read(tmp_path / file).pictures) == 12


def test_two_splits_with_the_same_file_names(tmp_path: Path, frames: Dataset) -> None:
    """COCO's own layout: instances_train.json and images/train, both with 000000.png."""
    for split in ("train", "val"):
        images = []
        for i, frame in enumerate(frames.frames[:3]):
            to = tmp_path / "x" / "images" / split / f"{i}.png"
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(frame.path, to)
            images.append({"id": i, "file_name": f"{i}.png", "width": 64, "height": 64})
        _write_coco(tmp_path / "x" / "annotations" / f"instances_{split}.json", images, [])
    found = _read(tmp_path / "x")
    assert sorted(p.name for p in found.pictures if p.side == "eval") == [
        f"images/val/{i}.png" for i in range(3)
    ]


def _write_coco(to: Path, images: Sequence[object], annotations: Sequence[object]) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    names = [{"id": "7", "name": "dog"}, {"id": 3, "name": "cat"}]
    to.write_text(json.dumps({"images": images, "annotations": annotations, "categories": names}))


def _picture(to: Path, size: tuple[int, int] = (80, 40), orientation: int = 1) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.new("RGB", size, (90, 120, 30)).save(to, exif=exif)


def test_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    root = tmp_path / "x"
    for name in ("a.jpg", "b.jpg", "c.jpg", "unlisted.jpg"):
        _picture(root / name)
    (root / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    images: list[object] = [
        {"id": "1", "file_name": "a.jpg", "width": 80, "height": 40},
        {"id": 2, "file_name": "b.jpg", "width": 160, "height": 80},  # scaled after labelling
        {"id": 3, "file_name": "c.jpg", "width": 40, "height": 40},  # cropped after labelling
        {"id": 4, "file_name": "gone.jpg", "width": 80, "height": 40},
        {"id": 5, "file_name": "broken.jpg", "width": 80, "height": 40},
    ]
    annotations: list[object] = [
        {"image_id": 1, "category_id": 7, "bbox": ["-5", 10, 20, 10]},  # clipped, ids as text
        {"image_id": 1, "category_id": 3, "bbox": [90, 0, 10, 10]},  # outside
        {"image_id": 1, "category_id": 3, "bbox": [1, 1, 0, 10]},  # empty
        {"image_id": 1, "category_id": 9, "bbox": [1, 1, 5, 5]},  # no such category
        {"image_id": 1, "category_id": 3, "bbox": None},
        {"image_id": 1, "category_id": 3, "segmentation": [[10, 10, 30, 10, 30, 20]]},
        {"image_id": 2, "category_id": 3, "bbox": [20, 20, 40, 20], "iscrowd": 1},
        {"image_id": 77, "category_id": 3, "bbox": [20, 20, 40, 20]},
    ]
    _write_coco(root / "labels.json", images, annotations)
    found = _read(root)
    by_name = {p.name: p for p in found.pictures}
    assert set(by_name) == {"a.jpg", "b.jpg", "unlisted.jpg"}
    assert not by_name["unlisted.jpg"].labelled
    assert [(b.name, b.xywh) for b in by_name["a.jpg"].boxes] == [
        ("dog", (0, 10, 15, 10)),
        ("cat", (10, 10, 20, 10)),
    ]
    assert by_name["b.jpg"].size == (80, 40)
    assert by_name["b.jpg"].boxes[0].xywh == (10, 10, 20, 10)
    assert by_name["b.jpg"].boxes[0].ignored
    assert +found.left_out == {
        "labelled pictures that are not there": 1,
        "pictures that do not decode": 1,
        "pictures of another shape than their labels say": 1,
        "boxes that are empty or outside their picture": 2,
        "boxes of a category that is not listed": 1,
        "annotations without a box": 1,
        "boxes of pictures that are not listed": 1,
    }


def test_yolo_shows_the_picture_upright_and_takes_polygons(tmp_path: Path) -> None:
    root = tmp_path / "x"
    _picture(root / "images" / "a.jpg", (80, 40), orientation=6)  # shown as 40 x 80
    _picture(root / "images" / "empty.jpg")
    (root / "labels").mkdir()
    lines = [
        "0 0.5 0.5 0.5 0.25",
        "1 0.25 0.25 0.75 0.25 0.75 0.5",
        "0 20 30 40 50",
        "5 .5 .5 .1 .1",
        "x",
    ]
    (root / "labels" / "a.txt").write_text("\n".join(lines))
    (root / "labels" / "lost.txt").write_text(lines[0])
    (root / "data.yaml").write_text("path: /home/me/x\ntrain: images\nnames: {0: dog, 1: cat}\n")
    found = _read(root)
    first, empty = found.pictures
    assert first.size == (40, 80)
    assert [b.xywh for b in first.boxes] == [(10, 30, 20, 20), (10, 20, 20, 20)]
    assert empty.labelled
    assert empty.boxes == ()
    assert +found.left_out == {
        "label lines that are no box": 3,
        "labelled pictures that are not there": 1,
    }


def test_difficult_objects_count_neither_way(tmp_path: Path) -> None:
    _picture(tmp_path / "x" / "a.jpg")
    (tmp_path / "x" / "a.xml").write_text(
        "<annotation><filename>renamed.jpg</filename><object><name>dog</name>"
        "<difficult>1</difficult><bndbox><xmin>4.5</xmin><ymin>5</ymin><xmax>14.5</xmax>"
        "<ymax>25</ymax></bndbox></object></annotation>"
    )
    (picture,) = _read(tmp_path / "x").pictures
    assert picture.boxes[0].ignored
    assert picture.boxes[0].xywh == (4.5, 5, 10, 20)


def test_bad_sources_are_one_line(
    tmp_path: Path, frames: Dataset, exports: dict[str, Export]
) -> None:
    mixed, lost, alone, orphan = (tmp_path / n for n in ("mixed", "lost", "alone", "orphan"))
    exports["yolo"](mixed, frames)
    exports["voc"](mixed, frames)
    exports["cvat"](lost, frames)
    shutil.rmtree(lost / "images")
    exports["yolo"](alone, frames)
    (alone / "data.yaml").unlink()
    exports["voc"](orphan, frames)
    shutil.rmtree(orphan / "JPEGImages")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "bad.json").write_text("[1, 2")
    for source, says in (
        (mixed, "mixed formats: YOLO .* and Pascal VOC"),
        (lost, "labels without pictures"),
        (orphan, "labels without pictures"),
        (alone, "no data.yaml"),
        (tmp_path / "empty", "holds no pictures or videos"),
        (tmp_path / "nowhere", "nothing to import"),
        (tmp_path / "bad.mp4", "does not decode"),
        (tmp_path / "bad.json", "in no known format"),
    ):
        with pytest.raises(BadInput, match=says) as caught:
            _read(source)
        assert "\n" not in str(caught.value)


def test_a_bomb_of_entities_is_no_label_file(tmp_path: Path) -> None:
    _picture(tmp_path / "x" / "a.jpg")
    bomb = '<!DOCTYPE a [<!ENTITY b "bbbb">]><annotation>&b;</annotation>'
    (tmp_path / "x" / "a.xml").write_text(bomb)
    assert _read(tmp_path / "x").kind == "pictures without labels"


def test_a_video_becomes_a_frame_every_so_often(tmp_path: Path) -> None:
    import cv2

    code = cv2.VideoWriter.fourcc(*"MJPG")
    film = cv2.VideoWriter(str(tmp_path / "day.avi"), code, 10, (64, 48))
    for i in range(35):
        film.write(np.full((48, 64, 3), 7 * i, np.uint8))
    film.release()
    found = read_source(tmp_path / "day.avi", tmp_path / "scratch", every_s=0.5)
    assert [p.time_s for p in found.pictures] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert all(p.size == (64, 48) and not p.labelled for p in found.pictures)
    levels = [np.asarray(Image.open(p.path)).mean() for p in found.pictures]
    assert np.allclose(levels, [7 * 5 * i for i in range(7)], atol=4)


@pytest.mark.parametrize(
    ("word", "side"),
    [
        ("instances_train2017", "pool"),
        ("instances_val2017", "eval"),
        ("valid", "eval"),
        ("test", "eval"),
        ("trainval", "pool"),
        ("instances_default", ""),
        ("contest", ""),
        ("result", ""),
    ],
)
def test_split_names(word: str, side: str) -> None:
    assert side_of([word]) == side


@settings(deadline=None)
@given(
    st.tuples(*[st.floats(allow_nan=True, width=32)] * 4),
    st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
)
def test_a_clipped_box_is_inside(
    box: tuple[float, float, float, float], size: tuple[int, int]
) -> None:
    inside = clipped(box, size)
    if inside is not None:
        x, y, w, h = inside
        assert min(x, y) >= 0
        assert min(w, h) >= 0.5
        assert x + w <= size[0] + 1e-6
        assert y + h <= size[1] + 1e-6
