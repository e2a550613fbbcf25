"""``classes.csv`` of a results folder: AP of each class, before and after every measured update."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from endedge.data.errors import BadInput
from endedge.data.storage import write_atomic

__all__ = ["ClassRow", "class_rows", "read_classes", "write_classes"]

_FILE = "classes.csv"
_MAX_FILE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class ClassRow:
    """One class in one cell: its number of evaluation ``objects``, AP50-95 in [0, 1] of what the
    device held before the update and after it (the same where the update was held back)."""

    seed: int
    frames: int
    codec: str
    budget_bytes: int
    name: str
    objects: int
    ap_before: float
    ap_after: float


def class_rows(
    row: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterable[ClassRow]:
    """Of a ``row`` of the surface, from the records of what was evaluated; none where these are
    of a time when classes were not recorded."""
    known = before.get("classes"), (after if row["sent"] else before).get("classes")
    if known[0] is None or known[1] is None:
        return
    for name, (objects, ap) in known[0].items():
        yield ClassRow(
            row["seed"],
            row["frames"],
            row["codec"],
            row["budget_bytes"],
            name,
            objects,
            ap,
            known[1][name][1],
        )


def write_classes(folder: Path, rows: Sequence[ClassRow]) -> None:
    """Write ``classes.csv``, or remove an old one where there is nothing to say."""
    if not rows:
        (folder / _FILE).unlink(missing_ok=True)
        return
    out = io.StringIO()
    writer = csv.DictWriter(out, [f.name for f in fields(ClassRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    write_atomic(folder / _FILE, out.getvalue().encode())


def read_classes(folder: Path) -> list[ClassRow]:
    """The rows of ``classes.csv``; none where there is no such file. Raises :class:`BadInput` for
    a broken one."""
    path = folder / _FILE
    if not path.is_file():
        return []
    kinds = {"int": int, "float": float, "str": str}
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ValueError(f"larger than {_MAX_FILE_BYTES} bytes")
        with path.open(newline="", encoding="utf-8") as file:
            found = [
                ClassRow(**{f.name: kinds[str(f.type)](row[f.name]) for f in fields(ClassRow)})
                for row in csv.DictReader(file)
            ]
        for row in found:
            if not all(math.isfinite(ap) and 0 <= ap <= 1 for ap in (row.ap_before, row.ap_after)):
                raise ValueError("an AP outside [0, 1]")
        return found
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise BadInput(
            f"{path} is damaged ({error}); remove it and run 'endedge measure' again"
        ) from None
