"""Lies about distill/: training, pruning, packages."""

from __future__ import annotations

from tests.lies.lie import Lie

__all__ = ["LIES"]

LIES = [
    Lie(
        "boxes do not follow the mirror",
        "distill/training.py",
        "boxes[:, 0] = 1 - boxes[:, 0]",
        "boxes[:, 0] = boxes[:, 0]",
        "mirrored frames are taught with boxes on the wrong side",
        ("tests/distill/test_training.py",),
    ),
    Lie(
        "layers beyond the recipe are trained",
        "distill/training.py",
        "return len(model.model) if recipe.layers is None else recipe.layers",
        "return len(model.model)",
        "a recipe of the first layers trains all",
        ("tests/distill/test_training.py",),
    ),
]
