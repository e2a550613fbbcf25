"""The lies: a substitution each, and one sentence of what it would falsify.

``true`` must stand exactly once in ``file``; ``tests`` are the folders or files whose tests are
to notice. A new capability adds its lies here with its code (docs/contributing.md).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LIES", "Lie"]


@dataclass(frozen=True)
class Lie:
    """``told`` in place of ``true`` in ``file``."""

    name: str
    file: str
    true: str
    told: str
    falsifies: str
    tests: tuple[str, ...]


CELL = ("tests/lab/sweep",)

LIES = [
    # What is evaluated, on which frames, through which camera, from which bytes
    Lie(
        "evaluation skips the camera",
        "lab/inputs.py",
        "lambda f: self.camera.apply(read_image(f.path), f.image_id),",
        "lambda f: read_image(f.path),",
        "the device is scored on frames that its camera never took",
        CELL,
    ),
    Lie(
        "uploads skip the camera",
        "lab/inputs.py",
        "((f.image_id, self.camera.apply(read_image(f.path), f.image_id)) for f in frames)",
        "((f.image_id, read_image(f.path)) for f in frames)",
        "the edge learns from frames that the device never saw",
        CELL,
    ),
]
