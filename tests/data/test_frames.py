from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from endedge.data.coco import Frame
from endedge.data.errors import BadInput
from endedge.data.frames import letterbox, stack_frames
from endedge.data.shift import KINDS, Shift


def test_letterbox_by_hand() -> None:
    # 200 x 100 to a side of 64: scale 0.32, picture 64 x 32, 16 px of grey above and below.
    square, scale, left, top = letterbox(np.full((100, 200, 3), 255, np.uint8), 64)
    assert (scale, left, top) == (0.32, 0, 16)
    assert (square[:16] == 114).all()
    assert (square[16:48] == 255).all()
    assert (square[48:] == 114).all()


def test_boxes_follow_the_picture_even_when_the_codec_shrank_it() -> None:
    box = np.array([[50, 20, 100, 40]], np.float32)  # of a 200 x 100 frame
    frame = Frame(1, Path(), 200, 100, box, np.array([2]), np.array([False]))
    for width in (200, 150, 64):
        shrunk = np.zeros((width // 2, width, 3), np.uint8)
        batch = stack_frames([frame], 64, lambda _, p=shrunk: p)  # type: ignore[misc]
        # centre (100, 40) of 200 x 100 → (0.5, (40·0.32 + 16)/64 = 0.45); 100·0.32/64 = 0.5 wide
        assert np.allclose(batch.boxes[0].numpy(), [[0.5, 0.45, 0.5, 0.2]])
        assert batch.labels[0].tolist() == [2]


def test_crowds_are_no_targets() -> None:
    box = np.array([[0, 0, 10, 10]], np.float32)
    frame = Frame(1, Path(), 64, 64, box, np.array([0]), np.array([True]))
    assert len(stack_frames([frame], 64, lambda f: np.zeros((64, 64, 3), np.uint8)).boxes[0]) == 0


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_camera_sees_a_frame_always_the_same(kind: str, picture: NDArray[np.uint8]) -> None:
    before = picture.copy()
    for severity in (1, 5):
        camera = Shift(kind, severity, 3)  # type: ignore[arg-type]
        once, again = camera.apply(picture, 11), camera.apply(picture, 11)
        assert once.shape == picture.shape
        assert once.dtype == np.uint8
        assert (once == again).all()
        assert (picture == before).all()
        assert kind == "none" or (once != picture).any()
    if kind in ("infrared", "night"):  # noise differs from frame to frame and with the seed
        assert (Shift(kind, 3, 3).apply(picture, 12) != Shift(kind, 3, 3).apply(picture, 11)).any()  # type: ignore[arg-type]
        assert (Shift(kind, 3, 4).apply(picture, 11) != Shift(kind, 3, 3).apply(picture, 11)).any()  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "none"])
def test_a_higher_severity_loses_more(kind: str) -> None:
    x = np.linspace(0, 6, 120)
    smooth = (127 + 90 * np.sin(x)[:, None] * np.cos(x)[None, :])[..., None].repeat(3, 2)
    clean = smooth.astype(np.uint8)
    lost = []
    for severity in range(1, 6):
        seen = Shift(kind, severity, 0).apply(clean, 1).astype(float)  # type: ignore[arg-type]
        # what is left of the picture: correlation with it, whatever its sign and contrast
        lost.append(1 - abs(np.corrcoef(seen.ravel(), smooth.ravel())[0, 1]))
    assert kind != "infrared" or lost == sorted(lost)
    assert lost[4] > lost[0]


def test_infrared_by_hand() -> None:
    # Grey 200 inverts to 55; contrast 0.8 about 127.5 gives 69.5; the noise has mean 0.
    seen = Shift("infrared", 3, 0).apply(np.full((200, 200, 3), 200, np.uint8), 1)
    assert abs(seen.mean() - 69.5) < 0.3
    assert abs(seen[..., 0].std() - 6) < 0.2


@pytest.mark.parametrize(("kind", "severity"), [("sunny", 3), ("fog", 0), ("fog", 6)])
def test_bad_cameras(kind: str, severity: int) -> None:
    with pytest.raises(BadInput):
        Shift(kind, severity)  # type: ignore[arg-type]
