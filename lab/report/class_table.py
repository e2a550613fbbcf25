"""``classes.csv`` of a results folder: AP of each class, before and after every measured update."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endedge.allocator.csv_files import read_rows, rows_csv
from endedge.data.errors import BadInput
from endedge.data.storage import write_atomic

__all__ = ["ClassRow", "class_rows", "read_classes", "write_classes"]

_FILE = "classes.csv"


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
    """The classes of a ``row`` of the surface, from the records of what was evaluated; none where
    these are of a time when classes were not recorded."""
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
    write_atomic(folder / _FILE, rows_csv(ClassRow, rows).encode())


def read_classes(folder: Path) -> list[ClassRow]:
    """The rows of ``classes.csv``; none where there is no such file. Raises :class:`BadInput` for
    a broken one."""
    rows = read_rows(ClassRow, folder / _FILE, "measure")
    if not all(0 <= ap <= 1 for row in rows for ap in (row.ap_before, row.ap_after)):
        raise BadInput(f"{folder / _FILE} is damaged: an AP outside [0, 1]")
    return rows
