"""``benchmark.csv`` read back, and the statistics over seeds that ranking and report share.

mAP stays in [0, 1] here; only text for people speaks of points (hundredths).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from endedge.allocator import Surface
from endedge.allocator import display as show
from endedge.allocator.csv_files import read_csv
from endedge.data.errors import BadInput
from endedge.lab.benchmark.benchmark import STATIC, BenchmarkRow
from endedge.lab.benchmark.headroom import Contrast
from endedge.lab.sweep.replicates import UNIT, Replicates

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = [
    "HINDSIGHT",
    "STATIC",
    "Benchmark",
    "Floats",
    "Spread",
    "reader_of",
    "rows_of",
    "spread",
]

Floats: TypeAlias = NDArray[np.float64]

_MEASURED = (
    "map",
    "average_map",
    "regret",
    "asked_upload_bytes",
    "asked_update_bytes",
    "upload_bytes",
    "update_bytes",
)
# They saw the accuracies that they are judged by.
HINDSIGHT = ("oracle", "oracle-other-seeds", "best-static")


@dataclass(frozen=True)
class Spread:
    """Mean over ``seeds`` with an interval: 90 % by Student's t from three seeds on, the
    range of two, NaN for one. Arrays of one shape."""

    mean: Floats
    low: Floats
    high: Floats
    seeds: int

    @property
    def what(self) -> str:
        """What the interval is, in words."""
        if self.seeds >= 3:
            return f"90 % t-intervals of the mean over {self.seeds} seeds"
        return "range of 2 seeds" if self.seeds == 2 else "one seed, so no interval"


def spread(values: Any) -> Spread:
    """Statistics over the last axis of ``values`` (…, seeds)."""
    values = np.asarray(values, dtype=float)
    n = values.shape[-1]
    mean = values.mean(axis=-1)
    if n == 1:
        return Spread(mean, np.full_like(mean, math.nan), np.full_like(mean, math.nan), n)
    if n == 2:
        return Spread(mean, values.min(axis=-1), values.max(axis=-1), n)
    half = stdtrit(n - 1, 0.95) * values.std(axis=-1, ddof=1) / math.sqrt(n)
    return Spread(mean, mean - half, mean + half, n)


@dataclass(frozen=True, repr=False)
class Benchmark:
    """``benchmark.csv`` as arrays (policies, bandwidths, seeds), policies in the order of the file.

    ``map`` is what the device had after the update; ``average_map`` is that averaged over the
    period where this is the link's objective, else the same. Policies are judged by the latter,
    and ``regret`` is in it: whatever is drawn or said of a policy is :attr:`judged`.
    """

    policies: tuple[str, ...]
    bandwidth_hz: Floats
    seeds: tuple[int, ...]
    map: Floats
    average_map: Floats
    regret: Floats
    asked_upload_bytes: Floats
    asked_update_bytes: Floats
    upload_bytes: Floats
    update_bytes: Floats
    headroom_draws: Floats | None = None  # (bandwidths, seeds, replicates), where there are any

    @property
    def judged(self) -> Floats:
        """What the policies are judged by, in [0, 1]."""
        return self.average_map

    @property
    def over_the_period(self) -> bool:
        """Whether what is judged differs from the mAP after the update."""
        return not np.allclose(self.map, self.average_map, atol=1e-9)

    @property
    def drawn(self) -> list[int]:
        """Rows of the policies, in the order of the file; not of the yardstick."""
        return [k for k, name in enumerate(self.policies) if name != STATIC]

    @property
    def headroom(self) -> Floats:
        """(bandwidths, seeds): what the oracle is ahead of the best split fixed in advance, chosen
        on the other seeds (of one seed alone: of the equal split), in mAP."""
        fixed = STATIC if STATIC in self.policies else "equal"
        return np.asarray(self.judged[self.of("oracle")] - self.judged[self.of(fixed)])

    def to_win(self, bandwidths: Any = slice(None)) -> Contrast:
        """The headroom in the mean over ``bandwidths`` (rows; default: the sweep), with its errors:
        over seeds, and over evaluation frames where the cells have replicates."""
        rows = np.atleast_1d(np.arange(len(self.bandwidth_hz))[bandwidths])
        draws = None if self.headroom_draws is None else self.headroom_draws[rows].mean(axis=0)
        return Contrast.of(self.headroom[rows].mean(axis=0), draws)

    @classmethod
    def read(cls, path: Path) -> Benchmark:
        """Read ``benchmark.csv``, and the replicates of its cells where they lie beside it.
        Raises :class:`BadInput` for a missing or broken one."""
        rounds = _rounds(path)
        folder = path.parent
        if not (folder / "replicates.npz").is_file():
            return _benchmark(path, rounds)
        cells = Surface.read(folder / "surface.csv")
        if (folder / "executed.csv").is_file():
            cells = cells.joined(Surface.read(folder / "executed.csv"))
        replicates = Replicates.read(folder / "replicates.npz")
        return _benchmark(path, rounds).with_frames(rounds, cells, replicates)

    def with_frames(
        self, rounds: Iterable[BenchmarkRow], cells: Surface, replicates: Replicates
    ) -> Benchmark:
        """The same with what the choice of evaluation frames does to the headroom: every draw of
        ``replicates`` puts the mAP of one set of frames in the place of the measured one, in the
        ``rounds`` of the oracle and of the split fixed in advance, whose ``cells`` these are."""
        after, before = replicates.of(cells), UNIT * replicates.m0
        of = {(r.policy, r.bandwidth_hz, r.seed): r for r in rounds}

        def gain(policy: str, bandwidth_hz: float, seed: int) -> Floats:
            """Over no update, averaged over the period as the measured one was."""
            one = of[policy, bandwidth_hz, seed]
            row = cells.row_of.get((seed, one.frames, one.codec, one.budget_bytes))
            if row is None or not cells.sent[row]:
                return np.zeros_like(before)
            stale, reached = float(cells.m0[row]), float(cells.map[row])
            moved = reached - stale
            fresh = (one.average_map - stale) / moved if abs(moved) > 1e-9 else 1.0
            return np.asarray((after[row] - before) * fresh)

        fixed = STATIC if STATIC in self.policies else "equal"
        draws = [
            [gain("oracle", float(hz), s) - gain(fixed, float(hz), s) for s in self.seeds]
            for hz in self.bandwidth_hz
        ]
        return replace(self, headroom_draws=np.array(draws))

    @classmethod
    def measured(cls, cells: Mapping[tuple[str, float, int], Sequence[float]]) -> Benchmark:
        """From (policy, bandwidth in Hz, seed) → the columns from ``map`` on.
        Raises :class:`KeyError` naming one that is missing."""
        policies = tuple(dict.fromkeys(policy for policy, _, _ in cells))
        sweep = sorted({bandwidth for _, bandwidth, _ in cells})
        seeds = tuple(sorted({seed for _, _, seed in cells}))
        grid = np.array([[[cells[p, b, s] for s in seeds] for b in sweep] for p in policies])
        return cls(policies, np.array(sweep), seeds, *np.moveaxis(grid, -1, 0))

    @classmethod
    def from_outcomes(cls, rows: Iterable[BenchmarkRow]) -> Benchmark:
        """From the rows of ``benchmark.csv``, as the benchmark makes them."""
        return cls.measured(
            {
                (o.policy, o.bandwidth_hz, o.seed): [getattr(o, name) for name in _MEASURED]
                for o in rows
            }
        )

    def frame(self) -> DataFrame:
        """One row a policy, bandwidth and seed, as a pandas table."""
        axes = np.meshgrid(self.policies, self.bandwidth_hz, self.seeds, indexing="ij")
        columns = dict(zip(("policy", "bandwidth_hz", "seed"), axes, strict=True))
        columns |= {name: getattr(self, name) for name in _MEASURED}
        return show.data_frame({name: column.ravel() for name, column in columns.items()})

    def _summary(self) -> dict[str, str]:
        means = 100 * self.judged.mean(axis=(1, 2)), 100 * self.regret.mean(axis=(1, 2))
        return {
            self.policies[k]: f"{means[0][k]:.2f} % mAP, {means[1][k]:.2f} points of regret"
            for k in self.by_regret()
        }

    def __repr__(self) -> str:
        return show.one_line("Benchmark", self._summary())

    def _repr_html_(self) -> str:
        sweep = f"mean of {len(self.bandwidth_hz)} bandwidths and {len(self.seeds)} seeds"
        return show.html_table(f"Benchmark, {sweep}", self._summary())

    def of(self, policy: str) -> int:
        """Row of a policy. Raises :class:`BadInput` for one that was not benchmarked."""
        if policy not in self.policies:
            raise BadInput(f"benchmark.csv has no policy {policy!r}: {', '.join(self.policies)}")
        return self.policies.index(policy)

    def by_regret(self) -> list[int]:
        """Rows of the policies by rising mean regret over the sweep."""
        return sorted(self.drawn, key=lambda k: float(self.regret[k].mean()))

    @property
    def updates(self) -> NDArray[np.bool_]:
        """Bandwidths at which any policy could send an update."""
        return np.asarray((self.upload_bytes > 0).any(axis=(0, 2)))


def rows_of(path: Path, made_by: str) -> list[dict[str, str]]:
    """The rows of a CSV file of a results folder. Raises :class:`BadInput` that names the verb it
    is ``made_by`` where it is missing or broken."""
    if not path.is_file():
        raise BadInput(f"{path} not found; run 'endedge {made_by}' first")
    rows = read_csv(path)
    if not rows:
        raise BadInput(f"{path} has no rows; run 'endedge {made_by}' again")
    return rows


def reader_of(path: Path, line: int, row: dict[str, str]) -> Callable[[str], float]:
    """Numbers of a ``row`` by column; :class:`BadInput` names the file and the line."""

    def number(name: str) -> float:
        try:
            value = float(row[name])
        except KeyError:
            raise BadInput(f"{path} lacks the column {name}") from None
        except (TypeError, ValueError):
            raise BadInput(f"{path} line {line}: {name} = {row[name]!r} is no number") from None
        if math.isinf(value):
            raise BadInput(f"{path} line {line}: {name} must be finite")
        return value

    return number


def _rounds(path: Path) -> list[BenchmarkRow]:
    """The rows of ``benchmark.csv``."""
    rounds = []
    for line, row in enumerate(rows_of(path, "bench"), start=2):
        number = reader_of(path, line, row)
        measured = {name: number(name) for name in _MEASURED}
        rounds.append(
            BenchmarkRow(
                bandwidth_hz=number("bandwidth_hz"),
                policy=str(row.get("policy") or ""),
                seed=int(number("seed")),
                frames=int(number("frames")),
                codec=str(row.get("codec") or ""),
                budget_bytes=int(number("budget_bytes")),
                **measured,
            )
        )
    return rounds


def _benchmark(path: Path, rounds: Iterable[BenchmarkRow]) -> Benchmark:
    try:
        return Benchmark.from_outcomes(rounds)
    except KeyError as error:
        raise BadInput(f"{path} lacks the row of {error}; run 'endedge bench' again") from None
