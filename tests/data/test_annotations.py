"""COCO files as label tools write them: read right, or refused with the record and the remedy."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from endedge.data.annotations import read_instances
from endedge.data.classes import match_classes, same_classes
from endedge.data.coco import Dataset, load_coco
from endedge.data.errors import BadInput


def _document() -> dict[str, Any]:
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 40, "height": 30},
            {"id": 8, "file_name": "b.png", "width": 40, "height": 30},
        ],
        "annotations": [{"id": 4, "image_id": 7, "category_id": 5, "bbox": [1, 2, 10, 20]}],
        "categories": [{"id": 3, "name": "ant"}, {"id": 5, "name": "cat"}],
    }


Change = Callable[[dict[str, Any]], Any]


def _set(where: str, index: int, key: str, value: Any) -> Change:
    def change(document: dict[str, Any]) -> None:
        document[where][index][key] = value

    return change


def _bbox(*values: Any) -> Change:
    return _set("annotations", 0, "bbox", list(values))


# why it is silently wrong in a lenient reader: the change, what is said
REFUSED: dict[str, tuple[Change, str]] = {
    "a text is true: a crowd": (_set("annotations", 0, "iscrowd", "0"), "iscrowd is '0'; write 0"),
    "a crowd of null": (_set("annotations", 0, "iscrowd", None), "iscrowd is None; write 0 or 1"),
    "a crowd of 2": (_set("annotations", 0, "iscrowd", 2), "iscrowd is 2"),
    "a crowd of a half": (_set("annotations", 0, "iscrowd", 0.5), "iscrowd is 0.5"),
    "image id truncated": (_set("images", 0, "id", 7.5), "image number 1: id is 7.5"),
    "image id of text": (_set("images", 0, "id", "7"), "id is '7'; write a whole number"),
    "image id true": (_set("images", 0, "id", True), "id is True"),
    "image id below 0": (_set("images", 0, "id", -7), "image -7: id is -7"),
    "image id no float can tell": (_set("images", 0, "id", 2**53), "whole number, 0 to 2"),
    "image id of 80 bits": (_set("images", 0, "id", 2**80), "whole number"),
    "image id infinite": (_set("images", 0, "id", float("inf")), "id is inf"),
    "image id no number": (_set("images", 0, "id", float("nan")), "id is nan"),
    "annotation of half an image": (_set("annotations", 0, "image_id", 7.9), "image_id is 7.9"),
    "annotation id of text": (_set("annotations", 0, "id", "x"), "annotation number 1: id is 'x'"),
    "category of text": (_set("annotations", 0, "category_id", "5"), "category_id is '5'"),
    "category id infinite": (_set("categories", 0, "id", float("-inf")), "id is -inf"),
    "category id of 60 bits": (_set("categories", 1, "id", 2**60), "whole number"),
    "category without a name": (_set("categories", 0, "name", "  "), "name is '  '; write a text"),
    "category named by a number": (_set("categories", 0, "name", 3), "name is 3; write a text"),
    "width 0": (_set("images", 0, "width", 0), "image 7: width is 0; write a whole number, 1"),
    "width below 0": (_set("images", 0, "width", -5), "width is -5"),
    "width of a trillion": (_set("images", 0, "width", 10**12), "at most 50 megapixels"),
    "width of half a pixel": (_set("images", 0, "width", 40.5), "width is 40.5"),
    "height of text": (_set("images", 1, "height", "30"), "image 8: height is '30'"),
    "height null": (_set("images", 0, "height", None), "height is None"),
    "box below 0": (_bbox(1, 2, -5, 4), "is not x, y, width, height"),
    "box empty": (_bbox(1, 2, 0, 4), r"bbox \[1, 2, 0, 4\] is empty; remove it"),
    "box of next to nothing": (_bbox(1, 2, 1e-300, 4), "is empty"),
    "box flat": (_bbox(1, 2, 4, 0.0), "is empty"),
    "box of a trillion": (_bbox(1, 2, 10**12, 4), "lies outside its 40x30 image"),
    "box of 400 digits": (_bbox(1, 2, 10**400, 4), "is not x, y"),
    "box infinite": (_bbox(1, 2, float("inf"), 4), "is not x, y"),
    "box of true": (_bbox(1, 2, True, 4), "is not x, y"),
    "box of text": (_bbox("1", 2, 3, 4), "is not x, y"),
    "box of five": (_bbox(1, 2, 3, 4, 5), "is not x, y"),
    "box an object": (_set("annotations", 0, "bbox", {"x": 1}), "is not x, y"),
    "box null": (_set("annotations", 0, "bbox", None), "bbox None is not"),
    "corners for width and height": (_bbox(30, 20, 38, 28), "x, y, width, height in pixels"),
    "relative to the image, and centred": (_bbox(-3, 0.5, 0.2, 0.2), "lies outside"),
    "file name of number": (_set("images", 0, "file_name", 7), "file_name is 7; write a text"),
    "file name empty": (_set("images", 0, "file_name", ""), "file_name is ''"),
    "file name absolute": (_set("images", 0, "file_name", "/etc/passwd"), "points outside"),
    "file name above": (_set("images", 0, "file_name", "x/../../a.png"), "points outside"),
    "file name of Windows": (_set("images", 0, "file_name", "x\\a.png"), "write / instead of"),
    "file name with a zero byte": (_set("images", 0, "file_name", "a\0.png"), "image not found"),
    "file name too long": (_set("images", 0, "file_name", "a" * 5000), "image not found"),
    "file name no UTF-8 has": (_set("images", 0, "file_name", "\ud800.png"), "image not found"),
    "two records of one file": (_set("images", 1, "file_name", "a.png"), "two images are of one"),
    "the same by another name": (_set("images", 1, "file_name", "./a.png"), "two images are of"),
    "image id twice": (_set("images", 1, "id", 7.0), "duplicate image id: 7 is there 2 times"),
    "category id twice": (_set("categories", 1, "id", 3), "duplicate category id"),
    "unknown image": (_set("annotations", 0, "image_id", 9), r"unknown image \(9\)"),
    "unknown category": (_set("annotations", 0, "category_id", 4), r"category \(4\)"),
    "a record that is a list": (lambda d: d["images"].append([1]), r"image number 3 is \[1\]"),
    "annotations an object": (lambda d: d.update(annotations={}), "has no list 'annotations'"),
    "categories left out": (lambda d: d.pop("categories"), "has no list 'categories'"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 30), (9, 8, len(name))).save(tmp_path / name)
    return tmp_path


def _load(folder: Path, document: Any, encoding: str = "utf-8") -> Dataset:
    text = document if isinstance(document, str) else json.dumps(document)
    (folder / "set.json").write_bytes(text.encode(encoding))
    return load_coco(folder / "set.json", folder)


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line(folder: Path, case: str) -> None:
    change, says = REFUSED[case]
    document = _document()
    change(document)
    with pytest.raises(BadInput, match=says) as caught:
        _load(folder, document)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600 + len(str(folder))


def test_a_key_twice_in_one_object(folder: Path) -> None:
    text = json.dumps(_document()).replace('"id": 7,', '"id": 7, "id": 9,', 1)
    with pytest.raises(BadInput, match="the key 'id' is twice in one object"):
        _load(folder, text)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_encodings_of_editors(folder: Path, encoding: str) -> None:
    document = _document()
    document["categories"][1]["name"] = "Kätzchen"
    text = json.dumps(document, ensure_ascii=False)
    assert _load(folder, text, encoding).names == ("ant", "Kätzchen")


def test_latin_1_is_said(folder: Path) -> None:
    with pytest.raises(BadInput, match="not a COCO instances file"):
        _load(folder, '{"name": "Kätzchen"}', "latin-1")


def test_whole_floats_and_flags_are_numbers(folder: Path) -> None:
    document = _document()
    document["images"][0] |= {"id": 7.0, "width": 40.0}
    document["annotations"][0] |= {"image_id": 7.0, "iscrowd": True}
    frame = _load(folder, document).frames[0]
    assert (frame.image_id, frame.width, frame.crowd.tolist()) == (7, 40, [True])


def test_a_group_of_the_same_name_is_left_out(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Roboflow writes the project as category 0, which may be named as its only class."""
    document = _document()
    document["categories"] = [{"id": 0, "name": "cat"}, {"id": 5, "name": "cat"}]
    with caplog.at_level(logging.WARNING, "endedge"):
        data = _load(folder, document)
    assert (data.names, data.category_ids) == (("cat",), (5,))
    assert "category 0 'cat' has no box" in caplog.text
    assert read_instances(folder / "set.json").document["categories"] == [{"id": 5, "name": "cat"}]
    document["annotations"].append({"image_id": 8, "category_id": 0, "bbox": [1, 1, 5, 5]})
    with pytest.raises(BadInput, match="categories 0 and 5 are both named 'cat'"):
        _load(folder, document)


# Class lists --------------------------------------------------------------------------------


def _labelled(folder: Path, kinds: dict[int, str], *boxes: int) -> Dataset:
    document = _document()
    document["categories"] = [{"id": i, "name": name} for i, name in kinds.items()]
    document["annotations"] = [
        {"image_id": 7, "category_id": category, "bbox": [k, 1, 5, 5]}
        for k, category in enumerate(boxes)
    ]
    return _load(folder, document)


def _match(data: Dataset, *names: str) -> Dataset:
    return match_classes(data, names, what="the set", detector="the net")


def test_classes_are_matched_by_name(folder: Path) -> None:
    data = _labelled(folder, {1: "car", 2: "bus", 9: "dog"}, 9, 1, 2, 1)
    assert _match(data, "car", "bus", "dog") is data  # nothing to do: and the same fingerprint
    other = _match(data, "dog", "car", "bus")
    assert (other.names, other.category_ids) == (("dog", "car", "bus"), (9, 1, 2))
    frame = other.frames[0]
    assert [other.names[k] for k in frame.labels] == ["dog", "car", "bus", "car"]
    assert frame.boxes[:, 0].tolist() == [0, 1, 2, 3]


def test_unused_dummies_are_left_out_with_a_note(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = _labelled(folder, {0: "traffic-xyz", 1: "car", 2: "bus"}, 1, 2, 2)
    with caplog.at_level(logging.WARNING, "endedge"):
        found = _match(data, "car", "bus")
    assert (found.names, found.category_ids) == (("car", "bus"), (1, 2))
    assert found.frames[0].labels.tolist() == [0, 1, 1]
    assert "no box of 'traffic-xyz'; left out" in caplog.text


@pytest.mark.parametrize(
    ("kinds", "names", "says"),
    [
        ({1: "Car"}, ("car",), "1 boxes of 'Car', which the net does not detect; is it 'car'"),
        (
            {1: "car", 2: "dog"},
            ("car",),
            "1 boxes of 'dog', which .* not detect; that has car",
        ),
        ({1: "car"}, ("car", "bus"), "the net detects 'bus', which the categories of the set do"),
        ({1: "car"}, ("car", "car"), "two classes named 'car'"),
    ],
)
def test_the_first_name_that_differs_is_said(
    folder: Path, kinds: dict[int, str], names: tuple[str, ...], says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        _match(_labelled(folder, kinds, *kinds), *names)


def test_two_detectors_name_the_first_difference() -> None:
    same_classes(("a", "b"), ("a", "b"), what="A", other="B")
    with pytest.raises(BadInput, match="class 1 is 'b' in one and 'c' in the other"):
        same_classes(("a", "b"), ("a", "c"), what="A", other="B")
    with pytest.raises(BadInput, match="class 1 is nothing in one and 'c' in the other"):
        same_classes(("a",), ("a", "c"), what="A", other="B")


_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["images", "annotations", "categories"]),
    st.sampled_from(
        ["id", "file_name", "width", "height", "image_id", "category_id", "bbox", "iscrowd", "name"]
    ),
    _JUNK,
)
def test_any_field_of_any_kind_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, where: str, key: str, value: Any
) -> None:
    folder = tmp_path_factory.getbasetemp()
    for name in ("a.png", "b.png"):
        if not (folder / name).exists():
            Image.new("RGB", (40, 30)).save(folder / name)
    document = _document()
    document[where][0][key] = value
    said, sizes = "", [(40, 30)] * 2
    try:
        sizes = [(f.width, f.height) for f in _load(folder, document).frames]
    except BadInput as error:
        said = str(error)
    assert "\n" not in said
    assert sizes == [(40, 30)] * 2
