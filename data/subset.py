"""A COCO set cut into splits that share no frame, ready for a configuration's ``data.root``."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import stat
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from endedge.data.annotations import PictureRecord, read_instances, read_text
from endedge.data.coco import check_pictures, dataset_of, nested_subset
from endedge.data.errors import BadInput
from endedge.data.storage import locked

__all__ = ["cut", "read_ids"]

_log = logging.getLogger("endedge")


def cut(
    annotations: Path,
    images: Path,
    folder: Path,
    splits: Mapping[str, int | Sequence[int]],
    *,
    seed: int = 0,
    link: bool = False,
) -> dict[str, int]:
    """Write each split as ``folder/annotations/instances_NAME.json`` and ``folder/images/NAME``.

    A split is a count, drawn in a seeded order from the frames that no split names, or the
    exact image ids. Records are copied as they are: ids, file names and all their fields.
    ``link`` makes symbolic links to the frames instead of copies. Of frames that are the same
    byte for byte only one is drawn, so that no split knows another's; the others are left out,
    with a note. Returns frames by split.

    Everything appears by renaming, so a split is whole or absent. Raises :class:`BadInput` for
    a file that is not COCO's, ids that are not there or in two splits (or whose frames are the
    same picture), more frames than there are, frames that are missing or damaged, and a split
    that exists.

    Args:
        annotations: COCO instances file.
        images: folder of its frames.
        folder: where the splits are put.
        splits: a count or image ids for each name.
        seed: >= 0, of the frames that are drawn by count.
        link: symbolic links instead of copies.
    """
    if seed < 0:
        raise BadInput(f"seed {seed}; give 0 or more")
    found = read_instances(annotations)
    document = found.document
    record_of = dict(zip((r.image_id for r in found.images), document["images"], strict=True))
    twin_of = _twins(images, found.images)
    chosen = _choose(record_of, splits, seed, str(annotations), twin_of)
    for name in splits:
        if not name.replace("-", "").replace("_", "").isalnum():
            raise BadInput(f"split {name!r} cannot be a file name; use letters, digits, - and _")
        for place in (_annotations(folder, name), folder / "images" / name):
            if place.exists():
                raise BadInput(f"{place} exists; remove it or use another folder")
    drawn = {i for ids in chosen.values() for i in ids}
    frames = dataset_of(found, annotations, images, only=drawn)
    check_pictures(frames)  # before anything is written
    source = {f.image_id: f.path for f in frames.frames}
    with locked(folder / ".subset.lock"):
        for name, ids in chosen.items():
            _write(document, [record_of[i] for i in ids], source, folder, name, link)
    return {name: len(ids) for name, ids in chosen.items()}


def read_ids(path: Path) -> list[int]:
    """Image ids of a text file (separated by white space or commas) or of a JSON list."""
    try:
        text = read_text(path)
        found = (
            json.loads(text) if text.lstrip().startswith("[") else text.replace(",", " ").split()
        )
        return [int(i) for i in found]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise BadInput(f"{path} is not a list of image ids: {error}") from None


def _twins(images: Path, records: Sequence[PictureRecord]) -> dict[int, int]:
    """For every image id the lowest one whose file is the same byte for byte. Only files of one
    length are read."""
    of_length: dict[int, list[PictureRecord]] = defaultdict(list)
    for record in sorted(records, key=lambda r: r.image_id):
        try:
            found = (images / record.file_name).stat()
            length = found.st_size if stat.S_ISREG(found.st_mode) else -1 - record.image_id
        except (OSError, ValueError):  # missing: only matters where it is chosen
            length = -1 - record.image_id
        of_length[length].append(record)
    twin_of = {}
    for same in of_length.values():
        first: dict[bytes, int] = {}
        for record in same:
            key = b""
            if len(same) > 1:
                key = hashlib.sha256((images / record.file_name).read_bytes()).digest()
            twin_of[record.image_id] = first.setdefault(key, record.image_id)
    return twin_of


def _choose(
    record_of: Mapping[int, Any],
    splits: Mapping[str, int | Sequence[int]],
    seed: int,
    where: str,
    twin_of: Mapping[int, int],
) -> dict[str, list[int]]:
    named: dict[int, str] = {}
    split_of: dict[int, tuple[str, int]] = {}  # of each picture, under the lowest of its ids
    for name, wanted in splits.items():
        for image_id in () if isinstance(wanted, int) else wanted:
            if image_id not in record_of:
                raise BadInput(f"{where} has no image {image_id} (asked for by {name})")
            if image_id in named:
                raise BadInput(f"image {image_id} is asked for twice ({named[image_id]}, {name})")
            named[image_id] = name
            other, twin = split_of.setdefault(twin_of[image_id], (name, image_id))
            if other != name:
                raise BadInput(
                    f"image {twin} of {other} and image {image_id} of {name} are the same picture "
                    f"in {where}; ask for one of them"
                )
    unnamed = sorted(set(record_of) - set(named))
    free = [i for i in unnamed if twin_of[i] == i and i not in split_of]
    order = iter([free[i] for i in nested_subset(len(free), seed)])
    counts = {name: n for name, n in splits.items() if isinstance(n, int)}
    if sum(counts.values()) > len(free) or min(counts.values(), default=1) < 1:
        raise BadInput(
            f"{' + '.join(f'{k}={v}' for k, v in counts.items())} frames of {where}: each at "
            f"least 1, and {len(free)} are there"
        )
    if counts and len(free) < len(unnamed):
        _log.warning(
            "note: %s: %d pictures are the same as others, byte for byte; left out",
            where,
            len(unnamed) - len(free),
        )
    return {
        name: sorted(next(order) for _ in range(wanted)) if isinstance(wanted, int) else [*wanted]
        for name, wanted in splits.items()
    }


def _annotations(folder: Path, name: str) -> Path:
    return folder / "annotations" / f"instances_{name}.json"


def _write(
    document: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    sources: Mapping[int, Path],
    folder: Path,
    name: str,
    link: bool,
) -> None:
    ids = {int(r["id"]) for r in records}
    kept = [a for a in document["annotations"] if int(a["image_id"]) in ids]
    part = {**document, "images": list(records), "annotations": kept}
    target = _annotations(folder, name)
    for place in (target.parent, folder / "images"):
        place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}.") as scratch:
        fresh, listed = Path(scratch) / "images", Path(scratch) / "annotations.json"
        for record in records:
            source = sources[int(record["id"])]
            copy = fresh / str(record["file_name"])
            copy.parent.mkdir(parents=True, exist_ok=True)
            if link:
                copy.symlink_to(source.resolve())
            else:
                shutil.copyfile(source, copy)
        listed.write_text(json.dumps(part), encoding="utf-8")
        os.replace(fresh, folder / "images" / name)
        os.replace(listed, target)
