"""COCO instances files as label tools write them: CVAT, Label Studio, Roboflow, COCO itself.

They differ in what a strict reader cannot take: categories in any order and from 0, one without
boxes that names the project (Roboflow), ids as text, ``images/`` or a Windows path before file
names (Label Studio), boxes only as polygons, one file a split in the split's own folder. Here
categories go by name, pictures by the end of their path, and what does not fit is counted.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from endedge.data.errors import BadInput
from endedge.data.importing.found import (
    Found,
    LabelledObject,
    Picture,
    PictureIndex,
    clipped,
    read_text,
    side_of,
    unlabelled,
    upright_size,
)

__all__ = ["coco_document", "read_coco"]

_SAME_SHAPE = 0.01  # of the ratio of width and height: the picture was scaled, not cropped


def coco_document(path: Path) -> dict[str, Any] | None:
    """What a ``.json`` file holds, where it has the three lists of a COCO instances file."""
    try:
        document = json.loads(read_text(path))
    except (BadInput, ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    lists = ("images", "annotations", "categories")
    return document if all(isinstance(document.get(k), list) for k in lists) else None


def read_coco(index: PictureIndex, documents: Sequence[tuple[Path, dict[str, Any]]]) -> Found:
    """Read every file; pictures that no file lists are unlabelled.

    Raises :class:`BadInput` where two files list the same picture, and where there are labels
    and none of their pictures is in the folder.
    """
    found = Found(f"COCO ({_tool(documents)})")
    listed_in: dict[Path, Path] = {}
    for file, document in documents:
        folder = file.parent.name if file.parent != index.root else ""
        side = side_of([file.stem.replace(".coco", ""), folder])
        boxes_of = _boxes(document, found.left_out)
        for record in _records(document["images"]):
            written = str(record.get("file_name") or record.get("path") or "")
            path = index.find(written, file.parent, file.stem.removeprefix("instances_"))
            boxes = boxes_of.pop(str(record.get("id")), [])
            if path is None:
                found.left_out["labelled pictures that are not there"] += 1
                continue
            if path in listed_in:
                raise BadInput(
                    f"{listed_in[path].name} and {file.name} both list {index.name_of(path)}; "
                    "give the file to import instead of its folder"
                )
            listed_in[path] = file
            picture = _picture(index, path, record, boxes, side, found.left_out)
            if picture is not None:
                found.pictures.append(picture)
        found.left_out["boxes of pictures that are not listed"] += sum(map(len, boxes_of.values()))
    if not listed_in:
        raise BadInput(
            f"labels without pictures: {documents[0][0]} lists {len(documents[0][1]['images'])}, "
            f"and none of them is under {index.root}"
        )
    found.pictures += unlabelled(index, listed_in)
    return found


def _tool(documents: Sequence[tuple[Path, dict[str, Any]]]) -> str:
    """Which tool wrote it, for the reader of our output; nothing depends on it."""
    file, document = documents[0]
    about = json.dumps(document.get("info", "")).lower()
    if "roboflow" in about or file.name == "_annotations.coco.json":
        return "Roboflow"
    if "label studio" in about:
        return "Label Studio"
    first = next(_records(document["annotations"]), {})
    if file.name == "instances_default.json" or "occluded" in (first.get("attributes") or {}):
        return "CVAT"
    return "instances"


def _records(entries: Sequence[Any]) -> Iterator[dict[str, Any]]:
    return (entry for entry in entries if isinstance(entry, dict))


def _boxes(
    document: dict[str, Any], left_out: Counter[str]
) -> dict[str, list[tuple[str, tuple[float, float, float, float], bool]]]:
    """By image id: class name, x, y, width, height as written, crowd."""
    names = {str(c.get("id")): str(c.get("name")) for c in _records(document["categories"])}
    boxes: dict[str, list[tuple[str, tuple[float, float, float, float], bool]]] = {}
    for entry in _records(document["annotations"]):
        box, name = _xywh(entry), names.get(str(entry.get("category_id")))
        if box is None:
            left_out["annotations without a box"] += 1
        elif name is None:
            left_out["boxes of a category that is not listed"] += 1
        else:
            crowd = str(entry.get("iscrowd") or 0) not in ("0", "False", "false")
            boxes.setdefault(str(entry.get("image_id")), []).append((name, box, crowd))
    return boxes


def _xywh(entry: dict[str, Any]) -> tuple[float, float, float, float] | None:
    """The box, or what surrounds the polygons."""
    try:
        x, y, w, h = (float(v) for v in entry["bbox"])
        return (x, y, w, h) if all(map(math.isfinite, (x, y, w, h))) else None
    except (KeyError, TypeError, ValueError):
        pass
    try:
        points = [float(v) for polygon in entry["segmentation"] for v in polygon]
        xs, ys = points[::2], points[1::2]
        return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
    except (KeyError, TypeError, ValueError):
        return None


def _picture(
    index: PictureIndex,
    path: Path,
    record: dict[str, Any],
    boxes: Sequence[tuple[str, tuple[float, float, float, float], bool]],
    side: str,
    left_out: Counter[str],
) -> Picture | None:
    """The picture with its boxes in px of the size they refer to: as stored, as shown, or (the
    picture was scaled after labelling) stretched to what is shown. None, counted: neither."""
    sizes = upright_size(path)
    if sizes is None:
        left_out["pictures that do not decode"] += 1
        return None
    try:
        written = (int(record["width"]), int(record["height"]))
    except (KeyError, TypeError, ValueError):
        written = sizes[0]
    if min(written) < 1:
        written = sizes[0]
    scale = 1.0
    size = written
    if written not in sizes:
        size, scale = sizes[0], sizes[0][0] / written[0]
        if abs(written[0] * size[1] / (written[1] * size[0]) - 1) > _SAME_SHAPE:
            left_out["pictures of another shape than their labels say"] += 1
            return None
    kept = []
    for name, (x, y, w, h), crowd in boxes:
        inside = clipped((x * scale, y * scale, w * scale, h * scale), size)
        if inside is None:
            left_out["boxes that are empty or outside their picture"] += 1
        else:
            kept.append(LabelledObject(name, inside, crowd))
    return Picture(path, index.name_of(path), size, tuple(kept), True, side)
