"""A results folder read back: surface, curves, the sweep of splits and the benchmark, with the
statistics over seeds that report and figures share.

mAP stays in [0, 1] here; only text for people speaks of points (hundredths).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from endedge.allocator import (
    Allocation,
    Budget,
    Curves,
    Link,
    Points,
    Rules,
    Surface,
    allocate,
    fit,
)
from endedge.allocator import display as show
from endedge.allocator.display import Axis
from endedge.data.errors import BadInput
from endedge.lab.benchmark.benchmark import (
    BenchmarkSetup,
    bandwidths,
    outcomes,
    planned,
    split_sweep,
)
from endedge.lab.benchmark.outcomes import Benchmark, Spread, reader_of, rows_of, spread
from endedge.lab.benchmark.robustness import Trial, read_trials
from endedge.lab.benchmark.table import Table
from endedge.lab.config import Config, LinkConfig, config_of
from endedge.lab.latency_table import Row, read_latencies
from endedge.lab.report.class_table import ClassRow, read_classes
from endedge.lab.report.examples import read_examples

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Axis", "Cost", "Results", "Round", "Step", "judged_name"]

Floats: TypeAlias = NDArray[np.float64]


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

    @classmethod
    def of(cls, bandwidth_hz: float, a: Allocation) -> Step:
        """An answer of the allocator."""
        return cls(
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

    @property
    def uplink_share(self) -> float:
        """The uplink's share of the bandwidth; what neither direction uses is missing to 1."""
        return self.uplink_hz / self.bandwidth_hz

    @property
    def downlink_share(self) -> float:
        """The downlink's share of the bandwidth."""
        return self.downlink_hz / self.bandwidth_hz


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


@dataclass(frozen=True)
class ClassChange:
    """AP of one class before and after the largest update, values (seeds,) in [0, 1]."""

    name: str
    objects: int
    before: Floats
    after: Floats

    @property
    def change(self) -> Spread:
        return spread(self.after - self.before)


@dataclass(frozen=True, repr=False)
class Results:
    """Everything that a report shows: of a results folder, whose ``config`` there is, or of a
    shipped ``table``."""

    config: Config | None
    surface: Surface
    curves: Curves
    steps: tuple[Step, ...]
    benchmark: Benchmark
    examples: dict[str, Any] | None = None
    trials: tuple[Trial, ...] = ()  # of the studies that there are
    latencies: tuple[Row, ...] = ()  # of `endedge latency --into`
    class_rows: tuple[ClassRow, ...] = ()
    table: Table | None = None

    @classmethod
    def read(cls, folder: Path, config: Config) -> Self:
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
        trials, timed = read_trials(folder), tuple(read_latencies(folder))
        classes = tuple(read_classes(folder))
        return cls(config, surface, curves, steps, bench, examples, trials, timed, classes)

    @classmethod
    def find(cls, where: str | Path, changes: Sequence[str] = ()) -> Self:
        """Those of a results folder, or of a shipped table by its name, the latter with
        ``changes`` to its link.

        Raises :class:`BadInput` for neither, and as :meth:`read` does.
        """
        folder = Path(where)
        if not folder.is_dir():
            return cls.of(Table.load(where, changes))
        return cls.read(folder, config_of(folder))

    @classmethod
    def of(cls, table: Table) -> Self:
        """A shipped table, its curves fitted to all cells and every policy played on it."""
        surface, link = table.surface, table.link
        curves = fit(surface)
        sweep = bandwidths(table.cells, link, curves)
        setup = BenchmarkSetup(curves, link, table.rules, sweep, Points.of(table.cells))
        answers = split_sweep(curves, link, table.rules, sweep)
        steps = tuple(Step.of(hz, a) for hz, a in zip(sweep, answers, strict=True))
        played = outcomes(setup, table.cells, setup.decisions())
        bench = Benchmark.from_outcomes(played)
        if table.replicates is not None:
            bench = bench.with_frames(played, table.cells, table.replicates)
        return cls(None, surface, curves, steps, bench, table=table)

    @property
    def name(self) -> str:
        return self.config.name if self.config else self._table.name

    @property
    def channel(self) -> LinkConfig:
        """The link, without a bandwidth."""
        return self.config.link if self.config else self._table.link

    @property
    def about(self) -> Mapping[str, Any]:
        """What a shipped table says of itself."""
        return self.table.about if self.table else {}

    @property
    def _table(self) -> Table:
        assert self.table is not None, "results without a configuration are those of a table"
        return self.table

    def allocations(self) -> DataFrame:
        """``allocation.csv`` as a pandas table: the fitted allocator over the sweep."""
        return show.data_frame([vars(step) for step in self.steps])

    @property
    def rules(self) -> Rules:
        """What the stages planned with: the link's, and the bytes that were measured as limits."""
        return planned(self.config, self.surface) if self.config else self._table.rules

    def link(self, bandwidth_hz: float) -> Link:
        """The link at a bandwidth."""
        return self.channel.at(bandwidth_hz)

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
            low, high = self.curves.interval(up, down)
            ends = (float(self.curves.predict(up, down)), float(low[0]), float(high[0]))
            found.append(tuple(budget.objective(end, up, down) for end in ends))
        mean, low, high = np.array(found).T
        return mean, low, high

    @property
    def sending(self) -> list[Step]:
        """The steps of the sweep at which the fitted allocator sends an update."""
        return [s for s in self.steps if s.regime != "none"]

    def split_at(self, bandwidth_hz: float) -> Step:
        """The fitted allocator at a bandwidth that the sweep may not have."""
        return Step.of(bandwidth_hz, self.allocate(bandwidth_hz))

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
    def classes(self) -> list[ClassChange]:
        """Per-class AP of the largest round (most frames, then bytes), the most changed first;
        empty where it was not recorded."""
        if not self.class_rows:
            return []
        most = max((r.frames, r.budget_bytes) for r in self.class_rows)
        seen: dict[str, list[ClassRow]] = {}
        for row in self.class_rows:
            if (row.frames, row.budget_bytes) == most:
                seen.setdefault(row.name, []).append(row)
        found = [
            ClassChange(
                name,
                rows[0].objects,
                np.array([r.ap_before for r in rows]),
                np.array([r.ap_after for r in rows]),
            )
            for name, rows in seen.items()
        ]
        return sorted(found, key=lambda c: -float(c.change.mean))

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
    """The name of the quantity that policies are judged by, for titles and axes."""
    return "mAP over the period" if results.benchmark.over_the_period else "mAP"


def _steps(path: Path) -> list[Step]:
    steps = []
    for line, row in enumerate(rows_of(path, "bench"), start=2):
        number = reader_of(path, line, row)
        names = [n for n in Step.__dataclass_fields__ if n not in ("frames", "regime")]
        values = {name: number(name) for name in names}
        regime = str(row.get("regime") or "")
        steps.append(Step(**values, frames=int(number("frames")), regime=regime))
    return steps
