"""CSV files of results: their text from rows, and rows back."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from endedge.data.errors import BadInput

__all__ = ["csv_text", "dicts_csv", "read_csv", "read_rows", "rows_csv"]

Row = TypeVar("Row")

_MAX_FILE_BYTES = 256 * 2**20
_READ: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "float | None": lambda text: float(text) if text else None,
}


def csv_text(names: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """A header of ``names`` and the ``rows`` below it; a None is an empty field."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    return out.getvalue()


def rows_csv(kind: type, rows: Sequence[Any]) -> str:
    """Dataclasses of one ``kind``, one row each, a column a field."""
    names = [field.name for field in fields(kind)]
    return csv_text(names, ([getattr(row, name) for name in names] for row in rows))


def dicts_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Mappings, one row each, with the columns of the first; empty what a later one lacks. Raises
    ValueError for one that has more."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def read_csv(path: Path, max_bytes: int = _MAX_FILE_BYTES) -> list[dict[str, str]]:
    """The rows of a file by column. Raises :class:`BadInput` for one that is no CSV, or larger
    than ``max_bytes``."""
    if path.stat().st_size > max_bytes:
        raise BadInput(f"{path} is larger than {max_bytes} bytes; not a results file")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path} is not a CSV file: {error}") from None


def read_rows(kind: type[Row], path: Path, made_by: str) -> list[Row]:
    """What :func:`rows_csv` wrote; nothing where there is no file. Raises :class:`BadInput` that
    names the verb it is ``made_by`` for a damaged one."""
    if not path.is_file():
        return []
    read = {field.name: _READ[str(field.type)] for field in fields(kind)}  # type: ignore[arg-type]
    try:
        return [kind(**{k: to(row[k]) for k, to in read.items()}) for row in read_csv(path)]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"{path} is damaged ({error}); remove it and run 'endedge {made_by}' again"
        ) from None
