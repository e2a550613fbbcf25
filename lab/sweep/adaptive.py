"""Fewer cells: measure next what would most change the allocation.

The fitted curves' bootstrap draws stand for what is not known yet. At every bandwidth of the
sweep the allocator would take the operating point with the best mean; measuring a cell is worth
as much as that choice is expected to gain by it, and is bought per second of work. This is the
*knowledge gradient for correlated beliefs* (P. Frazier, W. Powell, S. Dayanik, INFORMS J. on
Computing 21(4), 2009): correlated, for a training on 64 frames says something about 128.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from endedge.allocator import Curves, Link, Surface, fit
from endedge.data.errors import BadInput
from endedge.lab.config import Config, LinkConfig
from endedge.lab.inputs import Inputs
from endedge.lab.store import Store
from endedge.lab.sweep.cell import Cell, CellRunner
from endedge.lab.sweep.executors import engine_of
from endedge.lab.sweep.grid import Progress, Survey, grid, length, sweep
from endedge.lab.sweep.status import StageSeconds
from endedge.lab.sweep.workers import one_thread

__all__ = [
    "Outlook",
    "adaptive",
    "adaptive_sweep",
    "first_cells",
    "knowledge_gradient",
    "links_over",
    "options",
]

Floats = NDArray[np.float64]
Row = Mapping[str, Any]
_REPLICATES = 100
_LEVEL = 0.9
_NORMAL = ndtri((np.arange(256) + 0.5) / 256)  # equally likely outcomes of a standard normal
_LEAST_NOISE = 0.003  # mAP; no detector trained twice agrees better


@dataclass(frozen=True, eq=False)
class Outlook:
    """What the cells measured so far say about the whole grid: ``points`` (p) are its cells of
    one seed, ``draws`` (r, p) their mAP in r bootstrap surfaces, ``fits`` (b, p) whether a point
    fits into each bandwidth, ``noise`` the standard deviation of one cell (mAP)."""

    points: tuple[Cell, ...]
    draws: Floats
    fits: NDArray[np.bool_]
    noise: float

    @classmethod
    def of(
        cls,
        rows: Sequence[Row],
        points: Sequence[Cell],
        upload_bytes: Mapping[Cell, float],
        links: Iterable[Link],
    ) -> Outlook:
        """Fit ``rows``; ``upload_bytes`` of every point. A package is as large as its budget."""
        surface = Surface.from_rows(rows)
        curves = fit(surface, replicates=_REPLICATES)
        up = np.array([upload_bytes[c] for c in points])
        down = np.array([float(c.budget_bytes) for c in points])
        fits = np.array([link.hz_for(up, down) <= link.bandwidth_hz for link in links])
        return cls(
            tuple(points), curves.draws(up, down), fits[fits.any(1)], _noise(surface, curves)
        )

    @property
    def width(self) -> float:
        """The width of the interval [0, q] (mAP) that holds the regret of the choice at a bandwidth
        with 90 %, mean over the bandwidths."""
        mean = self.draws.mean(0)
        regrets = []
        for fits in self.fits:
            at = np.flatnonzero(fits)
            chosen = at[mean[at].argmax()]
            regret = self.draws[:, at].max(1) - self.draws[:, chosen]
            regrets.append(np.quantile(regret, _LEVEL))
        return float(np.mean(regrets))

    def worth(self) -> Floats:
        """The worth of measuring each point once more: the expected gain (mAP) in the value of the
        chosen points, mean over the bandwidths; shape (p,)."""
        mean = self.draws.mean(0)
        covariance = np.cov(self.draws, rowvar=False)
        scale = np.sqrt(np.diag(covariance) + self.noise**2)
        gains = [
            knowledge_gradient(mean[f], covariance[f] / scale)
            for f in map(np.flatnonzero, self.fits)
        ]
        return np.asarray(np.mean(gains, axis=0))


def knowledge_gradient(mean: Floats, change: Floats) -> Floats:
    """E[max_j (mean_j + change_ji·Z)] − max_j mean_j for each measurement i, Z standard normal.

    ``mean`` (n,) of the choices, ``change`` (n, p): by how much the belief in choice j moves
    when measurement i comes out one standard deviation high.
    """
    expected = [(mean[:, None] + np.outer(moves, _NORMAL)).max(0).mean() for moves in change.T]
    return np.asarray(np.maximum(np.array(expected) - mean.max(), 0.0))


def first_cells(
    seeds: Sequence[int], uplink: Sequence[tuple[int, str]], budgets: Sequence[int]
) -> list[Cell]:
    """The least that curves can be fitted to: three uploads of each codec (fewest, most, and the
    cheaper middle one) by three budgets, one seed. ``uplink``: all (frames, codec)."""
    cells = []
    for codec in dict.fromkeys(codec for _, codec in uplink):
        frames = sorted(n for n, c in uplink if c == codec)
        thirds = {frames[0], frames[(len(frames) - 1) // 2], frames[-1]}
        ranked = sorted(budgets)
        packages = {ranked[0], ranked[(len(ranked) - 1) // 2], ranked[-1]}
        cells += [Cell(seeds[0], n, codec, b) for n, b in product(sorted(thirds), sorted(packages))]
    return cells


def options(
    cells: Sequence[Cell],
    measured: Iterable[Cell],
    outlook: Outlook,
    trunk_seconds: Callable[[Cell], float],
    leaf_seconds: float,
    n: int,
) -> list[Cell]:
    """The ``n`` unmeasured of ``cells`` whose worth a second of work is highest. A trunk is paid
    once: what shares it with a measured or chosen cell costs only its package and evaluation.
    Of equal seeds the first, for measurements of one point differ by their seed only."""
    worth = dict(zip(outlook.points, outlook.worth(), strict=True))
    seed = outlook.points[0].seed
    done = set(measured)
    trunks = {(c.seed, c.frames, c.codec) for c in done}
    chosen: list[Cell] = []
    while len(chosen) < n and (left := [c for c in cells if c not in done]):

        def value(cell: Cell) -> float:
            known = (cell.seed, cell.frames, cell.codec) in trunks
            seconds = leaf_seconds + (0.0 if known else trunk_seconds(cell))
            return float(worth[replace(cell, seed=seed)]) / seconds

        best = max(left, key=value)
        chosen.append(best)
        done.add(best)
        trunks.add((best.seed, best.frames, best.codec))
    return chosen


def adaptive(
    cells: Sequence[Cell],
    measure: Callable[[Sequence[Cell]], Sequence[Row]],
    upload_bytes: Mapping[Cell, float],
    links: Sequence[Link],
    *,
    width: float,
    trunk_seconds: Callable[[Cell], float],
    leaf_seconds: Callable[[], float],
    at_a_time: int = 1,
    say: Callable[[str], None] = lambda message: None,
) -> list[Cell]:
    """Measure cells of a grid until the interval of the regret is no wider than ``width`` (mAP),
    or all are measured. Returns them in the order in which they were asked for.

    ``measure`` gets all cells so far and gives their rows; ``upload_bytes`` is asked for one seed
    of every cell. Raises :class:`BadInput` for a grid too small to fit.
    """
    if not width > 0:
        raise BadInput(f"the interval's width {width} must be > 0 (mAP, e.g. 0.01)")
    uplink = list(dict.fromkeys((c.frames, c.codec) for c in cells))
    seeds = list(dict.fromkeys(c.seed for c in cells))
    budgets = list(dict.fromkeys(c.budget_bytes for c in cells))
    points = [c for c in cells if c.seed == seeds[0]]
    asked = first_cells(seeds, uplink, budgets)
    while True:
        outlook = Outlook.of(measure(asked), points, upload_bytes, links)
        found = outlook.width
        say(
            f"{len(asked)} of {len(cells)} cells: regret within "
            f"{100 * found:.2f} points of mAP, wanted {100 * width:g}"
        )
        if found <= width or len(asked) >= len(cells):
            return asked
        asked = asked + options(cells, asked, outlook, trunk_seconds, leaf_seconds(), at_a_time)


def adaptive_sweep(
    config: Config, folder: Path, progress: Progress, width: float
) -> list[dict[str, Any]]:
    """Measure as many cells of the grid as :func:`adaptive` asks for; return their rows."""
    cells = grid(config)
    inputs = Inputs.of(config, folder)
    runner = CellRunner(inputs, Store(folder), lambda message: progress(0, len(cells), message))
    with one_thread():  # encoding all uploads of one seed is nothing beside one training
        sizes = {
            cell: float(runner.upload(cell).record["upload_bytes"])
            for cell in cells
            if cell.seed == cells[0].seed
        }
    pace = StageSeconds(config, {})

    def measure(asked: Sequence[Cell]) -> list[dict[str, Any]]:
        nonlocal pace
        rows = sweep(config, folder, progress, asked)
        pace = StageSeconds.of(Survey(inputs, folder, asked).nodes, config)
        return rows

    def trunk_seconds(cell: Cell) -> float:
        seconds = pace.trunk(cell)
        return seconds if seconds == seconds else length(config, cell)  # a folder without times

    def leaf_seconds() -> float:
        seconds = pace.leaf()
        return seconds if seconds == seconds else 1.0

    asked = adaptive(
        cells,
        measure,
        sizes,
        links_over(config.link, sizes),
        width=width,
        trunk_seconds=trunk_seconds,
        leaf_seconds=leaf_seconds,
        at_a_time=engine_of(config)[1],
        say=lambda message: progress(0, len(cells), message),
    )
    return sweep(config, folder, progress, sorted(asked, key=cells.index))


def links_over(link: LinkConfig, upload_bytes: Mapping[Cell, float]) -> list[Link]:
    """The sweep of bandwidths: from just too little for any of the cells to everything."""
    up = np.array(list(upload_bytes.values()))
    down = np.array([float(cell.budget_bytes) for cell in upload_bytes])
    return [link.at(float(hz)) for hz in np.geomspace(*link.sweep_hz(up, down), link.bandwidths)]


def _noise(surface: Surface, curves: Curves) -> float:
    """Standard deviation of a cell: over seeds where a point has several, else what the best
    curve leaves over."""
    groups: dict[tuple[float, str, float], list[float]] = {}
    for n, c, b, value in zip(
        surface.frames, surface.codec, surface.budget_bytes, surface.map, strict=True
    ):
        groups.setdefault((n, str(c), b), []).append(float(value))
    several = [np.var(g, ddof=1) for g in groups.values() if len(g) > 1]
    noise = np.sqrt(np.mean(several)) if several else curves.candidates[0].rmse
    return max(float(noise), _LEAST_NOISE)
