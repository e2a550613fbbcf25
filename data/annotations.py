"""A COCO instances file, every field of it checked, before anything is made of it.

Label tools write nearly COCO: ids as text, a crowd flag ``"0"`` (which is true), sizes of 0,
two records of one picture. Each of these gives a wrong score and no error in a lenient reader,
so nothing is converted here: a field has its type and its range, or the file is refused with the
record and what would be right.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from endedge.data.errors import BadInput
from endedge.data.groups import group_in
from endedge.data.pictures import MAX_PIXELS

__all__ = [
    "Box",
    "Category",
    "Instances",
    "PictureRecord",
    "picture_file",
    "read_instances",
    "read_text",
]

_MAX_ID = 2**53 - 1  # what a float64 (of pycocotools, of JavaScript) can tell from its neighbours
_EDGE_SLACK_PX = 1.0  # annotators round; COCO's own boxes reach a fraction of a pixel outside
_LEAST_PX = 1e-6  # narrower is nothing, and 0 in single precision
_MAX_BYTES = 2**31


@dataclass(frozen=True)
class PictureRecord:
    """One entry of ``images``; sizes in px; ``group``: see data/groups.py."""

    image_id: int
    file_name: str
    width: int
    height: int
    group: str | None = None


@dataclass(frozen=True)
class Category:
    """One entry of ``categories``."""

    category_id: int
    name: str


@dataclass(frozen=True)
class Box:
    """One entry of ``annotations``: ``xywh`` in px of the picture."""

    image_id: int
    category_id: int
    xywh: tuple[float, float, float, float]
    crowd: bool


@dataclass(frozen=True)
class Instances:
    """A checked file, its lists in the order of the file. ``document`` is what it was read from
    (of ``categories`` those that are listed here)."""

    document: dict[str, Any]
    images: tuple[PictureRecord, ...]
    boxes: tuple[Box, ...]
    categories: tuple[Category, ...]
    notes: tuple[str, ...]


def read_instances(path: Path) -> Instances:
    """Read a COCO instances file, in UTF-8, -16 or -32, with or without a byte-order mark.

    Raises :class:`BadInput` naming file and record for: a missing file, one that is not COCO
    instances JSON, a key that is twice in an object, a field of another type or out of range,
    ids that are twice, two records of one file, annotations of unknown images or categories,
    boxes that are empty or outside their image, and two categories of one name that both have
    boxes (one without any is left out, with a note).
    """
    document = _document(path)
    lists = [_list(document, key, path) for key in ("images", "annotations", "categories")]
    images = tuple(_image(r, f"{path}: image {_name_of(r, i)}") for i, r in enumerate(lists[0]))
    kinds = tuple(
        _category(r, f"{path}: category {_name_of(r, i)}") for i, r in enumerate(lists[2])
    )
    _once([r.image_id for r in images], f"{path}: duplicate image id")
    _once([c.category_id for c in kinds], f"{path}: duplicate category id")
    _once([str(PurePosixPath(r.file_name)) for r in images], f"{path}: two images are of one file")
    size_of = {r.image_id: (r.width, r.height) for r in images}
    known = {c.category_id for c in kinds}
    boxes = tuple(
        _box(r, f"{path}: annotation {_name_of(r, i)}", size_of, known)
        for i, r in enumerate(lists[1])
    )
    used = {b.category_id for b in boxes}
    kept, notes = _one_of_a_name(kinds, used, str(path))
    if len(kept) < len(kinds):
        left = {c.category_id for c in kept}
        document = {**document, "categories": [r for r in lists[2] if r["id"] in left]}
    return Instances(document, images, boxes, kept, notes)


def picture_file(images: Path, record: PictureRecord, where: Path) -> Path:
    """The file of ``record`` in the folder ``images``. Raises :class:`BadInput` where it is
    outside, or not there."""
    name = Path(record.file_name)
    if name.is_absolute() or ".." in name.parts:
        raise BadInput(
            f"{where}: image {record.image_id} points outside {images}: {record.file_name!r}; "
            "name the file as seen from that folder"
        )
    try:
        there = (images / name).is_file()
    except (OSError, ValueError):  # a name too long, or of characters that no file has
        there = False
    if not there:
        windows = "; write / instead of \\ in file_name" if "\\" in record.file_name else ""
        raise BadInput(
            f"image not found: {str(images / name)[:300]!r} (image {record.image_id} of {where})"
            + windows
        )
    return images / name


def read_text(path: Path) -> str:
    """The text of a file that somebody's editor wrote: UTF-8 or, where a byte-order mark says
    so, UTF-16 or -32. Raises OSError, and ValueError for another encoding."""
    raw = path.read_bytes()
    return raw.decode(json.detect_encoding(raw))


# Fields -------------------------------------------------------------------------------------


def _document(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise BadInput(f"{path} is larger than 2 GiB; not a COCO instances file")
        document = json.loads(read_text(path), object_pairs_hook=_object)
    except BadInput:
        raise
    except FileNotFoundError:
        raise BadInput(f"annotation file not found: {path}") from None
    except (OSError, ValueError, RecursionError) as error:
        text = str(error).splitlines() or ["damaged"]
        raise BadInput(f"not a COCO instances file: {path} ({text[0][:200]})") from None
    if not isinstance(document, dict):
        raise BadInput(f"not a COCO instances file: {path} holds a {type(document).__name__}")
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice!r} is twice in one object")
    return made


def _list(document: dict[str, Any], key: str, path: Path) -> list[Any]:
    found = document.get(key)
    if not isinstance(found, list):
        raise BadInput(
            f"not a COCO instances file: {path} has no list {key!r}; it needs 'images', "
            "'annotations' with 'bbox', and 'categories'"
        )
    return found


def _name_of(record: Any, index: int) -> str:
    """How a message names a record: by its id, else by its place."""
    found = record.get("id") if isinstance(record, dict) else None
    return f"{found}" if type(found) is int else f"number {index + 1}"


def _image(record: Any, where: str) -> PictureRecord:
    width, height = (_whole(record, key, where, least=1) for key in ("width", "height"))
    if width * height > MAX_PIXELS:
        raise BadInput(f"{where} has {width} x {height} px; at most 50 megapixels are read")
    return PictureRecord(
        _whole(record, "id", where),
        _text(record, "file_name", where),
        width,
        height,
        group_in(record),
    )


def _category(record: Any, where: str) -> Category:
    return Category(_whole(record, "id", where), _text(record, "name", where))


def _box(record: Any, where: str, size_of: dict[int, tuple[int, int]], known: set[int]) -> Box:
    image_id, category = (_whole(record, key, where) for key in ("image_id", "category_id"))
    if "id" in record:
        _whole(record, "id", where)
    if image_id not in size_of or category not in known:
        raise BadInput(f"{where} names an unknown image ({image_id}) or category ({category})")
    crowd = record.get("iscrowd", 0)
    if not (isinstance(crowd, bool | int | float) and crowd in (0, 1)):
        raise BadInput(f"{where}: iscrowd is {_shown(crowd)}; write 0 or 1")
    return Box(image_id, category, _xywh(record, size_of[image_id], where), bool(crowd))


def _xywh(record: Any, size: tuple[int, int], where: str) -> tuple[float, float, float, float]:
    raw = record.get("bbox")
    numbers = isinstance(raw, list) and len(raw) == 4 and all(type(v) in (int, float) for v in raw)
    try:
        box = [float(v) for v in raw] if numbers and raw is not None else []
    except OverflowError:
        box = []
    if not box or not all(map(math.isfinite, box)) or min(box[2:]) < 0:
        raise BadInput(f"{where}: bbox {_shown(raw)} is not x, y, width, height in pixels")
    x, y, w, h = box
    if min(w, h) < _LEAST_PX:
        raise BadInput(
            f"{where}: bbox {_shown(raw)} is empty; remove it, or give width and height > 0"
        )
    if (
        min(x, y) < -_EDGE_SLACK_PX
        or x + w > size[0] + _EDGE_SLACK_PX
        or y + h > size[1] + _EDGE_SLACK_PX
    ):
        raise BadInput(
            f"{where}: bbox {_shown(raw)} lies outside its {size[0]}x{size[1]} image; boxes are "
            "x, y, width, height in pixels, from the upper left"
        )
    return x, y, w, h


def _whole(record: Any, key: str, where: str, least: int = 0) -> int:
    value = _field(record, key, where)
    whole = type(value) is int or (type(value) is float and value.is_integer())
    if not whole or not least <= value <= _MAX_ID:
        raise BadInput(f"{where}: {key} is {_shown(value)}; write a whole number, {least} to 2^53")
    return int(value)


def _text(record: Any, key: str, where: str) -> str:
    value = _field(record, key, where)
    if not isinstance(value, str) or not value.strip():
        raise BadInput(f"{where}: {key} is {_shown(value)}; write a text")
    return value


def _field(record: Any, key: str, where: str) -> Any:
    if not isinstance(record, dict):
        raise BadInput(f"{where} is {_shown(record)}; write an object with its fields")
    if key not in record:
        raise BadInput(f"{where} has no {key}")
    return record[key]


def _shown(value: Any) -> str:
    if isinstance(value, list | dict) and len(value) > 9:
        return f"a {type(value).__name__} of {len(value)}"
    try:
        return repr(value)[:60]
    except RecursionError:
        return f"a {type(value).__name__}"


def _once(values: Sequence[Any], says: str) -> None:
    if len(set(values)) < len(values):
        value, times = Counter(values).most_common(1)[0]
        raise BadInput(f"{says}: {value!r} is there {times} times")


def _one_of_a_name(
    kinds: Sequence[Category], used: set[int], where: str
) -> tuple[tuple[Category, ...], tuple[str, ...]]:
    """Among categories with one name the one that has boxes (Roboflow writes a group without any
    under the name of its only class)."""
    kept, notes = list(kinds), []
    for name, times in Counter(c.name for c in kinds).items():
        if times > 1:
            same = [c for c in kinds if c.name == name]
            mine = [c for c in same if c.category_id in used] or same[-1:]
            if len(mine) > 1:
                ids = " and ".join(str(c.category_id) for c in mine[:2])
                raise BadInput(f"{where}: categories {ids} are both named {name!r}; rename one")
            for extra in same:
                if extra is not mine[0]:
                    kept.remove(extra)
                    notes.append(
                        f"{where}: category {extra.category_id} {name!r} has no box and the name "
                        f"of category {mine[0].category_id}; left out"
                    )
    return tuple(kept), tuple(notes)
