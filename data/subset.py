"""A COCO set cut into splits that share no frame, ready for a configuration's ``data.root``."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from endedge.data.coco import nested_subset
from endedge.data.errors import BadInput

__all__ = ["cut", "read_ids"]


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
    ``link`` makes symbolic links to the frames instead of copies. Returns frames by split.

    Everything appears by renaming, so a split is whole or absent. Raises :class:`BadInput` for
    a file that is not COCO's, ids that are not there or in two splits, more frames than there
    are, frames that are missing, and a split that exists.
    """
    document = _document(annotations)
    record_of = {int(r["id"]): r for r in document["images"]}
    chosen = _choose(record_of, splits, seed, str(annotations))
    for name in splits:
        if not name.replace("-", "").replace("_", "").isalnum():
            raise BadInput(f"split {name!r} cannot be a file name; use letters, digits, - and _")
        for place in (_annotations(folder, name), folder / "images" / name):
            if place.exists():
                raise BadInput(f"{place} exists; remove it or use another folder")
    for ids in chosen.values():
        for image_id in ids:
            _source(images, record_of[image_id], annotations)  # before anything is written
    for name, ids in chosen.items():
        _write(document, [record_of[i] for i in ids], images, folder, name, annotations, link)
    return {name: len(ids) for name, ids in chosen.items()}


def read_ids(path: Path) -> list[int]:
    """Image ids of a text file (separated by white space or commas) or of a JSON list."""
    try:
        text = path.read_text(encoding="utf-8")
        found = (
            json.loads(text) if text.lstrip().startswith("[") else text.replace(",", " ").split()
        )
        return [int(i) for i in found]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise BadInput(f"{path} is not a list of image ids: {error}") from None


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        assert all(isinstance(document[k], list) for k in ("images", "annotations", "categories"))
        [(int(r["id"]), str(r["file_name"])) for r in document["images"]]
        [int(a["image_id"]) for a in document["annotations"]]
    except FileNotFoundError:
        raise BadInput(f"annotation file not found: {path}") from None
    except (OSError, ValueError, KeyError, TypeError, AssertionError, RecursionError) as error:
        raise BadInput(f"not a COCO instances file: {path} ({error!r})") from None
    return dict(document)


def _choose(
    record_of: Mapping[int, Any], splits: Mapping[str, int | Sequence[int]], seed: int, where: str
) -> dict[str, list[int]]:
    named: dict[int, str] = {}
    for name, wanted in splits.items():
        for image_id in () if isinstance(wanted, int) else wanted:
            if image_id not in record_of:
                raise BadInput(f"{where} has no image {image_id} (asked for by {name})")
            if image_id in named:
                raise BadInput(f"image {image_id} is asked for twice ({named[image_id]}, {name})")
            named[image_id] = name
    free = sorted(set(record_of) - set(named))
    order = iter([free[i] for i in nested_subset(len(free), seed)])
    counts = {name: n for name, n in splits.items() if isinstance(n, int)}
    if sum(counts.values()) > len(free) or min(counts.values(), default=1) < 1:
        raise BadInput(
            f"{' + '.join(f'{k}={v}' for k, v in counts.items())} frames of {where}: each at "
            f"least 1, and {len(free)} are there"
        )
    return {
        name: sorted(next(order) for _ in range(wanted)) if isinstance(wanted, int) else [*wanted]
        for name, wanted in splits.items()
    }


def _annotations(folder: Path, name: str) -> Path:
    return folder / "annotations" / f"instances_{name}.json"


def _source(images: Path, record: Mapping[str, Any], where: Path) -> Path:
    name = Path(str(record["file_name"]))
    if name.is_absolute() or ".." in name.parts:
        raise BadInput(f"{where}: image {record['id']} points outside {images}: {name}")
    if not (images / name).is_file():
        raise BadInput(f"image not found: {images / name} (image {record['id']} of {where})")
    return images / name


def _write(
    document: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    images: Path,
    folder: Path,
    name: str,
    where: Path,
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
            source = _source(images, record, where)
            copy = fresh / str(record["file_name"])
            copy.parent.mkdir(parents=True, exist_ok=True)
            if link:
                copy.symlink_to(source.resolve())
            else:
                shutil.copyfile(source, copy)
        listed.write_text(json.dumps(part), encoding="utf-8")
        os.replace(fresh, folder / "images" / name)
        os.replace(listed, target)
