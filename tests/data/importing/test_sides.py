"""Classes by name, and no picture of one side on the other."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from endedge.data.errors import BadInput
from endedge.data.importing.classes import map_classes, parse_map
from endedge.data.importing.found import Picture
from endedge.data.importing.sides import look, split

COCO = ("person", "bicycle", "car", "motorcycle", "airplane", "potted plant", "tv")


def test_classes_go_by_name_whatever_the_order_and_the_case() -> None:
    found = Counter({"Car": 3, "pottedplant": 1, "PERSON": 2, "motorbike": 1})
    mapped = map_classes(found, COCO, parse_map(["motorbike=motorcycle"]))
    assert mapped == {
        "Car": "car",
        "pottedplant": "potted plant",
        "PERSON": "person",
        "motorbike": "motorcycle",
    }


def test_what_matches_nothing_is_named_with_a_suggestion() -> None:
    found = Counter({"persn": 4, "lorry": 2, "car": 9})
    with pytest.raises(BadInput, match=r"'persn' \(4 boxes; did you mean 'person'\?\)") as caught:
        map_classes(found, COCO, {})
    assert "--map" in str(caught.value)
    assert map_classes(found, COCO, parse_map(["persn=person", "*="])) == {
        "persn": "person",
        "lorry": None,
        "car": "car",
    }
    assert map_classes(found, COCO, parse_map(["persn=person", "lorry="]))["lorry"] is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["car"], "is not OLD=NEW"),
        (["=car"], "is not OLD=NEW"),
        (["*=car"], "is not OLD=NEW"),
        (["car=tv", "car=person"], "twice"),
        (["van=car"], "no class 'van'"),
        (["car=cra"], "no class 'cra'; did you mean 'car'"),
        (["car="], "no class is left"),
    ],
)
def test_bad_maps(words: list[str], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        map_classes(Counter({"car": 1}), COCO, parse_map(words))


def _pictures(names: list[str], **how: object) -> list[Picture]:
    return [Picture(Path(n), n, (8, 8), labelled=True, **how) for n in names]  # type: ignore[arg-type]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 5), min_size=4, max_size=40),
    st.integers(0, 3),
    st.floats(0.05, 0.9),
    st.integers(0, 9),
)
def test_groups_and_look_alikes_stay_together(
    kinds: list[int], near: int, share: float, seed: int
) -> None:
    """Brute force: no two pictures of different sides share a folder or look alike."""
    rng = np.random.default_rng(seed)
    hashes = rng.random((len(kinds), 256)) < 0.5
    for i in range(1, len(kinds), 5):  # some look like the one before, by ``near`` bits or more
        hashes[i] = hashes[i - 1]
        hashes[i, : (i % 3) * 2] ^= True
    pictures = _pictures([f"cam{k}/{i}.jpg" for i, k in enumerate(kinds)])
    try:
        found = split(pictures, hashes, group="folder", eval_share=share, near_bits=near, seed=seed)
    except BadInput:
        return
    assert 0 < sum(found.eval_of) < len(kinds)
    for i in range(len(kinds)):
        for j in range(i):
            if kinds[i] == kinds[j] or (hashes[i] ^ hashes[j]).sum() <= near:
                assert found.eval_of[i] == found.eval_of[j]


def test_the_share_and_the_seed() -> None:
    pictures = _pictures([f"{i}.jpg" for i in range(200)])
    hashes = np.random.default_rng(0).random((200, 256)) < 0.5
    first = split(pictures, hashes, eval_share=0.3, seed=1)
    assert sum(first.eval_of) == 60
    assert split(pictures, hashes, eval_share=0.3, seed=1) == first
    assert split(pictures, hashes, eval_share=0.3, seed=2) != first


def test_given_splits_stand_and_look_alikes_leave_the_pool() -> None:
    pictures = _pictures(["a", "b"], side="pool") + _pictures(["c", "d"], side="eval")
    hashes = np.random.default_rng(0).random((4, 256)) < 0.5
    hashes[1] = hashes[3]
    hashes[1, :2] ^= True
    found = split(pictures, hashes)
    assert found.eval_of == [False, False, True, True]
    assert found.kept == [True, False, True, True]
    assert found.left_out == {"pool pictures that look like an evaluated one": 1}


def test_stretches_of_time_from_names() -> None:
    names = [f"IMG_20260301_10{m:02d}00.jpg" for m in (0, 1, 2, 20, 21, 40, 41, 42)]
    hashes = np.random.default_rng(0).random((8, 256)) < 0.5
    found = split(_pictures(names), hashes, group="time", eval_share=0.4)
    assert found.groups == 3
    assert found.eval_of[:3] in ([True] * 3, [False] * 3)
    assert "stretch of time" in found.rule
    with pytest.raises(BadInput, match=r"x\.jpg has no time"):
        split(_pictures([*names[:7], "x.jpg"]), hashes, group="time")


def test_one_group_cannot_be_split() -> None:
    same = np.zeros((5, 256), np.bool_)
    with pytest.raises(BadInput, match="one group"):
        split(_pictures(list("abcde")), same)


def test_hashes_survive_size_and_compression(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rough = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8))
    scene = rough.resize((640, 480), Image.Resampling.BICUBIC)
    other = scene.transpose(Image.Transpose.ROTATE_180)
    scene.save(tmp_path / "a.png")
    scene.resize((320, 240)).save(tmp_path / "b.jpg", quality=60)
    other.save(tmp_path / "c.png")
    a, b, c = (look(tmp_path / n) for n in ("a.png", "b.jpg", "c.png"))
    assert a is not None
    assert b is not None
    assert c is not None
    assert (a ^ b).sum() <= 12
    assert (a ^ c).sum() > 60
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:2000])
    assert look(tmp_path / "cut.png") is None
