"""Frames of which a tiny detector learns something in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from endedge.data.coco import Frame
from endedge.data.frames import Batch, stack_frames


@pytest.fixture(scope="session")
def squares() -> Callable[[int], Batch]:
    """So many frames with a white square each, the first ones always the same."""

    def made(n: int) -> Batch:
        rng = np.random.default_rng(0)
        frames, pictures = [], {}
        for i in range(n):
            x, y = (int(v) for v in rng.integers(0, 32, 2))
            pictures[i] = rng.integers(0, 60, (64, 64, 3), np.uint8)
            pictures[i][y : y + 30, x : x + 30] = 255
            box = np.array([[x, y, 30, 30]], np.float32)
            frames.append(Frame(i, Path(), 64, 64, box, np.array([0]), np.zeros(1, bool)))
        return stack_frames(frames, 64, lambda f: pictures[f.image_id])

    return made
