"""Groups of frames that belong together: a flight, a scene, a minute of one camera.

Frames of one group look alike. Trained on one and judged on its neighbour, a detector seems
better than it is, so what is split, held back or resampled is whole groups.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["LEAST_FRAMES", "folds_of", "group_in", "groups_of"]

LEAST_FRAMES = 6  #: that can be divided and judge each other; two folds of fewer say nothing


def group_in(record: dict[str, object]) -> str | None:
    """The group of a COCO image record: its ``group``, or the first of ``video_id``,
    ``seq_id`` and ``flight`` that it has. None where it says nothing."""
    for key in ("group", "video_id", "seq_id", "flight"):
        value = record.get(key)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value):
            return str(value)
    return None


def groups_of(groups: Sequence[str] | None, n: int, least: int) -> list[str]:
    """A name for the group of each of ``n`` frames. Where there are none, or fewer than
    ``least`` different ones, each frame is its own group."""
    if groups is None or len(set(groups)) < least:
        return [f"frame {i}" for i in range(n)]
    return list(groups)


def folds_of(groups: Sequence[str], folds: int, seed: int) -> list[int]:
    """The fold, 0 to ``folds`` − 1, of each frame: whole groups, the largest first, each to the
    fold with the fewest frames; ties in a seeded order. With at least ``folds`` groups no fold
    is empty."""
    sizes: dict[str, int] = {}
    for group in groups:
        sizes[group] = sizes.get(group, 0) + 1
    names = sorted(sizes)
    drawn = np.random.default_rng([seed, 0xF01D]).permutation(len(names))
    order = sorted((names[i] for i in drawn), key=lambda name: -sizes[name])
    load = [0] * folds
    fold = {}
    for name in order:
        fold[name] = load.index(min(load))
        load[fold[name]] += sizes[name]
    return [fold[group] for group in groups]
