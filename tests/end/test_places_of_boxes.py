"""Where boxes are said to be: in the pixels of each frame's own file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from endedge.data.coco import Frame
from endedge.data.frames import stack_frames
from endedge.end.inference import detect_square


def _one_box(images: Tensor) -> Tensor:
    """A network that sees one object around (32, 32) of the square, 16 px wide and 8 high."""
    raw = torch.zeros(len(images), 4 + 1, 3)
    raw[:, :, 0] = torch.tensor([32.0, 32.0, 16.0, 8.0, 0.9])
    return raw


def test_boxes_of_frames_of_several_shapes() -> None:
    """In a square of 64 px a frame of 64 x 32 lies 16 px low, one of 128 x 128 is halved, and one
    of 32 x 64 lies 16 px to the right."""
    sizes = [(64, 32), (128, 128), (32, 64)]
    nothing = (np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool))
    frames = [Frame(i, Path(), w, h, *nothing) for i, (w, h) in enumerate(sizes)]
    batch = stack_frames(frames, 64, lambda f: np.zeros((f.height, f.width, 3), np.uint8))
    found = detect_square(_one_box, batch)
    assert [len(f.boxes) for f in found] == [1, 1, 1]
    x, y, width, height = zip(*(f.boxes[0].tolist() for f in found), strict=True)
    assert x == pytest.approx((24, 48, 8))
    assert y == pytest.approx((12, 56, 28))
    assert width == pytest.approx((16, 32, 16))
    assert height == pytest.approx((8, 16, 8))
