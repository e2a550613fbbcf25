"""COCO files ↔ arrays: the one shape in which annotated frames travel through this project."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from endedge.data.errors import BadInput

__all__ = ["Dataset", "Frame", "fingerprint", "load_coco", "nested_subset", "read_image"]

_EDGE_SLACK_PX = 1.0  # annotators round; COCO's own boxes reach a fraction of a pixel outside


@dataclass(frozen=True, eq=False)
class Frame:
    """One annotated image. ``boxes`` (n, 4) float32 as x, y, width, height in px of the file;
    ``labels`` (n,) int64 indices into ``Dataset.names``; ``crowd`` (n,) bool."""

    image_id: int
    path: Path
    width: int
    height: int
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Frames with the classes they are labelled in. ``category_ids[i]`` is the COCO id of
    class index ``i``, whose name is ``names[i]``. ``labels``: who drew the boxes, ``truth``
    (people), ``teacher`` (a detector) or ``mixed``, as `endedge import` marks it in the file."""

    frames: tuple[Frame, ...]
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    labels: str = "truth"

    def __len__(self) -> int:
        return len(self.frames)

    def take(self, indices: Sequence[int]) -> Dataset:
        """The frames at ``indices``, in that order."""
        return replace(self, frames=tuple(self.frames[i] for i in indices))


def read_image(path: Path, max_pixels: int = 50_000_000) -> NDArray[np.uint8]:
    """Decode an image file to (height, width, 3) uint8 RGB. Raises :class:`BadInput`."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > max_pixels:
                raise BadInput(f"image too large: {path} is {image.width}x{image.height}")
            return np.asarray(image.convert("RGB"))
    except BadInput:
        raise
    except Exception as error:  # Pillow raises many kinds for broken files
        raise BadInput(f"image does not decode: {path} ({error})") from None


def load_coco(annotations: str | Path, images: str | Path) -> Dataset:
    """Read a COCO instances file and match it with a folder of images.

    Raises :class:`BadInput` naming file and record for: a missing file or folder, a file that
    is not COCO instances JSON, duplicate ids, annotations of unknown images or categories,
    boxes that are not finite, are empty, or lie outside their image.
    """
    annotations, images = Path(annotations), Path(images)
    document = _read_json(annotations)
    if not images.is_dir():
        raise BadInput(f"image folder not found: {images}")
    try:
        categories = sorted((int(c["id"]), str(c["name"])) for c in document["categories"])
        records = [
            (int(r["id"]), str(r["file_name"]), int(r["width"]), int(r["height"]))
            for r in document["images"]
        ]
        boxes_of: dict[int, list[tuple[int, list[float], bool]]] = {r[0]: [] for r in records}
        size_of = {r[0]: (r[2], r[3]) for r in records}
        index_of = {category: i for i, (category, _) in enumerate(categories)}
        if len(size_of) != len(records) or len(index_of) != len(categories):
            raise BadInput(f"{annotations}: duplicate image or category ids")
        for entry in document["annotations"]:
            where = f"{annotations}: annotation {entry.get('id', '?')}"
            image_id, category = int(entry["image_id"]), int(entry["category_id"])
            if image_id not in size_of or category not in index_of:
                raise BadInput(
                    f"{where} names an unknown image ({image_id}) or category ({category})"
                )
            box = _checked_box(entry["bbox"], size_of[image_id], where)
            boxes_of[image_id].append((index_of[category], box, bool(entry.get("iscrowd", 0))))
    except BadInput:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(
            f"not a COCO instances file: {annotations} ({type(error).__name__}: {error}); it needs "
            "'images', 'annotations' with 'bbox', and 'categories'"
        ) from None
    frames = []
    for image_id, file_name, width, height in sorted(records):
        path = images / file_name
        if Path(file_name).is_absolute() or ".." in Path(file_name).parts:
            raise BadInput(f"{annotations}: image {image_id} points outside {images}: {file_name}")
        if not path.is_file():
            raise BadInput(f"image not found: {path} (image {image_id} of {annotations})")
        found = boxes_of[image_id]
        frames.append(
            Frame(
                image_id,
                path,
                width,
                height,
                np.array([b for _, b, _ in found], np.float32).reshape(-1, 4),
                np.array([c for c, _, _ in found], np.int64),
                np.array([k for _, _, k in found], np.bool_),
            )
        )
    if not frames:
        raise BadInput(f"{annotations} lists no images")
    return Dataset(
        tuple(frames),
        tuple(n for _, n in categories),
        tuple(c for c, _ in categories),
        _who_labelled(document),
    )


def _who_labelled(document: dict[str, Any]) -> str:
    """``truth`` unless the file says that a detector drew all or some of its boxes."""
    info = document.get("info")
    mark = info.get("endedge") if isinstance(info, dict) else None
    labels = mark.get("labels") if isinstance(mark, dict) else None
    return labels if labels in ("teacher", "mixed") else "truth"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"annotation file not found: {path}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"not a COCO instances file: {path} ({error})") from None
    if not isinstance(document, dict):
        raise BadInput(f"not a COCO instances file: {path} holds a {type(document).__name__}")
    return document


def _checked_box(raw: Any, size: tuple[int, int], where: str) -> list[float]:
    box = [float(v) for v in raw]
    if len(box) != 4 or not np.isfinite(box).all() or box[2] < 0 or box[3] < 0:
        raise BadInput(f"{where}: bbox {raw} is not x, y, width >= 0, height >= 0 in pixels")
    x, y, w, h = box
    if (
        min(x, y) < -_EDGE_SLACK_PX
        or x + w > size[0] + _EDGE_SLACK_PX
        or y + h > size[1] + _EDGE_SLACK_PX
    ):
        raise BadInput(f"{where}: bbox {raw} lies outside its {size[0]}x{size[1]} image")
    return box


def nested_subset(n_frames: int, seed: int) -> list[int]:
    """A seeded order of ``range(n_frames)`` whose prefixes are the subsets: the first 64 are
    the first 64 of the first 256 (rules of measurement, paired and nested)."""
    return [int(i) for i in np.random.default_rng([seed, 0x5EED]).permutation(n_frames)]


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 over image bytes and annotations: changes when anything measured would."""
    digest = hashlib.sha256(repr((dataset.names, dataset.category_ids)).encode())
    for f in dataset.frames:
        digest.update(f"{f.image_id}|{f.width}x{f.height}".encode())
        digest.update(hashlib.sha256(f.path.read_bytes()).digest())
        for array in (f.boxes, f.labels, f.crowd):
            digest.update(array.tobytes())
    return digest.hexdigest()
