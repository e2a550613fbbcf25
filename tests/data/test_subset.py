from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from endedge.data.coco import load_coco
from endedge.data.errors import BadInput
from endedge.data.generated import generate
from endedge.data.subset import cut, read_ids


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    generate(folder, domain="field", split="all", n=10, seed=0, size=64)
    return folder


def _cut(whole: Path, to: Path, **splits: int | list[int]) -> dict[str, int]:
    return cut(whole / "field-all.json", whole / "field-all", to, splits)


def test_splits_are_disjoint_nested_and_load(whole: Path, tmp_path: Path) -> None:
    assert _cut(whole, tmp_path / "a", pool=6, eval=4) == {"pool": 6, "eval": 4}
    _cut(whole, tmp_path / "b", pool=3)
    everything = {
        f.image_id: f for f in load_coco(whole / "field-all.json", whole / "field-all").frames
    }

    def ids(folder: str, split: str) -> set[int]:
        root = tmp_path / folder
        made = load_coco(root / f"annotations/instances_{split}.json", root / f"images/{split}")
        for frame in made.frames:
            twin = everything[frame.image_id]
            assert frame.path.read_bytes() == twin.path.read_bytes()
            assert (frame.boxes == twin.boxes).all()
        return {frame.image_id for frame in made.frames}

    assert ids("a", "pool") | ids("a", "eval") == set(everything)
    assert not ids("a", "pool") & ids("a", "eval")
    assert ids("b", "pool") < ids("a", "pool")  # fewer are the first of more


def test_exact_ids_in_their_order_and_fields_kept(whole: Path, tmp_path: Path) -> None:
    assert _cut(whole, tmp_path, eval=[7, 2], pool=8) == {"eval": 2, "pool": 8}
    part = json.loads((tmp_path / "annotations/instances_eval.json").read_text())
    source = json.loads((whole / "field-all.json").read_text())
    assert [r["id"] for r in part["images"]] == [7, 2]
    assert part["annotations"] == [a for a in source["annotations"] if a["image_id"] in (2, 7)]
    assert part["info"] == source["info"]


def test_links_point_at_the_frames(whole: Path, tmp_path: Path) -> None:
    cut(whole / "field-all.json", whole / "field-all", tmp_path, {"eval": [1]}, link=True)
    (made,) = (tmp_path / "images/eval").iterdir()
    assert made.is_symlink()
    assert made.resolve() == (whole / "field-all/000000.png").resolve()


@pytest.mark.parametrize(
    ("splits", "says"),
    [
        ({"pool": 8, "eval": 3}, "10 are there"),
        ({"pool": 0}, "at least 1"),
        ({"pool": [99]}, "no image 99"),
        ({"pool": [1, 2], "eval": [2]}, "asked for twice"),
        ({"../pool": 2}, "cannot be a file name"),
    ],
)
def test_splits_that_cannot_be(
    whole: Path, tmp_path: Path, splits: dict[str, int | list[int]], says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        _cut(whole, tmp_path / "out", **splits)
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_and_missing_frames_are_named(whole: Path, tmp_path: Path) -> None:
    _cut(whole, tmp_path, pool=2)
    with pytest.raises(BadInput, match="exists"):
        _cut(whole, tmp_path, pool=2)
    with pytest.raises(BadInput, match=r"image not found: .*000000.png"):
        cut(whole / "field-all.json", tmp_path, tmp_path / "b", {"pool": [1]})
    (tmp_path / "c.json").write_text("[1, 2]")
    with pytest.raises(BadInput, match="not a COCO instances file"):
        cut(tmp_path / "c.json", tmp_path, tmp_path / "b", {"pool": 1})


def test_lists_of_ids(tmp_path: Path) -> None:
    for text in ("3 4\n5", "3,4,5\n", "[3, 4, 5]"):
        (tmp_path / "ids").write_text(text)
        assert read_ids(tmp_path / "ids") == [3, 4, 5]
    (tmp_path / "ids").write_text("three")
    with pytest.raises(BadInput, match="not a list of image ids"):
        read_ids(tmp_path / "ids")


# Twins and odd files ------------------------------------------------------------------------


def _with_twins(whole: Path, to: Path) -> Path:
    """The set with image 3 a copy of image 1, and 8 of 7."""
    shutil.copytree(whole / "field-all", to / "images")
    for copy, of in ((3, 1), (8, 7)):
        shutil.copyfile(to / f"images/{of - 1:06d}.png", to / f"images/{copy - 1:06d}.png")
    shutil.copyfile(whole / "field-all.json", to / "all.json")
    return to


def test_equal_pictures_never_stand_on_both_sides(
    whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = _with_twins(whole, tmp_path)
    with caplog.at_level(logging.WARNING, "endedge"):
        cut(source / "all.json", source / "images", tmp_path / "a", {"pool": 4, "eval": 4})
    assert "2 pictures are the same as others" in caplog.text
    seen = [p.read_bytes() for p in (tmp_path / "a/images").rglob("*.png")]
    assert len(set(seen)) == len(seen) == 8
    with pytest.raises(BadInput, match="and 8 are there"):
        cut(source / "all.json", source / "images", tmp_path / "b", {"pool": 5, "eval": 4})
    made = cut(source / "all.json", source / "images", tmp_path / "c", {"eval": [3, 1], "pool": 7})
    assert made == {"eval": 2, "pool": 7}  # both copies where somebody asked for them
    with pytest.raises(BadInput, match="image 1 of eval and image 3 of pool are the same picture"):
        cut(source / "all.json", source / "images", tmp_path / "d", {"eval": [1], "pool": [3]})


def test_damaged_pictures_are_all_named_before_anything_is_written(
    whole: Path, tmp_path: Path
) -> None:
    source = _with_twins(whole, tmp_path)
    for name in ("000004.png", "000005.png"):
        path = source / "images" / name
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadInput, match=r"2 of 10 pictures .*000004\.png.*000005\.png"):
        cut(source / "all.json", source / "images", tmp_path / "a", {"eval": [*range(1, 11)]})
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["images"].append(d["images"][0]), "duplicate image id"),
        (
            lambda d: d["images"].append({**d["images"][0], "id": 99}),
            "two images are of one file",
        ),
        (lambda d: d["annotations"][0].update(image_id="1"), "image_id is '1'"),
    ],
)
def test_the_whole_file_is_checked(
    whole: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], says: str
) -> None:
    document = json.loads((whole / "field-all.json").read_text())
    change(document)
    (tmp_path / "all.json").write_text(json.dumps(document))
    with pytest.raises(BadInput, match=says):
        cut(tmp_path / "all.json", whole / "field-all", tmp_path / "a", {"pool": 2})
    assert not (tmp_path / "a").exists()
