"""A camera that stands elsewhere: what it sees and where the boxes are then."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from endedge.data.coco import Dataset, Frame
from endedge.data.shift import KINDS, Shift

WIDTH, HEIGHT = 160, 120


def _dataset(*boxes: tuple[float, float, float, float], image_id: int = 7) -> Dataset:
    n = len(boxes)
    frame = Frame(
        image_id,
        Path(),
        WIDTH,
        HEIGHT,
        np.array(boxes, np.float32).reshape(n, 4),
        np.arange(n),
        np.zeros(n, bool),
    )
    return Dataset((frame,), tuple("abcdefgh"), tuple(range(1, 9)))


@settings(max_examples=60, deadline=None)
@given(
    x=st.integers(0, WIDTH - 30),
    y=st.integers(0, HEIGHT - 30),
    w=st.integers(14, 60),
    h=st.integers(14, 60),
    severity=st.integers(1, 5),
    image_id=st.integers(0, 10**6),
)
def test_boxes_go_where_the_things_go(
    x: int, y: int, w: int, h: int, severity: int, image_id: int
) -> None:
    w, h = min(w, WIDTH - x), min(h, HEIGHT - y)
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[y : y + h, x : x + w] = (255, 0, 0)  # red, as neither ground nor border is
    camera = Shift("viewpoint", severity, 3)
    seen = camera.apply(picture, image_id)
    moved = camera.annotated(_dataset((x, y, w, h), image_id=image_id)).frames[0]
    red = (seen[..., 0] > 100) & (seen[..., 2] < 60)
    assert red.any()
    assert len(moved.boxes) == 1  # further away: nothing leaves the picture
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    left, top, width, height = moved.boxes[0]
    found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    assert np.abs(found - [left, top, left + width, top + height]).max() <= 3


def test_things_are_smaller_the_further_away_they_are() -> None:
    areas = []
    for severity in range(1, 6):
        camera = Shift("viewpoint", severity, 0)
        box = camera.annotated(_dataset((60, 45, 40, 30))).frames[0].boxes[0]
        areas.append(float(box[2] * box[3]))
    assert areas == sorted(areas, reverse=True)
    assert areas[-1] < 0.5 * areas[0]


def test_frames_differ_in_place_and_labels_stay_with_their_boxes() -> None:
    camera = Shift("viewpoint", 3)
    boxes = ((5.0, 5.0, 30.0, 20.0), (90.0, 60.0, 40.0, 50.0))
    one, other = (camera.annotated(_dataset(*boxes, image_id=i)).frames[0] for i in (1, 2))
    assert one.labels.tolist() == [0, 1]
    assert not np.allclose(one.boxes, other.boxes)
    assert np.allclose(one.boxes, camera.annotated(_dataset(*boxes, image_id=1)).frames[0].boxes)
    assert len(camera.annotated(_dataset()).frames[0].boxes) == 0


def test_other_cameras_leave_boxes_alone() -> None:
    data = _dataset((5, 5, 30, 20))
    for kind in KINDS:
        if kind != "viewpoint":
            assert Shift(kind, 3).annotated(data) is data  # type: ignore[arg-type]
