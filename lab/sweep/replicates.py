"""Bootstrap replicates of a surface's accuracies over its evaluation frames: ``replicates.npz``.

mAP does not add over frames, so what is kept is the mAP of every cell on each of the same random
draws of the evaluation frames (or of the groups that frames come in), in hundredths of a point.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from endedge.allocator import Surface
from endedge.data.errors import BadInput

__all__ = ["FEW_GROUPS", "IN_NODE", "UNIT", "Replicates"]

Floats: TypeAlias = NDArray[np.float64]

UNIT = 1e-4  # mAP; a hundredth of a point
IN_NODE = "replicates.npy"  # of one evaluated detector, beside its record
FEW_GROUPS = 10  # with fewer groups of frames the interval is optimistic
_MAX_FILE_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Replicates:
    """``map`` (cells, replicates) and ``m0`` (replicates,) in units of 1e-4 mAP, the same draw in
    the same column; ``cell`` names the rows as the surface does. ``groups``: independent groups
    of evaluation frames that were drawn (the frames themselves where they stand alone)."""

    cell: NDArray[np.str_]
    map: NDArray[np.uint16]
    m0: NDArray[np.uint16]
    groups: int

    def __post_init__(self) -> None:
        if self.map.ndim != 2 or self.map.shape != (len(self.cell), len(self.m0)):
            raise BadInput(
                f"replicates need a row a cell and a column a draw: {self.map.shape} for "
                f"{len(self.cell)} cells and {len(self.m0)} draws"
            )
        if self.map.size and max(int(self.map.max()), int(self.m0.max())) > 1 / UNIT:
            raise BadInput("replicates above 1 mAP; they are in units of 1e-4")

    @property
    def optimistic(self) -> bool:
        """Whether there are too few groups for an interval to cover what it says."""
        return self.groups < FEW_GROUPS

    def of(self, surface: Surface) -> Floats:
        """mAP of the cells of ``surface`` on each draw (cells, replicates), in [0, 1].

        Raises :class:`BadInput` for a cell that has none.
        """
        row = {str(name): i for i, name in enumerate(self.cell)}
        absent = [str(name) for name in surface.cell if str(name) not in row]
        if absent:
            raise BadInput(f"replicates lack {len(absent)} of {len(surface)} cells: {absent[0]}, …")
        rows = [row[str(name)] for name in surface.cell]
        sent = np.where(surface.sent[:, None] > 0, self.map[rows], self.m0[None])
        return np.asarray(UNIT * sent)

    @classmethod
    def gathered(cls, nodes: Path, start: str, groups: int, cells: Iterable[str]) -> Replicates:
        """Those of ``cells`` and of the detector at the ``start``, names of folders in ``nodes``.

        Raises :class:`BadInput` for one that has none.
        """
        names = sorted(set(cells))
        rows = [_of_node(nodes / name) for name in names]
        return cls(np.array(names), np.stack(rows), _of_node(nodes / start), groups)

    def write(self, path: Path) -> None:
        """As compressed integers; equal replicates give equal bytes."""
        partial = path.with_name(f".{path.name}.partial.npz")
        np.savez_compressed(
            partial, cell=self.cell, map=self.map, m0=self.m0, groups=np.array(self.groups)
        )
        partial.replace(path)

    @classmethod
    def read(cls, path: Path) -> Replicates:
        """Raises :class:`BadInput` for a file that is none; nothing in it is executed."""
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise BadInput(f"{path} is larger than {_MAX_FILE_BYTES} bytes; not replicates")
        try:
            with np.load(path, allow_pickle=False) as held:
                parts = {name: held[name] for name in ("cell", "map", "m0", "groups")}
            return cls(
                parts["cell"].astype(str),
                parts["map"].astype(np.uint16),
                parts["m0"].astype(np.uint16),
                int(parts["groups"]),
            )
        except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
            raise BadInput(f"{path} is no replicates file: {error}") from None


def _of_node(node: Path) -> NDArray[np.uint16]:
    try:
        return np.asarray(np.load(node / IN_NODE, allow_pickle=False), dtype=np.uint16)
    except (OSError, ValueError) as error:
        raise BadInput(f"{node} has no replicates: {error}; remove it and measure again") from None
