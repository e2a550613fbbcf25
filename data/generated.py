"""Generated scenes in COCO format: frames for everybody who has none at hand.

A scene shows a few objects in clutter. Six classes, the products of three shapes (disk,
square, triangle) and two textures (striped, dotted), so that neither shape nor texture nor
colour alone names one. Plain shapes and textured things of other shapes lie about as
distractors, poles run across in front, objects hide one another in part, and sizes vary by
a factor of three. Two domains share the objects and differ in everything around them:

- ``source``: daylight, smooth patchy ground, little noise. What a shipped model knows.
- ``field``: dusk under a lamp: dim, amber, uneven light, a brick wall behind the objects,
  a soft lens, sensor noise. Where the device stands.

Frame ``i`` depends on ``(seed, domain, split, i, size)`` alone: the first 64 frames of 256
are the 64 frames one gets by asking for 64, and splits share no random stream.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from endedge.data.coco import Dataset, load_coco
from endedge.data.drawing import GROUNDS, Array, Patch, grid, pole, thing
from endedge.data.errors import BadInput
from endedge.data.storage import locked

__all__ = ["DOMAINS", "NAMES", "Scene", "Scenery", "generate", "scene"]

_SHAPES, _TEXTURES = ("disk", "square", "triangle"), ("striped", "dotted")
NAMES = tuple(f"{texture} {shape}" for shape in _SHAPES for texture in _TEXTURES)
_MIN_VISIBLE = 0.55  # of an object's pixels; what would hide more is put elsewhere
_MIN_INSIDE = 0.75  # of an object's pixels are in the frame
_VERSION = 1  # counts changes of the pixels; part of the written annotations


@dataclass(frozen=True)
class Scenery:
    """What surrounds the objects. Light and colours in [0, 1]; ``blur_px`` at 128 px."""

    ground: str  # of endedge.data.drawing.GROUNDS
    exposure: tuple[float, float]
    falloff: float  # share of the light that is lost far from the lamp
    cast: tuple[float, float, float]  # gain of red, green, blue
    haze: float  # share of veiling light: takes contrast away
    blur_px: float  # Gaussian sigma of the lens
    noise: tuple[float, float]  # sigma of the sensor


DOMAINS = {
    "source": Scenery("patches", (0.85, 1.1), 0.2, (1.0, 1.0, 1.0), 0.0, 0.0, (0.005, 0.02)),
    "field": Scenery("masonry", (0.45, 0.75), 0.55, (1.0, 0.8, 0.55), 0.08, 0.6, (0.02, 0.04)),
}


@dataclass(frozen=True, eq=False)
class Scene:
    """``image`` (size, size, 3) uint8 RGB; ``boxes`` (n, 4) x, y, w, h of the *visible* part
    in px; ``areas`` (n,) visible pixels; ``labels`` (n,) indices into :data:`NAMES`."""

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    areas: NDArray[np.int64]
    labels: NDArray[np.int64]


def scene(domain: str, split: str, index: int, *, seed: int, size: int = 128) -> Scene:
    """Frame ``index`` of a split, in memory. Raises :class:`BadInput` for an unknown domain,
    a negative seed or index, and a size outside 64..1024 px."""
    if domain not in DOMAINS:
        raise BadInput(f"unknown domain {domain!r}; generated frames have {', '.join(DOMAINS)}")
    if not 64 <= size <= 1024:
        raise BadInput(f"generated frames of {size} px; a size from 64 to 1024 is possible")
    if seed < 0 or index < 0:
        raise BadInput(f"generated frames need seed and index >= 0, not {seed} and {index}")
    stream = [seed, zlib.crc32(domain.encode()), zlib.crc32(split.encode()), index]
    return _draw(np.random.default_rng(stream), DOMAINS[domain], size)


def generate(
    folder: Path, *, domain: str, split: str, n: int, seed: int, size: int = 128
) -> Dataset:
    """Write ``n`` frames as PNG with COCO annotations; return them as loaded.

    Files: ``<folder>/<domain>-<split>.json`` and ``<folder>/<domain>-<split>/000000.png``...
    The annotations are written last and everything appears by renaming, so a set is whole
    or absent. A set that is already there and was made by the same call is not made again.
    Raises :class:`BadInput` as :func:`scene` does, for ``n < 1``, for a split that cannot be
    a file name, and where another set already has that name.

    Args:
        folder: where the set is put.
        domain: ``source`` or ``field``.
        split: name of the set, a part of its seed.
        n: number of frames, >= 1.
        seed: >= 0.
        size: px, of a frame's side.
    """
    if n < 1:
        raise BadInput(f"cannot generate {n} frames; ask for 1 or more")
    if not split.replace("-", "").replace("_", "").isalnum():
        raise BadInput(f"split {split!r} cannot be a file name; use letters, digits, - and _")
    images, annotations = folder / f"{domain}-{split}", folder / f"{domain}-{split}.json"
    recipe = {
        "generator": _VERSION,
        "domain": domain,
        "split": split,
        "n": n,
        "seed": seed,
        "size": size,
    }
    if annotations.exists():
        if _recipe_of(annotations) != recipe:
            raise BadInput(f"{annotations} holds other frames; remove it or use another folder")
        return load_coco(annotations, images)
    first = scene(domain, split, 0, seed=seed, size=size)  # bad input shows before anything is made
    with locked(folder / f".{images.name}.lock"):
        if not annotations.exists():  # another process may have been faster
            rest = (scene(domain, split, index, seed=seed, size=size) for index in range(1, n))
            _publish(chain([first], rest), recipe, images, annotations)
    return generate(folder, domain=domain, split=split, n=n, seed=seed, size=size)


def _publish(
    scenes: Iterable[Scene], recipe: dict[str, Any], images: Path, annotations: Path
) -> None:
    folder = images.parent
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{images.name}.") as scratch:
        fresh, listed = Path(scratch) / "images", Path(scratch) / "annotations.json"
        fresh.mkdir()
        listed.write_text(json.dumps(_save(fresh, scenes, recipe)))
        shutil.rmtree(images, ignore_errors=True)  # left by a run that was killed
        os.replace(fresh, images)
        os.replace(listed, annotations)


def _recipe_of(annotations: Path) -> Any:
    try:
        return json.loads(annotations.read_text(encoding="utf-8"))["info"]["recipe"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _save(folder: Path, scenes: Iterable[Scene], recipe: dict[str, Any]) -> dict[str, Any]:
    """Write every frame; return the COCO dictionary that describes them."""
    size = recipe["size"]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, shown in enumerate(scenes, start=1):
        name = f"{image_id - 1:06d}.png"
        Image.fromarray(shown.image).save(folder / name, compress_level=1)
        images.append({"id": image_id, "file_name": name, "width": size, "height": size})
        annotations += [
            {
                "id": number,
                "image_id": image_id,
                "category_id": int(label) + 1,
                "bbox": box.tolist(),
                "area": int(area),
                "iscrowd": 0,
            }
            for number, (box, area, label) in enumerate(
                zip(shown.boxes, shown.areas, shown.labels, strict=True), len(annotations) + 1
            )
        ]
    return {
        "info": {"description": "endedge generated scenes", "recipe": recipe},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(NAMES, start=1)],
    }


class _Canvas:
    """The picture, (size, size, 3) in [0, 1], and which object is seen at a pixel (-1: none)."""

    def __init__(self, picture: Array) -> None:
        self.picture = picture
        self.owner = np.full(picture.shape[:2], -1, np.int64)
        self.pixels: list[int] = []  # of each object when it was drawn
        self.labels: list[int] = []

    def lay(self, patch: Patch, label: int | None = None) -> bool:
        """Lay ``patch`` over the picture, as an object if it has a ``label``. Not done (False)
        where it would hide too much of an object, or be one that is mostly out of the frame."""
        (height, width), size = patch.alpha.shape, len(self.owner)
        rows = slice(max(patch.top, 0), max(min(patch.top + height, size), 0))
        columns = slice(max(patch.left, 0), max(min(patch.left + width, size), 0))
        inside = (
            slice(rows.start - patch.top, rows.stop - patch.top),
            slice(columns.start - patch.left, columns.stop - patch.left),
        )
        alpha = patch.alpha[inside]
        solid = alpha > 0.5
        if label is not None and solid.sum() < _MIN_INSIDE * (patch.alpha > 0.5).sum():
            return False
        after = self.owner.copy()
        after[rows, columns][solid] = -1 if label is None else len(self.labels)
        left = np.bincount(after[after >= 0], minlength=len(self.labels))[: len(self.labels)]
        if (left < _MIN_VISIBLE * np.asarray(self.pixels)).any():
            return False
        self.owner = after
        window = self.picture[rows, columns]
        window += alpha[..., None] * (patch.colour[inside] - window)
        if label is not None:
            self.labels.append(label)
            self.pixels.append(int(solid.sum()))
        return True


def _draw(rng: np.random.Generator, domain: Scenery, size: int) -> Scene:
    canvas = _Canvas(GROUNDS[domain.ground](rng, size).astype(np.float32))
    for _ in range(rng.integers(3, 7)):  # behind the objects
        canvas.lay(_distractor(rng, size))
    for _ in range(rng.integers(2, 6)):
        label = int(rng.integers(len(NAMES)))
        shape, texture = _SHAPES[label // len(_TEXTURES)], _TEXTURES[label % len(_TEXTURES)]
        for _ in range(4):  # tries to find a place
            if canvas.lay(thing(rng, size, _side(rng, size), shape, texture), label):
                break
    for _ in range(rng.integers(0, 3)):  # in front of them
        canvas.lay(_distractor(rng, size))
    for _ in range(rng.integers(0, 3)):
        canvas.lay(pole(rng, size))
    return _annotate(_photograph(rng, canvas.picture, domain), canvas)


def _side(rng: np.random.Generator, size: int) -> float:
    """Width of a thing in px: 18..54 at 128 px, small ones more often."""
    return float(size / 128 * 18.0 * 3.0 ** (rng.random() ** 1.2))


def _distractor(rng: np.random.Generator, size: int) -> Patch:
    """A class's shape without its texture, or its texture in another shape."""
    if rng.random() < 0.5:
        shape, texture = _SHAPES[rng.integers(len(_SHAPES))], "plain"
    else:
        shape, texture = ("cross", "bar")[rng.integers(2)], (*_TEXTURES, "plain")[rng.integers(3)]
    return thing(rng, size, _side(rng, size), shape, texture)


def _photograph(rng: np.random.Generator, picture: Array, domain: Scenery) -> NDArray[np.uint8]:
    """Light, veil, lens and sensor."""
    size = len(picture)
    y, x = grid(size, size)
    far = ((y - rng.uniform(0, size)) ** 2 + (x - rng.uniform(0, size)) ** 2) / size**2
    light = rng.uniform(*domain.exposure) * (1 - domain.falloff * (1 - np.exp(-2.5 * far)))
    cast = np.asarray(domain.cast) * rng.uniform(0.94, 1.06, 3)
    picture = picture * (light[..., None] * cast) * (1 - domain.haze) + 0.5 * domain.haze
    if domain.blur_px:
        picture = cv2.GaussianBlur(picture, (0, 0), domain.blur_px * size / 128).astype(float)
    picture = picture + rng.uniform(*domain.noise) * rng.standard_normal(picture.shape, np.float32)
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def _annotate(image: NDArray[np.uint8], canvas: _Canvas) -> Scene:
    boxes, areas = [], []
    for index in range(len(canvas.labels)):
        y, x = np.nonzero(canvas.owner == index)
        boxes.append((x.min(), y.min(), x.max() + 1 - x.min(), y.max() + 1 - y.min()))
        areas.append(len(x))
    return Scene(
        image,
        np.asarray(boxes, np.float32).reshape(-1, 4),
        np.asarray(areas, np.int64),
        np.asarray(canvas.labels, np.int64),
    )
