from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from endedge.data.coco import fingerprint, load_coco, nested_subset, read_image
from endedge.data.errors import BadInput


def _document() -> dict[str, Any]:
    return {
        "images": [{"id": 7, "file_name": "a.png", "width": 40, "height": 30}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 5, "bbox": [1, 2, 10, 20]},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [0, 0, 40, 30], "iscrowd": 1},
        ],
        "categories": [{"id": 5, "name": "cat"}, {"id": 3, "name": "ant"}],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 30), (9, 8, 7)).save(tmp_path / "a.png")
    return tmp_path


def _load(folder: Path, document: Any) -> Any:
    path = folder / "set.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return load_coco(path, folder)


def test_a_good_file(folder: Path) -> None:
    data = _load(folder, _document())
    assert data.names == ("ant", "cat")
    assert data.category_ids == (3, 5)  # classes are numbered by COCO id
    frame = data.frames[0]
    assert frame.labels.tolist() == [1, 0]
    assert frame.crowd.tolist() == [False, True]
    assert frame.boxes.tolist() == [[1, 2, 10, 20], [0, 0, 40, 30]]
    assert read_image(frame.path).shape == (30, 40, 3)


def _with(**changes: Any) -> dict[str, Any]:
    return {**_document(), **changes}


def _box(*box: Any) -> dict[str, Any]:
    return _with(annotations=[{"id": 4, "image_id": 7, "category_id": 5, "bbox": list(box)}])


BAD = {
    "not JSON": ("{", "not a COCO instances file"),
    "a list": ([], "not a COCO instances file"),
    "other JSON": ({"foo": 1}, "not a COCO instances file"),
    "too deep for the parser": ("[" * 100_000, "not a COCO instances file"),
    "no images": (_with(images=[]), "unknown image"),
    "image without a size": (_with(images=[{"id": 7, "file_name": "a.png"}]), "width"),
    "image twice": (_with(images=_document()["images"] * 2), "duplicate"),
    "file missing": (
        _with(images=[{"id": 7, "file_name": "b.png", "width": 40, "height": 30}]),
        "image not found",
    ),
    "file outside the folder": (
        _with(images=[{"id": 7, "file_name": "../a.png", "width": 40, "height": 30}]),
        "points outside",
    ),
    "box outside its image": (_box(35, 2, 10, 20), "annotation 4: bbox .* lies outside"),
    "box at negative place": (_box(-5, 2, 10, 20), "lies outside"),
    "negative box": (_box(1, 2, -3, 4), "is not x, y, width"),
    "empty box": (_box(1, 2, 0, 4), "annotation 4: bbox .* is empty"),
    "NaN box": (_box(1, 2, float("nan"), 4), "is not x, y, width"),
    "short box": (_box(1, 2, 3), "is not x, y, width"),
    "box of words": (_box("a", 2, 3, 4), "is not x, y, width"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_named(folder: Path, case: str) -> None:
    document, message = BAD[case]
    with pytest.raises(BadInput, match=message):
        _load(folder, document)


def test_missing_places(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="annotation file not found"):
        load_coco(tmp_path / "no.json", tmp_path)
    (tmp_path / "set.json").write_text("{}")
    with pytest.raises(BadInput, match="image folder not found"):
        load_coco(tmp_path / "set.json", tmp_path / "no")


def test_an_image_that_does_not_decode(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"\x89PNG no")
    with pytest.raises(BadInput, match="image does not decode"):
        read_image(tmp_path / "x.png")


def test_subsets_are_nested_and_seeded() -> None:
    assert nested_subset(100, 3) == nested_subset(100, 3)
    assert nested_subset(100, 3) != nested_subset(100, 4)
    assert sorted(nested_subset(100, 3)) == list(range(100))


def test_the_fingerprint_sees_pixels_and_boxes(folder: Path) -> None:
    before = fingerprint(_load(folder, _document()))
    assert before == fingerprint(_load(folder, _document()))
    moved = _document()
    moved["annotations"][0]["bbox"] = [1, 2, 10, 21]
    assert fingerprint(_load(folder, moved)) != before
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(folder / "a.png")
    assert fingerprint(_load(folder, _document())) != before
