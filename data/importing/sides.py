"""Which pictures may be uploaded and which are evaluated, so that neither side shows the other.

Pictures that belong together stay together: those of one folder, of one stretch of time, and
those that look nearly the same. *Nearly the same* is a distance of difference hashes: of a
picture in grey, scaled to 17 x 16, whether each pixel is brighter than its right neighbour
(256 bits; N. Krawetz, *Kind of Like That*, 2013).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from endedge.data.errors import BadInput
from endedge.data.importing.found import EVAL, POOL, Picture, side_of

__all__ = ["GROUPS", "Sides", "look", "split"]

GROUPS = ("auto", "folder", "time", "none")
_BITS = 16  # a side of the hash
_GAP_S = 60.0  # pictures further apart in time are of two scenes
_BLOCK_S = 120.0  # a scene that goes on longer is cut
_TIME_IN_NAME = re.compile(
    r"(20\d\d)-?([01]\d)-?([0-3]\d)[T_\- ]?([0-2]\d)[-_:]?([0-5]\d)[-_:]?([0-5]\d)"
)
_EXIF_TIME, _EXIF = 0x9003, 0x8769


@dataclass(frozen=True)
class Sides:
    """``eval_of[i]``: picture ``i`` is evaluated; ``kept[i]``: it is used at all. ``rule`` says in
    words what was kept together."""

    kept: list[bool]
    eval_of: list[bool]
    rule: str
    groups: int
    left_out: Counter[str]


def look(path: Path) -> NDArray[np.bool_] | None:
    """The difference hash of a picture, (256,) bool. None: it does not decode to the end."""
    try:
        with Image.open(path) as image:
            image.draft("L", (8 * _BITS, 8 * _BITS))  # JPEG decodes small at once
            grey = image.convert("L").resize((_BITS + 1, _BITS), Image.Resampling.BOX)
            levels = np.asarray(grey, np.int16)
        return (levels[:, 1:] > levels[:, :-1]).reshape(-1)
    except Exception:  # Pillow raises many kinds for broken files
        return None


def split(
    pictures: Sequence[Picture],
    hashes: NDArray[np.bool_],
    *,
    group: str = "auto",
    eval_share: float = 0.25,
    near_bits: int = 4,
    seed: int = 0,
) -> Sides:
    """Put every picture on a side.

    Where the source has splits for all pictures they stand, and what looks like an evaluated
    picture leaves the pool. Otherwise whole groups are drawn, seeded, until ``eval_share`` of
    the pictures are evaluated. ``hashes`` (n, 256) of :func:`look`; ``near_bits``: two pictures
    whose hashes differ in no more bits look alike. ``group``: one of :data:`GROUPS`.

    Raises :class:`BadInput` for ``time`` without times, and where all pictures are one group.
    """
    pairs = _alike(hashes, near_bits)
    if all(p.side for p in pictures) and {p.side for p in pictures} == {POOL, EVAL}:
        return _given(pictures, pairs)
    keys, rule = _keys(pictures, group)
    owner = _joined(keys, pairs)
    members: dict[int, list[int]] = defaultdict(list)
    for i, root in enumerate(owner):
        members[root].append(i)
    if len(members) < 2:
        raise BadInput(
            f"all {len(pictures)} pictures are one group ({rule}, look-alikes together), so none "
            "can be evaluated apart from the others; try --group none, --near 0, or --eval-from"
        )
    order = [
        list(members)[int(i)]
        for i in np.random.default_rng([seed, 0xE7A1]).permutation(len(members))
    ]
    wanted = max(1, round(eval_share * len(pictures)))
    chosen: set[int] = set()
    for root in order:
        taken = sum(len(members[r]) for r in chosen)
        grown = taken + len(members[root])
        if len(chosen) < len(members) - 1 and abs(grown - wanted) < abs(taken - wanted):
            chosen.add(root)
    if not chosen:
        chosen.add(min(members, key=lambda r: len(members[r])))
    eval_of = [owner[i] in chosen for i in range(len(pictures))]
    return Sides([True] * len(pictures), eval_of, rule, len(members), Counter())


def _given(pictures: Sequence[Picture], pairs: NDArray[np.int64]) -> Sides:
    eval_of = [p.side == EVAL for p in pictures]
    kept = [True] * len(pictures)
    for a, b in pairs:
        if eval_of[a] != eval_of[b]:
            kept[a if eval_of[b] else b] = False
    left_out = Counter({"pool pictures that look like an evaluated one": kept.count(False)})
    if not any(k and not e for k, e in zip(kept, eval_of, strict=True)):
        raise BadInput("every picture of the pool looks like an evaluated one; try --near 0")
    return Sides(kept, eval_of, "the splits of the source", 2, left_out)


def _alike(hashes: NDArray[np.bool_], near_bits: int) -> NDArray[np.int64]:
    """Pairs (k, 2) of pictures whose hashes differ in at most ``near_bits`` bits. Hashes as ±1
    make their distance a matrix product, so ten thousand pictures take seconds."""
    signs = np.where(hashes, 1, -1).astype(np.float32)
    found = []
    for start in range(0, len(signs), 1024):
        close = signs[start : start + 1024] @ signs.T >= hashes.shape[1] - 2 * near_bits - 0.5
        rows, columns = np.nonzero(close)
        later = columns > rows + start
        found.append(np.stack([rows[later] + start, columns[later]], 1))
    return np.concatenate(found).astype(np.int64) if found else np.zeros((0, 2), np.int64)


def _keys(pictures: Sequence[Picture], group: str) -> tuple[list[str], str]:
    """What each picture is grouped by, and the rule in words."""
    folders = [_folder(p) for p in pictures]
    if group == "auto":
        if all(p.time_s is not None for p in pictures):  # of a video
            group = "time"
        else:
            group = "folder" if len(set(folders)) >= 4 else "none"
    if group == "folder":
        return folders, "pictures of one folder together"
    if group == "none":
        return [str(i) for i in range(len(pictures))], "every picture by itself"
    times = [p.time_s if p.time_s is not None else _time_of(p) for p in pictures]
    if any(t is None for t in times):
        unknown = next(p.name for p, t in zip(pictures, times, strict=True) if t is None)
        raise BadInput(
            f"--group time: {unknown} has no time in its EXIF data or name (20260131_101502); "
            "try --group folder"
        )
    keys = [""] * len(pictures)
    scene, began, last = 0, -np.inf, -np.inf
    for i in sorted(range(len(pictures)), key=lambda i: times[i] or 0.0):
        now = times[i] or 0.0
        if now - last > _GAP_S or now - began > _BLOCK_S:
            scene, began = scene + 1, now
        keys[i], last = str(scene), now
    return keys, f"pictures of one stretch of time together (up to {_BLOCK_S:.0f} s)"


def _folder(picture: Picture) -> str:
    """The folder of a picture, without what only names a split or the kind of file."""
    parts = Path(picture.name).parts[:-1]
    return "/".join(p for p in parts if p.lower() not in ("images", "labels") and not side_of([p]))


def _time_of(picture: Picture) -> float | None:
    try:
        with Image.open(picture.path) as image:
            written = image.getexif().get_ifd(_EXIF).get(_EXIF_TIME)
        if written:
            return (
                datetime.strptime(str(written), "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC).timestamp()
            )
    except Exception:  # a name may still tell
        pass
    if (match := _TIME_IN_NAME.search(Path(picture.name).name)) is None:
        return None
    try:
        return (
            datetime.strptime("".join(match.groups()), "%Y%m%d%H%M%S")
            .replace(tzinfo=UTC)
            .timestamp()
        )
    except ValueError:
        return None


def _joined(keys: Sequence[str], pairs: Iterable[Sequence[int]]) -> list[int]:
    """The first member of each picture's group: same key, or linked by pairs (union-find)."""
    first: dict[str, int] = {}
    parent = [first.setdefault(key, i) for i, key in enumerate(keys)]

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in pairs:
        a, b = root(a), root(b)
        parent[max(a, b)] = min(a, b)
    return [root(i) for i in range(len(keys))]
