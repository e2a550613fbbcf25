"""The generated scenes: the same for a seed, different otherwise, honest in their labels."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from endedge.data import drawing, generated
from endedge.data.coco import Dataset, read_image
from endedge.data.errors import BadInput
from endedge.data.generated import DOMAINS, NAMES, generate, scene


def _digests(folder: Path) -> list[str]:
    return [hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*.png"))]


def _make(folder: Path, split: str = "train", n: int = 6, seed: int = 3) -> Dataset:
    return generate(folder, domain="source", split=split, n=n, seed=seed)


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    _make(tmp_path / "a")
    _make(tmp_path / "b")
    assert _digests(tmp_path / "a") == _digests(tmp_path / "b")
    assert len(set(_digests(tmp_path / "a"))) == 6
    name = "source-train.json"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_fewer_frames_are_the_first_of_more(tmp_path: Path) -> None:
    _make(tmp_path / "few", n=3)
    _make(tmp_path / "more", n=6)
    assert _digests(tmp_path / "few") == _digests(tmp_path / "more")[:3]


def test_seeds_splits_and_domains_share_no_frame() -> None:
    ways = [
        ("source", "train", 0),
        ("source", "eval", 0),
        ("source", "train", 1),
        ("field", "train", 0),
        ("field", "eval", 0),
    ]
    objects = {
        (*way, index): scene(way[0], way[1], index, seed=way[2]).boxes.tobytes()
        for way in ways
        for index in range(8)
    }
    assert len(set(objects.values())) == len(objects)


@pytest.mark.parametrize("domain", DOMAINS)
def test_loads_as_coco_what_was_drawn(tmp_path: Path, domain: str) -> None:
    dataset = generate(tmp_path, domain=domain, split="eval", n=5, seed=1, size=96)
    assert dataset.names == NAMES
    assert dataset.category_ids == tuple(range(1, len(NAMES) + 1))
    for index, frame in enumerate(dataset.frames):
        drawn = scene(domain, "eval", index, seed=1, size=96)
        assert (read_image(frame.path) == drawn.image).all()  # lossless
        np.testing.assert_array_equal(frame.boxes, drawn.boxes)
        np.testing.assert_array_equal(frame.labels, drawn.labels)
        assert drawn.image.shape == (96, 96, 3)


@pytest.mark.parametrize("domain", DOMAINS)
def test_scenes_are_neither_empty_nor_lopsided(domain: str) -> None:
    drawn = [scene(domain, "any", index, seed=5) for index in range(150)]
    counts = np.bincount(np.concatenate([s.labels for s in drawn]), minlength=len(NAMES))
    assert counts.sum() > 2 * len(drawn)
    assert counts.min() > 0.5 * counts.mean()
    boxes = np.concatenate([s.boxes for s in drawn])
    assert boxes[:, :2].min() >= 0
    assert (boxes[:, :2] + boxes[:, 2:]).max() <= 128
    sides = np.sqrt(boxes[:, 2] * boxes[:, 3])
    assert np.percentile(sides, 95) > 2.2 * np.percentile(sides, 5)  # scale varies
    fill = np.concatenate([s.areas for s in drawn]) / (boxes[:, 2] * boxes[:, 3])
    assert fill.max() <= 1
    assert fill.min() > 0.1  # what is labelled can be seen


def test_boxes_are_where_the_objects_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the same scenes with and without their objects: the pictures differ inside the
    boxes and nowhere else (no noise, no shared light)."""
    quiet = generated.Scenery("patches", (1, 1), 0, (1, 1, 1), 0, 0, (0, 0))
    monkeypatch.setitem(DOMAINS, "source", quiet)
    shown = [scene("source", "t", index, seed=0) for index in range(10)]
    lay = generated._Canvas.lay

    def ghost(canvas: generated._Canvas, patch: drawing.Patch, label: int | None = None) -> bool:
        picture = canvas.picture.copy()
        laid = lay(canvas, patch, label)
        if label is not None:
            canvas.picture = picture
        return laid

    monkeypatch.setattr(generated._Canvas, "lay", ghost)
    for index, with_objects in enumerate(shown):
        without = scene("source", "t", index, seed=0).image
        changed = (with_objects.image != without).any(2)
        assert changed.any()
        outside = changed.copy()
        for x, y, w, h in with_objects.boxes.astype(int):
            assert changed[y : y + h, x : x + w].mean() > 0.1
            outside[max(y - 2, 0) : y + h + 2, max(x - 2, 0) : x + w + 2] = False
        assert outside.mean() < 0.02  # slivers of an object cut off by what hides it


def test_domains_look_different() -> None:
    means = {
        d: np.mean([scene(d, "t", i, seed=0).image.mean((0, 1)) for i in range(40)], axis=0)
        for d in DOMAINS
    }
    assert means["field"].mean() < 0.6 * means["source"].mean()  # darker
    cast = {d: m[0] / m[2] for d, m in means.items()}
    assert cast["field"] > 1.2 * cast["source"]  # redder


def test_a_set_that_is_there_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make(tmp_path)

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr(generated, "scene", never)
    assert len(_make(tmp_path)) == 6
    with pytest.raises(BadInput, match="holds other frames"):
        _make(tmp_path, seed=4)
    (tmp_path / "source-train.json").write_text(json.dumps({"info": {}}))
    with pytest.raises(BadInput, match="holds other frames"):
        _make(tmp_path)


def test_a_killed_run_leaves_no_annotations_and_the_next_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(domain: str, split: str, index: int, *, seed: int, size: int) -> generated.Scene:
        if index == 3:
            raise KeyboardInterrupt
        return scene(domain, split, index, seed=seed, size=size)

    monkeypatch.setattr(generated, "scene", killed)
    with pytest.raises(KeyboardInterrupt):
        _make(tmp_path)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "source-train").mkdir()  # images renamed, annotations not: killed in between
    (tmp_path / "source-train" / "000099.png").write_bytes(b"left over")
    assert len(_make(tmp_path)) == 6
    assert len(_digests(tmp_path)) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"domain": "moon"}, "unknown domain 'moon'"),
        ({"n": 0}, "0 frames"),
        ({"size": 8}, "8 px"),
        ({"seed": -1}, "seed"),
        ({"split": "../up"}, "file name"),
    ],
)
def test_bad_input(tmp_path: Path, change: dict[str, object], message: str) -> None:
    good: dict[str, object] = {"domain": "source", "split": "t", "n": 1, "seed": 0}
    with pytest.raises(BadInput, match=message):
        generate(tmp_path / "out", **(good | change))  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
