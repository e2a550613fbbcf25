"""COCO files ↔ arrays: the one shape in which annotated frames travel through this project."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from endedge.data.annotations import Box, Instances, picture_file, read_instances
from endedge.data.errors import BadInput
from endedge.data.pictures import PictureFile, inspect_picture, read_image

__all__ = [
    "Dataset",
    "Frame",
    "check_boxes",
    "check_pictures",
    "dataset_of",
    "fingerprint",
    "load_coco",
    "nested_subset",
    "read_image",
]

_log = logging.getLogger("endedge")
_LISTED = 50  # bad files that one message names


@dataclass(frozen=True, eq=False)
class Frame:
    """One annotated image. ``boxes`` (n, 4) float32 as x, y, width, height in px of the file;
    ``labels`` (n,) int64 indices into ``Dataset.names``; ``crowd`` (n,) bool; ``group``: the
    flight or scene it is of, where the file says one (see data/groups.py); ``source``: the set that
    it is of, where several are one (empty: the first)."""

    image_id: int
    path: Path
    width: int
    height: int
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    group: str | None = None
    source: str = ""

    def read(self) -> NDArray[np.uint8]:
        """The picture as its boxes were drawn on it, (H, W, 3) uint8 RGB. Raises
        :class:`BadInput` (see :func:`endedge.data.pictures.read_image`)."""
        return read_image(self.path, (self.width, self.height))

    @cached_property
    def file(self) -> PictureFile:
        """Hash and state of the picture's file, which is read once."""
        return inspect_picture(self.path, (self.width, self.height))


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


def load_coco(annotations: str | Path, images: str | Path) -> Dataset:
    """Read a COCO instances file and match it with a folder of images.

    Classes are numbered by COCO id. Raises :class:`BadInput` naming file and record as
    :func:`endedge.data.annotations.read_instances` does, and for a missing folder or image; the
    pictures themselves are looked at by :func:`check_pictures`.
    """
    annotations, images = Path(annotations), Path(images)
    if not images.is_dir():
        raise BadInput(f"image folder not found: {images}")
    return dataset_of(read_instances(annotations), annotations, images)


def dataset_of(
    found: Instances, annotations: Path, images: Path, only: Collection[int] | None = None
) -> Dataset:
    """The frames (``only`` those of these ids) of a checked file; raises as :func:`load_coco`."""
    if not found.images:
        raise BadInput(f"{annotations} lists no images")
    for note in found.notes:
        _log.warning("note: %s", note)
    categories = sorted(found.categories, key=lambda c: c.category_id)
    index_of = {c.category_id: i for i, c in enumerate(categories)}
    boxes_of: dict[int, list[Box]] = {r.image_id: [] for r in found.images}
    for box in found.boxes:
        boxes_of[box.image_id].append(box)
    frames = []
    listed = [r for r in found.images if only is None or r.image_id in only]
    for record in sorted(listed, key=lambda r: r.image_id):
        drawn = boxes_of[record.image_id]
        frames.append(
            Frame(
                record.image_id,
                picture_file(images, record, annotations),
                record.width,
                record.height,
                np.array([b.xywh for b in drawn], np.float32).reshape(-1, 4),
                np.array([index_of[b.category_id] for b in drawn], np.int64),
                np.array([b.crowd for b in drawn], np.bool_),
                record.group,
            )
        )
    return Dataset(
        tuple(frames),
        tuple(c.name for c in categories),
        tuple(c.category_id for c in categories),
        _who_labelled(found.document),
    )


def _who_labelled(document: dict[str, Any]) -> str:
    """``truth`` unless the file says that a detector drew all or some of its boxes."""
    info = document.get("info")
    mark = info.get("endedge") if isinstance(info, dict) else None
    labels = mark.get("labels") if isinstance(mark, dict) else None
    return labels if labels in ("teacher", "mixed") else "truth"


def check_pictures(*sets: Dataset, max_side: int | None = None) -> None:
    """Read every file of ``sets`` once. Raises :class:`BadInput` that lists all of those that
    cannot be used: cut off, no picture, of another shape than annotated, longer than
    ``max_side`` px. Says how many are turned or stretched on reading."""
    frames = [f for dataset in sets for f in dataset.frames]
    bad = [(f, fault) for f in frames if (fault := f.file.fault or _too_long(f, max_side))]
    if bad:
        named = "; ".join(f"{f.path} {fault}" for f, fault in bad[:_LISTED])
        more = f"; and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
        raise BadInput(f"{len(bad)} of {len(frames)} pictures cannot be used: {named}{more}")
    for how, says in (
        ("turned", "lie on their side and are read upright, as EXIF tells"),
        ("stretched", "have more than 8 bits a channel; each is stretched to 8 by its own range"),
    ):
        if some := [f for f in frames if how in f.file.reading]:
            _log.warning(
                "note: %d of %d pictures %s (%s, ...)", len(some), len(frames), says, some[0].path
            )


def _too_long(frame: Frame, max_side: int | None) -> str:
    longest = max(frame.width, frame.height)
    if max_side is None or longest <= max_side:
        return ""
    return f"is {longest} px long; at most {max_side} can be sent"


def check_boxes(dataset: Dataset, what: str) -> None:
    """Raises :class:`BadInput` when no frame has a box to find: every score would be 0."""
    if all(frame.crowd.all() for frame in dataset.frames):
        crowds = sum(len(frame.crowd) for frame in dataset.frames)
        kinds = f"only {crowds} crowd boxes" if crowds else "no box"
        raise BadInput(
            f"{what}: {kinds} on {len(dataset)} frames, so nothing can be scored; annotate some"
        )


def nested_subset(n_frames: int, seed: int) -> list[int]:
    """A seeded order of ``range(n_frames)`` whose prefixes are the subsets: the first 64 are
    the first 64 of the first 256 (rules of measurement, paired and nested)."""
    return [int(i) for i in np.random.default_rng([seed, 0x5EED]).permutation(n_frames)]


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 over image bytes and annotations: changes when anything measured would. How a
    picture is read counts where that is more than decoding."""
    digest = hashlib.sha256(repr((dataset.names, dataset.category_ids)).encode())
    for f in dataset.frames:
        digest.update(f"{f.image_id}|{f.width}x{f.height}".encode())
        digest.update(b"" if f.group is None else f"|{f.group}".encode())
        digest.update(b"" if not f.source else f"|of {f.source}".encode())
        digest.update(f.file.sha256)
        digest.update(f.file.reading.encode())
        for array in (f.boxes, f.labels, f.crowd):
            digest.update(array.tobytes())
    return digest.hexdigest()
