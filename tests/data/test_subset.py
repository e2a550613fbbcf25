from __future__ import annotations

import json
from pathlib import Path

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
