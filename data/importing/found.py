"""What a reader of a foreign format hands over, and the two things all of them need: where the
pictures are, and how large each is as its label tool showed it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from PIL import Image

from endedge.data.errors import BadInput

__all__ = [
    "EVAL",
    "POOL",
    "SUFFIXES",
    "Found",
    "LabelledObject",
    "Picture",
    "PictureIndex",
    "clipped",
    "files_of",
    "read_text",
    "side_of",
    "unlabelled",
    "upright_size",
]

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff"))
POOL, EVAL = "pool", "eval"
_SIDES = {
    POOL: ("train", "training", "pool", "trainval"),
    EVAL: ("val", "valid", "validation", "eval", "test", "testing"),
}
_MAX_TEXT_BYTES = 2**31
_LIES_ON_ITS_SIDE = (5, 6, 7, 8)  # values of the EXIF orientation
_ORIENTATION = 0x112


@dataclass(frozen=True)
class LabelledObject:
    """One labelled object: ``name`` of its class; ``xywh`` from the upper left in px of the
    picture. ``ignored``: counts neither way (a crowd, a *difficult* object of Pascal VOC)."""

    name: str
    xywh: tuple[float, float, float, float]
    ignored: bool = False


@dataclass(frozen=True)
class Picture:
    """One picture. ``name``: its path inside the source; ``size``: width and height in px that
    the boxes refer to; ``labelled``: somebody looked at it, also where nothing was found;
    ``side``: ``pool``, ``eval`` or nothing, by the splits of the source; ``time_s``: when it was
    taken, in seconds from any start."""

    path: Path
    name: str
    size: tuple[int, int]
    boxes: tuple[LabelledObject, ...] = ()
    labelled: bool = False
    side: str = ""
    time_s: float | None = None


@dataclass
class Found:
    """All that was read from one source, and what was not: ``left_out`` counts by reason."""

    kind: str
    pictures: list[Picture] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def classes(self) -> Counter[str]:
        """Boxes by class name."""
        return Counter(b.name for p in self.pictures for b in p.boxes)


def files_of(root: Path) -> list[Path]:
    """All files under ``root`` in a fixed order, without hidden ones and macOS's ``__MACOSX``."""
    found = (p for p in root.rglob("*") if p.is_file())
    return sorted(
        p
        for p in found
        if not any(n.startswith(".") or n == "__MACOSX" for n in p.relative_to(root).parts)
    )


class PictureIndex:
    """The pictures of a folder, found by however much of their path a label file writes."""

    def __init__(self, root: Path, files: Iterable[Path] | None = None) -> None:
        self.root = root
        self.paths = [
            p for p in (files_of(root) if files is None else files) if p.suffix.lower() in SUFFIXES
        ]
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for path in self.paths:
            self._by_name[path.name.lower()].append(path)

    def find(self, written: str, near: Path, hint: str = "") -> Path | None:
        """The picture that a label file in the folder ``near`` calls ``written``: the one whose
        path ends most like it, among equals one in ``near``, or in a folder called ``hint``.
        None where there is none, or several are equally like it."""
        parts = _parts(written)
        found = self._by_name.get(parts[-1].lower(), []) if parts else []
        if not found:
            return None

        def likeness(path: Path) -> tuple[int, bool, bool]:
            mine = path.relative_to(self.root).parts
            same = 0
            for a, b in zip(reversed(mine), reversed(parts), strict=False):
                if a.lower() != b.lower():
                    break
                same += 1
            return same, near != self.root and path.is_relative_to(near), hint in mine

        ranked = sorted(found, key=likeness, reverse=True)
        if len(ranked) > 1 and likeness(ranked[0]) == likeness(ranked[1]):
            return None
        return ranked[0]

    def name_of(self, path: Path) -> str:
        """The path inside the source, with ``/``."""
        return path.relative_to(self.root).as_posix()


def unlabelled(index: PictureIndex, labelled: Container[Path]) -> list[Picture]:
    """The pictures of the folder that are not among ``labelled`` and have a size."""
    rest = (path for path in index.paths if path not in labelled)
    return [Picture(p, index.name_of(p), s[0]) for p in rest if (s := upright_size(p))]


def _parts(written: str) -> tuple[str, ...]:
    """Windows paths, URLs and Label Studio's ``/data/local-files/?d=…`` are paths, too."""
    if "?d=" in written:
        written = parse_qs(urlsplit(written).query).get("d", [""])[0]
    elif "://" in written:
        written = unquote(urlsplit(written).path)
    return tuple(p for p in PurePosixPath(written.replace("\\", "/")).parts if p not in ("/", ".."))


def side_of(words: Sequence[str]) -> str:
    """``pool`` or ``eval`` where one of ``words`` (names of folders, keys, files) is or ends as
    a split is usually called; else nothing."""
    for word in words:
        last = word.lower().replace("-", "_").removeprefix("instances_").rpartition("_")[2]
        last = last.rstrip("0123456789") or last
        for side, names in _SIDES.items():
            if last in names or word.lower() in names:
                return side
    return ""


def upright_size(path: Path) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Width and height in px, as shown (turned as EXIF says) and as stored. None: no picture."""
    try:
        with Image.open(path) as image:
            stored = image.size
            turned = image.getexif().get(_ORIENTATION) in _LIES_ON_ITS_SIDE
            return ((stored[1], stored[0]) if turned else stored), stored
    except Exception:  # Pillow raises many kinds for broken files
        return None


def clipped(
    box: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[float, float, float, float] | None:
    """The part of x, y, width, height inside the picture; None where that is under half a pixel
    wide or high, or where a number is not finite (comparisons with it fail)."""
    x, y, w, h = box
    left, top = max(0.0, x), max(0.0, y)
    right, bottom = min(float(size[0]), x + w), min(float(size[1]), y + h)
    if not (right - left >= 0.5 and bottom - top >= 0.5):
        return None
    return left, top, right - left, bottom - top


def read_text(path: Path, limit: int = _MAX_TEXT_BYTES) -> str:
    """A label file in UTF-8, or as its byte-order mark says. Raises :class:`BadInput`."""
    try:
        if path.stat().st_size > limit:
            raise BadInput(f"{path} is larger than {limit:,} bytes; not a label file")
        raw = path.read_bytes()
        return raw.decode(json.detect_encoding(raw)).removeprefix("\ufeff")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read {path}: {error}") from None
