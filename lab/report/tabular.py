"""A table once, for all who read it: cells for people, a CSV for programs, LaTeX for papers.

A column holds plain values and says how people read them, so that nobody copies a rounded figure
out of a page. A value that rounds to zero has no sign.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from endedge.allocator.csv_files import csv_text
from endedge.data.text_tables import markdown_table

__all__ = ["Column", "ReportTable", "decimal", "latex_text"]

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "^": r"\^{}",
    "~": r"\~{}",
    "\u00a0": "~",
    "−": "$-$",
    "±": r"$\pm$",
    "–": "--",
    "→": r"$\to$",
    "≥": r"$\ge$",
    "≤": r"$\le$",
}


def decimal(value: float, places: int, *, signed: bool = False) -> str:
    """``−1.20``: fixed places, a real minus, no sign before a zero; a dash for NaN."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:{'+' if signed else ''}.{places}f}"
    if not text.strip("+-0."):
        text = text.lstrip("+-")
    return text.replace("-", "−")


def latex_text(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(_LATEX.get(c, c) for c in text)


@dataclass(frozen=True)
class Column:
    """A ``title`` for people and the ``names`` of the CSV's columns, units in them; a column of
    several names holds a sequence of as many values."""

    title: str
    names: str | tuple[str, ...]
    shown: Callable[[Any], str] = str


@dataclass(frozen=True)
class ReportTable:
    """``rows`` of values, one a column; ``name`` is the stem of its file, ``chosen`` the row in
    bold, ``note`` what stands below."""

    name: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    chosen: int = -1
    note: str = ""

    @property
    def cells(self) -> list[list[str]]:
        """As people read them."""
        return [
            [column.shown(value) for column, value in zip(self.columns, row, strict=True)]
            for row in self.rows
        ]

    def csv(self) -> str:
        """All digits, a header with units."""
        names = [name for column in self.columns for name in _names(column)]
        return csv_text(names, ([*self._plain(row)] for row in self.rows))

    def _plain(self, row: Sequence[Any]) -> Iterator[str]:
        for column, cell in zip(self.columns, row, strict=True):
            yield from map(_plain, cell if isinstance(column.names, tuple) else [cell])

    @property
    def link(self) -> str:
        """The CSV as an address that needs no network."""
        return f"data:text/csv;base64,{base64.b64encode(self.csv().encode()).decode()}"

    def markdown(self) -> str:
        """For a page of documentation; the note stands below."""
        text = markdown_table([column.title for column in self.columns], self.cells)
        return f"{text}\n\n{self.note}\n" if self.note else f"{text}\n"

    def latex(self) -> str:
        """A ``booktabs`` table; the note is a comment above it."""
        heads = [latex_text(column.title) for column in self.columns]
        lines = [
            f"% {' '.join(self.note.split())}",
            rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
            r"\toprule",
            " & ".join(heads) + r" \\",
            r"\midrule",
            *(" & ".join(latex_text(cell) for cell in row) + r" \\" for row in self.cells),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
        return "\n".join(lines)


def _names(column: Column) -> tuple[str, ...]:
    return column.names if isinstance(column.names, tuple) else (column.names,)


def _plain(value: Any) -> str:
    """A cell of the CSV: nothing for NaN."""
    if isinstance(value, str | int):
        return str(value)
    number = float(value)
    return f"{number:.10g}" if math.isfinite(number) else ""
