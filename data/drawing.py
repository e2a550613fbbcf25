"""What generated scenes are drawn with: shapes, textures, things and grounds, as arrays.

Lengths are pixels unless a name says otherwise, colours and ink are in [0, 1], and every
draw comes from the generator that is handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["GROUNDS", "SHAPES", "TEXTURES", "Array", "Patch", "grid", "pole", "thing"]

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Patch:
    """Something to lay over a picture with its corner at ``top``, ``left`` (either may be
    negative): ``alpha`` (h, w) opacity, ``colour`` (h, w, 3)."""

    top: int
    left: int
    alpha: Array
    colour: Array


def grid(height: int, width: int) -> tuple[Array, Array]:
    """Pixel centres as a column of y and a row of x."""
    return (
        np.arange(height, dtype=np.float32)[:, None] + 0.5,
        np.arange(width, dtype=np.float32)[None, :] + 0.5,
    )


def thing(rng: np.random.Generator, size: int, side: float, shape: str, texture: str) -> Patch:
    """A ``texture`` cut out as ``shape``, about ``side`` px wide, turned and coloured at
    random, at a random place of a frame of ``size`` px."""
    half = int(np.ceil(0.75 * side)) + 1
    y, x = grid(2 * half, 2 * half)
    x, y = _turn(x - half - rng.random(), y - half - rng.random(), rng.uniform(0, 2 * np.pi))
    inside = SHAPES[shape](x, y * np.float32(rng.uniform(1.0, 1.25)), side / 2)
    u, v = _turn(x, y, rng.uniform(0, 2 * np.pi))
    period = max(side / 4.5, 5.0 * size / 128) * rng.uniform(0.85, 1.15)  # 5 px: survives a blur
    ink = TEXTURES[texture](u + period * rng.random(), v + period * rng.random(), period)
    dark, bright = _two_colours(rng)
    colour = dark + ink[..., None] * (bright - dark)
    colour *= 1 - 0.35 * np.exp(-np.clip(inside, 0, None) / 1.2)[..., None]  # a shaded rim
    top, left = rng.integers(-half, size - half, 2) + half // 4
    return Patch(int(top), int(left), np.clip(inside + 0.5, 0, 1), colour)


def pole(rng: np.random.Generator, size: int) -> Patch:
    """A thin straight thing across a whole frame of ``size`` px."""
    y, x = grid(size, size)
    across, _ = _turn(x - rng.uniform(0, size), y - rng.uniform(0, size), rng.uniform(0, np.pi))
    alpha = np.clip(size / 128 * rng.uniform(0.7, 2.0) - np.abs(across) + 0.5, 0, 1)
    return Patch(0, 0, alpha, np.broadcast_to(_colour(rng), (size, size, 3)))


def _turn(x: Array, y: Array, angle: float) -> tuple[Array, Array]:
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cos * x + sin * y, cos * y - sin * x


def _colour(rng: np.random.Generator) -> Array:
    return rng.uniform(0.1, 0.9, 3).astype(np.float32)


def _two_colours(rng: np.random.Generator) -> tuple[Array, Array]:
    """A dark and a bright colour of any hue, so that a texture always shows."""
    dark, bright = _colour(rng), _colour(rng)
    dark *= np.float32(rng.uniform(0.1, 0.4)) / dark.mean()
    bright *= np.float32(rng.uniform(0.65, 0.9)) / bright.mean()
    return np.clip(dark, 0, 1), np.clip(bright, 0, 1)


# --------------------------------------------------------------------- shapes and textures


def _disk(x: Array, y: Array, r: float) -> Array:
    inside: Array = r - np.hypot(x, y)
    return inside


def _square(x: Array, y: Array, r: float) -> Array:
    inside: Array = 0.88 * r - np.maximum(abs(x), abs(y))
    return inside


def _triangle(x: Array, y: Array, r: float) -> Array:
    r = 0.6 * r  # of the inscribed circle: about the area of the others
    inside: Array = np.minimum(r - y, r + 0.5 * y - 0.866 * abs(x))
    return inside


def _cross(x: Array, y: Array, r: float) -> Array:
    reach, width = r - np.maximum(abs(x), abs(y)), 0.35 * r - np.minimum(abs(x), abs(y))
    inside: Array = np.minimum(reach, width)
    return inside


def _bar(x: Array, y: Array, r: float) -> Array:
    inside: Array = np.minimum(1.2 * r - abs(x), 0.4 * r - abs(y))
    return inside


# Distance to the border in px, positive inside, of a shape of radius r about (0, 0).
SHAPES: dict[str, Callable[[Array, Array, float], Array]] = {
    "disk": _disk,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "bar": _bar,
}


def _plain(u: Array, v: Array, period: float) -> Array:
    return np.full(np.broadcast_shapes(u.shape, v.shape), 0.5, np.float32)


def _striped(u: Array, v: Array, period: float) -> Array:
    wave = np.float32(2 * np.pi / period)
    ink: Array = np.clip(0.5 + np.sin(u * wave) / wave, 0, 1)  # edges about one px wide
    return ink


def _dotted(u: Array, v: Array, period: float) -> Array:
    wave = np.float32(2 * np.pi / period)
    ink: Array = np.clip(0.5 + (np.cos(u * wave) + np.cos(v * wave) - 0.35) / wave, 0, 1)
    return ink


# Amount of the bright colour at (u, v) px; ``period`` in px.
TEXTURES: dict[str, Callable[[Array, Array, float], Array]] = {
    "plain": _plain,
    "striped": _striped,
    "dotted": _dotted,
}


# -------------------------------------------------------------------------------- grounds


def _octaves(rng: np.random.Generator, size: int, cells: tuple[tuple[int, int], ...]) -> Array:
    """Smooth noise of several scales in [0, 1], (size, size); ``cells`` rows × columns."""
    total = np.zeros((size, size), np.float32)
    for weight, (rows, columns) in enumerate(cells, start=1):
        coarse = Image.fromarray(rng.random((rows, columns), np.float32))
        total += np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC)) / weight
    total -= total.min()
    total /= total.max()
    return total


def _patches(rng: np.random.Generator, size: int) -> Array:
    """Earth, leaves, sky: smooth patches between three colours."""
    mix = _octaves(rng, size, ((3, 3), (8, 8), (24, 24), (64, 64)))[..., None]
    low, middle, high = _colour(rng), _colour(rng), _colour(rng)
    return (
        low + np.clip(2 * mix, 0, 1) * (middle - low) + np.clip(2 * mix - 1, 0, 1) * (high - middle)
    )


def _masonry(rng: np.random.Generator, size: int) -> Array:
    """A wall of bricks with joints and streaks: structure at the scale of the objects."""
    unit = size / 128
    y, x = grid(size, size)
    y, x = y + rng.uniform(0, size), x + rng.uniform(0, size)
    height, width = unit * rng.uniform(8, 16), unit * rng.uniform(16, 34)
    row = np.floor(y / height)
    x = x + 0.5 * width * (row % 2)
    brick = (7 * row + 31 * np.floor(x / width)).astype(np.int64) % 257
    shade = rng.random(257, np.float32)[brick]
    streaks = _octaves(rng, size, ((2, 40), (6, 64)))
    joint = np.minimum(y % height, x % width) < 1.6 * unit
    base, tint, mortar = _colour(rng), _colour(rng), _colour(rng)
    bricks = base + (0.42 * shade + 0.28 * streaks)[..., None] * (tint - base)
    return np.where(joint[..., None], mortar, bricks)


# The (size, size, 3) picture behind everything.
GROUNDS: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "patches": _patches,
    "masonry": _masonry,
}
