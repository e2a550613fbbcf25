"""The measured surface: one row a cell, its file, its operating points and their envelopes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from endedge.allocator import display as show
from endedge.allocator.csv_files import csv_text, read_csv
from endedge.allocator.problem import OperatingPoint
from endedge.data.errors import BadInput

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["Points", "Surface"]

Floats = NDArray[np.float64]

_TEXT = ("cell", "codec", "mode", "student")
_REQUIRED = ("seed", "frames", "codec", "upload_bytes", "budget_bytes", "update_bytes", "map", "m0")
_FINITE = ("seed", "frames", "upload_bytes", "budget_bytes", "update_bytes", "map", "m0")
_SHARE = ("map", "map50", "m0", "teacher_map", "prune", "sent")  # in [0, 1]


@dataclass(frozen=True, repr=False)
class Surface:
    """Measured cells as columns of equal length n; the columns of ``surface.csv``.

    ``frames`` N; ``upload_bytes`` U; ``budget_bytes`` what the packer was allowed;
    ``update_bytes`` M, what it really sent; ``map``, ``map50``, ``m0``, ``teacher_map`` in
    [0, 1]; ``prune`` pruning ratio; ``bits`` mean bits a parameter; ``sent`` 1 when the
    update was applied, 0 when it was held back (then ``map`` is ``m0``); ``student`` the
    architecture of the package; ``transmitted``: numbers in it that are not zero (of a delta: that
    change). Optional columns are NaN (text: empty) where a file has none.
    """

    cell: NDArray[np.str_]
    seed: Floats
    frames: Floats
    codec: NDArray[np.str_]
    upload_bytes: Floats
    budget_bytes: Floats
    update_bytes: Floats
    params: Floats
    bits: Floats
    prune: Floats
    mode: NDArray[np.str_]
    map: Floats
    map50: Floats
    m0: Floats
    teacher_map: Floats
    seconds_teacher: Floats
    seconds_student: Floats
    seconds_pack: Floats
    seconds_eval: Floats
    sent: Floats
    student: NDArray[np.str_]
    transmitted: Floats

    def __len__(self) -> int:
        return len(self.map)

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]], where: str = "surface") -> Surface:
        """Build from one mapping a cell (column name -> value).

        Raises :class:`BadInput` naming the row and column for a missing required column, a
        number that cannot be read, is not finite or is negative, and a share above 1.
        """
        listed = list(rows)
        if not listed:
            raise BadInput(f"{where} has no cells; run 'endedge measure' first")
        missing = [name for name in _REQUIRED if name not in listed[0]]
        if missing:
            raise BadInput(f"{where} lacks the columns {', '.join(missing)}")
        columns: dict[str, Any] = {}
        for name in COLUMNS:
            if name in _TEXT:
                columns[name] = np.array([str(row.get(name) or "") for row in listed])
            else:
                cells = enumerate((row.get(name) for row in listed), start=2)
                columns[name] = np.array([_number(v, name, f"{where} row {i}") for i, v in cells])
        return cls(**columns)

    @classmethod
    def read(cls, path: str | Path) -> Surface:
        """Read ``surface.csv``. Row numbers in errors count the header as line 1."""
        path = Path(path)
        if not path.is_file():
            raise BadInput(f"surface not found: {path}; run 'endedge measure' first")
        return cls.from_rows(read_csv(path), str(path))

    def to_csv(self) -> str:
        """The file's text: canonical, so that equal surfaces have equal hashes. ``student`` and
        ``transmitted`` came when there were surfaces already, and are left out where no cell has
        them."""
        late = {"student": self.student != "", "transmitted": np.isfinite(self.transmitted)}
        named = [name for name in COLUMNS if name not in late or late[name].any()]
        rows = zip(*(getattr(self, name) for name in named), strict=True)
        return csv_text(named, ([_text(value) for value in row] for row in rows))

    def write(self, path: str | Path) -> None:
        """Write ``surface.csv`` (columns in the order of the fields)."""
        path = Path(path)
        partial = path.with_name(f".{path.name}.partial")
        try:
            partial.write_text(self.to_csv(), encoding="utf-8")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)  # of a full disk

    def sha256(self) -> str:
        """SHA-256 (hex) of :meth:`to_csv`: the provenance that curves carry."""
        return hashlib.sha256(self.to_csv().encode()).hexdigest()

    def select(self, mask: NDArray[Any]) -> Surface:
        """The cells of a boolean or index array."""
        return Surface(**{name: getattr(self, name)[mask] for name in COLUMNS})

    def joined(self, more: Surface) -> Surface:
        """These cells, then those of ``more``."""
        pairs = {name: (getattr(self, name), getattr(more, name)) for name in COLUMNS}
        return Surface(**{name: np.concatenate(pair) for name, pair in pairs.items()})

    @cached_property
    def row_of(self) -> dict[tuple[int, int, str, int], int]:
        """The row of a cell, by its seed, frames, codec and budget in bytes."""
        columns = zip(self.seed, self.frames, self.codec, self.budget_bytes, strict=True)
        return {(int(s), int(n), str(c), int(b)): i for i, (s, n, c, b) in enumerate(columns)}

    @property
    def parameters(self) -> Floats:
        """(n,) What a package sends: ``transmitted``; where nobody counted, all ``params``."""
        return np.where(np.isfinite(self.transmitted), self.transmitted, self.params)

    def points(self) -> Points:
        """Operating points: cells grouped over seeds."""
        return Points.of(self)

    def frame(self) -> DataFrame:
        """The cells as a pandas table, one row a cell."""
        return show.data_frame({name: getattr(self, name) for name in COLUMNS})

    def plot(self) -> Figure:
        """The measured operating points: bytes up, bytes down, mAP (a matplotlib figure)."""
        figure, (axes,) = show.figure(5.0, 4.0)
        show.surface_axes(axes, self.points())
        return figure

    def _summary(self) -> dict[str, str]:
        uploads = len(set(zip(self.frames, self.codec, strict=True)))
        return {
            "cells": f"{len(self)}: {uploads} uploads x {len(set(self.budget_bytes))} budgets "
            f"x {len(set(self.seed))} seeds",
            "uploads": f"{self.upload_bytes.min():,.0f} to {self.upload_bytes.max():,.0f} B",
            "updates": f"{self.update_bytes.min():,.0f} to {self.update_bytes.max():,.0f} B",
            "mAP": f"{100 * self.map.min():.1f} to {100 * self.map.max():.1f} %, "
            f"before {100 * self.m0.mean():.1f} %",
        }

    def __repr__(self) -> str:
        return show.one_line("Surface", self._summary())

    def _repr_html_(self) -> str:
        return show.html_table("Surface", self._summary())


COLUMNS = tuple(field.name for field in fields(Surface))


def _number(value: Any, name: str, where: str) -> float:
    if value is None or value == "":
        if name in _FINITE:
            raise BadInput(f"{where}: {name} is empty; a number is needed")
        return 1.0 if name == "sent" else math.nan
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise BadInput(f"{where}: {name} = {value!r} is not a number") from None
    if math.isnan(number) and name not in _FINITE:
        return number
    if not math.isfinite(number) or number < 0:
        raise BadInput(f"{where}: {name} = {value!r} must be finite and >= 0")
    if name in _SHARE and number > 1:
        raise BadInput(f"{where}: {name} = {value!r} must lie in [0, 1] (a percentage?)")
    return number


def _text(value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    number = float(value)
    if math.isnan(number):
        return ""
    return str(int(number)) if number == int(number) and abs(number) < 2**53 else repr(number)


@dataclass(frozen=True)
class Points:
    """The measured grid as columns of length n, one an operating point.

    Bytes are the largest over seeds, so that a point that fits, fits for every seed.
    ``map`` is the mean over ``seeds`` cells and ``map_error`` its standard error (NaN for one);
    ``student``: the architecture of the package, empty where seeds differ or none is named.
    """

    frames: Floats
    codec: NDArray[np.str_]
    upload_bytes: Floats
    budget_bytes: Floats
    update_bytes: Floats
    bits: Floats
    prune: Floats
    mode: NDArray[np.str_]
    map: Floats
    map_error: Floats
    seeds: Floats
    student: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.map)

    @classmethod
    def of(cls, surface: Surface) -> Points:
        """Group the cells of one (frames, codec, budget_bytes); sorted by these."""
        code = np.zeros(len(surface), dtype=np.int64)
        for column in (surface.frames, surface.codec, surface.budget_bytes):
            names, rank = np.unique(column, return_inverse=True)
            code = code * len(names) + rank
        _, first, point = np.unique(code, return_index=True, return_inverse=True)
        seeds = np.bincount(point).astype(float)

        def mean(values: Floats) -> Floats:
            return np.asarray(np.bincount(point, weights=values) / seeds)

        def most(values: Floats) -> Floats:
            top = values[first].copy()
            np.maximum.at(top, point, values)
            return np.asarray(top)

        accuracy = mean(surface.map)
        squares = np.bincount(point, weights=(surface.map - accuracy[point]) ** 2)
        mixed = np.zeros(len(first), dtype=bool)
        np.logical_or.at(mixed, point, surface.student != surface.student[first][point])
        variance = np.where(seeds > 1, squares / np.maximum(seeds - 1, 1), np.nan)
        return cls(
            frames=surface.frames[first],
            codec=surface.codec[first],
            upload_bytes=most(surface.upload_bytes),
            budget_bytes=surface.budget_bytes[first],
            update_bytes=most(surface.update_bytes),
            bits=mean(surface.bits),
            prune=mean(surface.prune),
            mode=surface.mode[first],
            map=accuracy,
            map_error=np.sqrt(variance / seeds),
            seeds=seeds,
            student=np.where(mixed, "", surface.student[first]),
        )

    def point(self, index: int) -> OperatingPoint:
        """Row ``index`` as what a decision executes."""
        return OperatingPoint(
            frames=int(self.frames[index]),
            codec=str(self.codec[index]),
            upload_bytes=float(self.upload_bytes[index]),
            budget_bytes=float(self.budget_bytes[index]),
            update_bytes=float(self.update_bytes[index]),
            bits=float(self.bits[index]),
            prune=float(self.prune[index]),
            mode=str(self.mode[index]),
        )

    def upload_envelope(self) -> NDArray[np.int64]:
        """Row indices of the best (N, codec) for every U: rising bytes, rising accuracy.

        Each (N, codec) stands by its accuracy at its largest model budget; an option that
        costs more bytes and is no better than a cheaper one is left out.
        """
        rows: dict[tuple[float, str], int] = {}
        for i, key in enumerate(zip(self.frames, self.codec, strict=True)):
            if key not in rows or self.budget_bytes[i] > self.budget_bytes[rows[key]]:
                rows[key] = i
        return _envelope(np.array(list(rows.values())), self.upload_bytes, self.map)

    def update_envelope(self) -> NDArray[np.int64]:
        """Row indices of the best package for every M, each at the largest upload it was
        measured with: rising bytes, rising accuracy."""
        rows: dict[float, int] = {}
        for i, key in enumerate(self.budget_bytes):
            if key not in rows or self.upload_bytes[i] > self.upload_bytes[rows[key]]:
                rows[key] = i
        return _envelope(np.array(list(rows.values())), self.update_bytes, self.map)

    def fitting(
        self, upload_bytes: float, update_bytes: float, codec: str = "", student: str = ""
    ) -> int | None:
        """The row that is executed under these two byte caps, or None: no update.

        Caps that are the bytes of a point mean that point. Else the upload is the one with the
        most bytes that fits (of ``codec``, where one is named) together with some package (of
        ``student``, where one is named), and the package the largest one beside it that fits.
        Bytes alone decide, never accuracies, so that everybody who asks hears the same.
        """
        near = 1e-9
        among = np.ones(len(self), dtype=bool) if not codec else self.codec == codec
        if student:
            among &= self.student == student
        meant = among & (np.abs(self.upload_bytes - upload_bytes) <= near * upload_bytes)
        meant &= np.abs(self.update_bytes - update_bytes) <= near * update_bytes
        if meant.any():
            return int(np.flatnonzero(meant)[0])
        fits = among & (self.upload_bytes <= upload_bytes * (1 + near))
        fits &= self.update_bytes <= update_bytes * (1 + near)
        if not fits.any():
            return None
        rows = np.flatnonzero(fits)
        order = np.lexsort((self.update_bytes[rows], self.upload_bytes[rows]))
        return int(rows[order[-1]])


def _envelope(rows: NDArray[np.int64], cost: Floats, value: Floats) -> NDArray[np.int64]:
    """Those of ``rows`` that no row of at most the same cost equals or beats."""
    kept: list[int] = []
    for i in rows[np.lexsort((-value[rows], cost[rows]))]:
        if not kept or value[i] > value[kept[-1]]:
            kept.append(int(i))
    return np.array(kept, dtype=np.int64)
