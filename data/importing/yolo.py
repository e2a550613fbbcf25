"""A YOLO data set: ``data.yaml`` with class names and splits, one ``.txt`` of relative boxes a
picture (Ultralytics' layout, as Roboflow, CVAT and Label Studio write it, too).

``…/images/a.jpg`` has its boxes in ``…/labels/a.txt``; where no folder is called ``images``, beside
it. A picture without such a file shows nothing (Ultralytics takes it so, too). Polygons and
oriented boxes become the boxes around them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from endedge.data.errors import BadInput
from endedge.data.importing.found import (
    SUFFIXES,
    Found,
    LabelledObject,
    Picture,
    PictureIndex,
    clipped,
    files_of,
    read_text,
    side_of,
    unlabelled,
    upright_size,
)

__all__ = ["read_yolo", "yolo_document"]

_SLACK = 0.02  # of the picture, beyond its edges: rounding, not pixels in place of shares
_SPLITS = ("train", "val", "valid", "test")


def yolo_document(path: Path) -> dict[str, Any] | None:
    """What a ``.yaml`` file holds, where it describes a data set: ``names`` and a split."""
    try:
        document = yaml.safe_load(read_text(path, 2**20))
    except (BadInput, yaml.YAMLError, RecursionError):
        return None
    if not isinstance(document, dict) or "names" not in document:
        return None
    return document if any(document.get(k) for k in _SPLITS) else None


def read_yolo(index: PictureIndex, file: Path, document: dict[str, Any]) -> Found:
    """Read all splits.

    Raises :class:`BadInput` for names that are no list, a split that is not there or outside the
    folder, a picture of two splits, and labels of which none can be read.
    """
    names = _names(file, document)
    found = Found("YOLO data.yaml")
    seen: dict[Path, str] = {}
    labels: set[Path] = set()
    read = 0
    for split in _SPLITS:
        for path in _pictures(index, file, document, split):
            if path in seen:
                raise BadInput(f"{file}: {index.name_of(path)} is in {seen[path]} and in {split}")
            seen[path] = split
            sizes = upright_size(path)
            text = _label_file(path)
            labels.add(text)
            if sizes is None:
                found.left_out["pictures that do not decode"] += 1
                continue
            boxes: tuple[LabelledObject, ...] = ()
            if text.is_file():
                boxes = tuple(_boxes(text, names, sizes[0], found.left_out))
                read += 1
            found.pictures.append(
                Picture(path, index.name_of(path), sizes[0], boxes, True, side_of([split]))
            )
    _check(index, file, found, labels, read)
    found.pictures += unlabelled(index, seen)
    return found


def _check(index: PictureIndex, file: Path, found: Found, labels: set[Path], read: int) -> None:
    folders = {p.parent for p in labels}
    alone = [t for f in folders if f.is_dir() for t in f.glob("*.txt") if t not in labels]
    alone = [t for t in alone if t.stem not in ("classes", "README.roboflow", "README.dataset")]
    found.left_out["labelled pictures that are not there"] += len(alone)
    if not found.pictures:
        raise BadInput(
            f"labels without pictures: {file} names splits in which there is no picture; they "
            f"lie in {index.root}"
        )
    if not read:
        raise BadInput(
            f"{file}: none of its {len(found.pictures)} pictures has a label file, such as "
            f"{next(iter(sorted(labels)))}"
        )
    bad = found.left_out[_NO_BOX]
    if bad and not any(p.boxes for p in found.pictures):
        raise BadInput(
            f"{file}: none of {bad} label lines is 'class x y width height' with shares of the "
            "picture in [0, 1] and a class of names"
        )


def _names(file: Path, document: dict[str, Any]) -> dict[int, str]:
    raw = document["names"]
    try:
        if isinstance(raw, list):
            return {i: str(name) for i, name in enumerate(raw)}
        return {int(i): str(name) for i, name in raw.items()}
    except (AttributeError, TypeError, ValueError):
        raise BadInput(
            f"{file}: names must be a list, or a mapping from 0, of class names"
        ) from None


def _pictures(
    index: PictureIndex, file: Path, document: dict[str, Any], split: str
) -> Iterator[Path]:
    """Those of a split: a folder, a text file that lists pictures, or a list of either."""
    written = document.get(split)
    for entry in written if isinstance(written, list) else [written] if written else []:
        place = _place(index, file, document, str(entry))
        if place is None:
            raise BadInput(f"{file}: {split} is {entry}, which is not under {index.root}")
        if place.is_dir():
            yield from (p for p in files_of(place) if p.suffix.lower() in SUFFIXES)
            continue
        for line in read_text(place).splitlines():
            if line.strip() and (path := index.find(line.strip(), place.parent)):
                yield path


def _place(index: PictureIndex, file: Path, document: dict[str, Any], entry: str) -> Path | None:
    """Where a split lies: as written, from ``path``, or (Roboflow writes ``../train/images``,
    others the disk they were made on) by the longest end of it that is there."""
    parts = [p for p in Path(entry.replace("\\", "/")).parts if p not in ("/", "..", ".")]
    base = Path(str(document.get("path") or "."))
    inside = [p for p in base.parts if p not in ("/", "..", ".")]
    bases = [
        file.parent / base,
        file.parent,
        *(file.parent / Path(*inside[i:]) for i in range(len(inside))),
    ]
    for start in range(len(parts)):
        for folder in bases:
            place = (folder / Path(*parts[start:])).resolve()
            if place.exists() and place.is_relative_to(index.root.resolve()):
                return index.root / place.relative_to(index.root.resolve())
    return None


def _label_file(picture: Path) -> Path:
    parts = list(picture.parts)
    if "images" in parts[:-1]:
        at = len(parts) - 2 - parts[:-1][::-1].index("images")
        parts[at] = "labels"
    return Path(*parts).with_suffix(".txt")


_NO_BOX = "label lines that are no box"


def _boxes(
    file: Path, names: dict[int, str], size: tuple[int, int], left_out: Counter[str]
) -> Iterator[LabelledObject]:
    for line in read_text(file).splitlines():
        if not line.strip():
            continue
        shares = _shares(line)
        if shares is None or (name := names.get(int(shares[0]))) is None:
            left_out[_NO_BOX] += 1
            continue
        _, x, y, w, h = shares
        box = clipped(
            ((x - w / 2) * size[0], (y - h / 2) * size[1], w * size[0], h * size[1]), size
        )
        if box is None:
            left_out["boxes that are empty or outside their picture"] += 1
        else:
            yield LabelledObject(name, box)


def _shares(line: str) -> tuple[float, float, float, float, float] | None:
    """Class, centre x, centre y, width, height; of a polygon, those of the box around it."""
    try:
        kind, *values = (float(v) for v in line.split())
    except ValueError:
        return None
    if len(values) >= 6 and len(values) % 2 == 0:
        xs, ys = values[::2], values[1::2]
        x, y = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
        values = [x, y, max(xs) - min(xs), max(ys) - min(ys)]
    if len(values) != 4 or not kind.is_integer():
        return None
    if not all(-_SLACK <= v <= 1 + _SLACK for v in values):
        return None
    return kind, *values  # type: ignore[return-value]
