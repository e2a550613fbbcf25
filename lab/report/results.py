"""A results folder read back: surface, curves, the sweep of splits and the benchmark, with the
statistics over seeds that report and figures share.

mAP stays in [0, 1] here; only text for people speaks of points (hundredths).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from endedge.allocator import Allocation, Budget, Curves, Link, Rules, Surface, allocate
from endedge.allocator import display as show
from endedge.allocator.display import Axis
from endedge.data.errors import BadInput
from endedge.lab.benchmark.benchmark import Outcome, planned
from endedge.lab.benchmark.robustness import Trial, read_trials
from endedge.lab.config import Config
from endedge.lab.report.examples import read_examples

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = [
    "HINDSIGHT",
    "STATIC",
    "Axis",
    "Benchmark",
    "Cost",
    "Results",
    "Round",
    "Spread",
    "Step",
    "judged_name",
    "spread",
]

Floats: TypeAlias = NDArray[np.float64]

_MAX_FILE_BYTES = 64 * 2**20
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
# Not a policy but a yardstick: the one share that was best on the other seeds.
STATIC = "static-other-seeds"


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


@dataclass(frozen=True)
class Step:
    """The fitted allocator at one bandwidth: a row of ``allocation.csv``."""

    bandwidth_hz: float
    uplink_hz: float
    downlink_hz: float
    upload_bytes: float
    update_bytes: float
    frames: int
    predicted_map: float
    low: float
    high: float
    upload_value: float
    update_value: float
    regime: str

    @property
    def uplink_share(self) -> float:
        """Of the bandwidth; what neither direction uses is missing to 1."""
        return self.uplink_hz / self.bandwidth_hz

    @property
    def downlink_share(self) -> float:
        """Of the bandwidth."""
        return self.downlink_hz / self.bandwidth_hz


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

    @classmethod
    def read(cls, path: Path) -> Benchmark:
        """Read ``benchmark.csv``. Raises :class:`BadInput` for a missing or broken one."""
        return _benchmark(path)

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
    def from_outcomes(cls, rows: Iterable[Outcome]) -> Benchmark:
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
            self.policies[k]: f"{means[0][k]:.2f} mAP, {means[1][k]:.2f} points of regret"
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


@dataclass(frozen=True)
class Round:
    """What one upload size gave: mAP before, of the student at the largest budget, of the
    adapted teacher, values (seeds,); ``held_back`` counts over all budgets."""

    frames: int
    codec: str
    upload_bytes: float
    budget_bytes: float
    m0: Floats
    student: Floats
    teacher: Floats
    edge_s: float  # mean time of fine-tuning, distilling and packing
    held_back: int  # updates that the edge did not send

    @property
    def gain(self) -> Floats:
        return self.student - self.m0


@dataclass(frozen=True)
class Cost:
    """What the fitted allocator's updates took and brought at one bandwidth, as executed: bytes
    of one update each way, seconds of the edge, and the gain over no update (mAP, over seeds)."""

    bandwidth_hz: float
    upload_bytes: float
    update_bytes: float
    edge_s: float
    gain: Spread

    @property
    def points_per_mb(self) -> float:
        """Points of mAP for a megabyte of traffic, both ways together."""
        return 100 * float(self.gain.mean) / ((self.upload_bytes + self.update_bytes) / 1e6)


@dataclass(frozen=True, repr=False)
class Results:
    """Everything that a report shows."""

    config: Config
    surface: Surface
    curves: Curves
    steps: tuple[Step, ...]
    benchmark: Benchmark
    examples: dict[str, Any] | None = None
    trials: tuple[Trial, ...] = ()  # of the studies that there are

    @classmethod
    def read(cls, folder: Path, config: Config) -> Results:
        """Read a results folder. Raises :class:`BadInput` naming the file that is missing,
        broken, or made from another surface, and the command that makes it."""
        surface = Surface.read(folder / "surface.csv")
        curves = Curves.load(folder / "curves.json")
        fitted_to = curves.provenance.get("surface_sha256", surface.sha256())
        if fitted_to != surface.sha256():
            raise BadInput(
                f"{folder / 'curves.json'} was fitted to another surface than surface.csv; "
                "run 'endedge fit' and 'endedge bench' again"
            )
        steps = tuple(sorted(_steps(folder / "allocation.csv"), key=lambda s: s.bandwidth_hz))
        bench = Benchmark.read(folder / "benchmark.csv")
        examples = read_examples(folder / "examples.json")
        return cls(config, surface, curves, steps, bench, examples, read_trials(folder))

    def allocations(self) -> DataFrame:
        """``allocation.csv`` as a pandas table: the fitted allocator over the sweep."""
        return show.data_frame([vars(step) for step in self.steps])

    def plot(self, what: str) -> Figure:
        """A figure of :mod:`~endedge.lab.report.paper_figures`: surface, curves, share, regret…"""
        from endedge.lab.report.paper_figures import draw

        return draw(self, what)

    def _summary(self) -> dict[str, str]:
        from endedge.lab.report.captions import contour, policies, share, surface

        facts = {"surface": surface, "best split": contour, "shares": share, "policies": policies}
        return {name: say(self) for name, say in facts.items()}

    def __repr__(self) -> str:
        return show.one_line(f"Results of {self.config.name}", self._summary())

    def _repr_html_(self) -> str:
        return show.html_table(f"Results of {self.config.name}", self._summary())

    @property
    def rules(self) -> Rules:
        """What the stages planned with: the link's, and the bytes that were measured as limits."""
        return planned(self.config, self.surface)

    def link(self, bandwidth_hz: float) -> Link:
        """The configuration's link at a bandwidth."""
        return self.config.link.at(bandwidth_hz)

    def allocate(self, bandwidth_hz: float) -> Allocation:
        """The best split of this folder's link, as ``endedge allocate DIR`` gives it."""
        return allocate(self.curves, self.link(bandwidth_hz), self.rules)

    @cached_property
    def predicted(self) -> tuple[Floats, Floats, Floats]:
        """What the curves say of what the fitted allocator executed at each bandwidth, in the
        judged quantity: mean, low and high of the 90 % interval; what is in use where nothing was
        sent. Shapes (bandwidths,)."""
        bench = self.benchmark
        row, found = bench.of("fitted"), []
        for k, hz in enumerate(bench.bandwidth_hz):
            up, down = bench.upload_bytes[row, k].mean(), bench.update_bytes[row, k].mean()
            budget = Budget.of(self.link(float(hz)), self.rules, self.curves)
            if up == 0:
                found.append((budget.stale,) * 3)
                continue
            fresh = budget.fresh - budget.fresh_up * up - budget.fresh_down * down
            low, high = self.curves.interval(up, down)
            ends = (float(self.curves.predict(up, down)), float(low[0]), float(high[0]))
            found.append(tuple(budget.stale + (end - budget.stale) * fresh for end in ends))
        mean, low, high = np.array(found).T
        return mean, low, high

    @property
    def sending(self) -> list[Step]:
        """The steps of the sweep at which the fitted allocator sends an update."""
        return [s for s in self.steps if s.regime != "none"]

    def split_at(self, bandwidth_hz: float) -> Step:
        """The fitted allocator at a bandwidth that the sweep may not have."""
        a = self.allocate(bandwidth_hz)
        return Step(
            bandwidth_hz,
            a.uplink_hz,
            a.downlink_hz,
            a.upload_bytes,
            a.update_bytes,
            a.frames,
            a.predicted_map,
            *a.interval,
            a.upload_value,
            a.update_value,
            a.regime,
        )

    def sizes(self, axis: Axis, n: int = 120) -> Floats:
        """``n`` log-spaced sizes in bytes over what was measured along one axis."""
        return show.sizes(self.curves, axis, n)

    def along(self, axis: Axis, sizes: Floats) -> tuple[Floats, Floats]:
        """(U, M) for ``sizes`` along one axis, the other at its largest."""
        return show.along(self.curves, axis, sizes)

    def fitted_grid(self, n: int) -> tuple[Floats, Floats, Floats]:
        """The fitted surface: U (n,), M (n,), mAP (n, n) with one row a U."""
        u, m = self.sizes("data", n), self.sizes("model", n)
        return u, m, self.curves.predict(u[:, None], m[None, :])

    @cached_property
    def costs(self) -> list[Cost]:
        """One entry a bandwidth of the sweep at which the fitted allocator sent an update."""
        bench = self.benchmark
        fitted, before = bench.of("fitted"), bench.of("no-update")
        found = []
        for k, bandwidth in enumerate(bench.bandwidth_hz):
            up, down = bench.upload_bytes[fitted, k].mean(), bench.update_bytes[fitted, k].mean()
            if up > 0:
                executed = min(self.rounds, key=lambda r: abs(r.upload_bytes - up))
                gain = spread(bench.judged[fitted, k] - bench.judged[before, k])
                found.append(Cost(float(bandwidth), float(up), float(down), executed.edge_s, gain))
        return found

    @cached_property
    def rounds(self) -> list[Round]:
        """One entry an upload size and codec, cheapest first."""
        s, found = self.surface, []
        for frames, codec in dict.fromkeys(zip(s.frames, s.codec, strict=True)):
            here = (s.frames == frames) & (s.codec == codec)
            budget = s.budget_bytes[here].max()
            cells = s.select(here & (s.budget_bytes == budget))
            seconds = cells.seconds_teacher + cells.seconds_student + cells.seconds_pack
            found.append(
                Round(
                    int(frames),
                    str(codec),
                    float(cells.upload_bytes.mean()),
                    float(budget),
                    cells.m0,
                    cells.map,
                    cells.teacher_map,
                    float(seconds.mean()),
                    int((s.sent[here] == 0).sum()),
                )
            )
        return sorted(found, key=lambda r: r.upload_bytes)


def judged_name(results: Results) -> str:
    """Of the quantity that policies are judged by, for titles and axes."""
    return "mAP over the period" if results.benchmark.over_the_period else "mAP"


def _rows(path: Path, made_by: str) -> list[dict[str, str]]:
    if not path.is_file():
        raise BadInput(f"{path} not found; run 'endedge {made_by}' first")
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise BadInput(f"{path} is larger than {_MAX_FILE_BYTES} bytes; not a results file")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path} is not a CSV file: {error}") from None
    if not rows:
        raise BadInput(f"{path} has no rows; run 'endedge {made_by}' again")
    return rows


def _reader(path: Path, line: int, row: dict[str, str]) -> Callable[[str], float]:
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


def _steps(path: Path) -> list[Step]:
    steps = []
    for line, row in enumerate(_rows(path, "bench"), start=2):
        number = _reader(path, line, row)
        names = [n for n in Step.__dataclass_fields__ if n not in ("frames", "regime")]
        values = {name: number(name) for name in names}
        regime = str(row.get("regime") or "")
        steps.append(Step(**values, frames=int(number("frames")), regime=regime))
    return steps


def _benchmark(path: Path) -> Benchmark:
    rows = _rows(path, "bench")
    cells: dict[tuple[str, float, int], list[float]] = {}
    for line, row in enumerate(rows, start=2):
        number = _reader(path, line, row)
        key = (str(row.get("policy") or ""), number("bandwidth_hz"), int(number("seed")))
        cells[key] = [number(name) for name in _MEASURED]
    try:
        return Benchmark.measured(cells)
    except KeyError as error:
        raise BadInput(f"{path} lacks the row of {error}; run 'endedge bench' again") from None
