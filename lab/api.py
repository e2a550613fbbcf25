"""The main job from Python, for notebooks and scripts::

import endedge.allocator
import endedge.lab

surface = endedge.lab.measure("demo", {"seeds": [0]}, out="runs/demo")
curves = endedge.allocator.fit(surface)
curves.plot(surface)
curves.allocate(bandwidth_hz=50_000, period_s=60)
endedge.lab.bench(surface, curves, period_s=60).frame()
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from endedge.allocator import Curves, Points, Rules, Surface
from endedge.data.errors import BadInput
from endedge.lab import pipeline
from endedge.lab.benchmark import benchmark
from endedge.lab.benchmark.outcomes import Benchmark
from endedge.lab.cli.progress import Progress
from endedge.lab.config import Config, LinkConfig, config_of, load_config
from endedge.lab.report.notebook import Results

__all__ = ["bench", "load", "measure", "run"]


def measure(
    config: str | Path | Config, changes: Mapping[str, Any] | None = None, *, out: str | Path
) -> Surface:
    """Measure the grid of ``config`` (a YAML file, a shipped name, or a :class:`Config`) with
    ``changes`` (``{"uplink.frames": [8, 32]}``) into the folder ``out``; what is there already
    is not measured again.

    One process, unless ``workers`` is among the changes: others start by importing the script
    that calls this, which must then be guarded by ``if __name__ == "__main__"``.
    Raises :class:`BadInput` as the command line does.
    """
    with Progress() as progress:
        return Surface.read(pipeline.measure_stage(_config(config, changes), Path(out), progress))


def run(
    config: str | Path | Config, changes: Mapping[str, Any] | None = None, *, out: str | Path
) -> Results:
    """The whole main job, as ``endedge run``: also curves, splits, benchmark and the report."""
    with Progress() as progress:
        pipeline.run(_config(config, changes), Path(out), progress)
    return load(out)


def load(folder: str | Path) -> Results:
    """A finished results folder. Raises :class:`BadInput` naming what is missing."""
    folder = Path(folder)
    return Results.read(folder, config_of(folder))


def bench(
    surface: Surface,
    curves: Curves,
    *,
    period_s: float = 60.0,
    bandwidths_hz: Sequence[float] | None = None,
    up_bit_per_s_per_hz: float = 2.55,
    down_bit_per_s_per_hz: float = 5.0,
    rules: Rules | None = None,
) -> Benchmark:
    """Every registered policy, executed on the measured rounds at every bandwidth (default: 12,
    from just too little to everything) and for every seed.

    Args:
        surface: measured cells; its operating points are what can be executed.
        curves: fitted to it, for the policies that ask for them.
        period_s: between two updates, > 0.
        bandwidths_hz: the sweep.
        up_bit_per_s_per_hz: spectral efficiency of the uplink, > 0.
        down_bit_per_s_per_hz: of the downlink, > 0.
        rules: schedule and times (None: pipelined, nothing takes time), within measured bytes.

    Raises:
        BadInput: for a value outside its range, or a policy whose answer the link cannot carry.
    """
    link = LinkConfig(
        period_s=period_s,
        up_bit_per_s_per_hz=up_bit_per_s_per_hz,
        down_bit_per_s_per_hz=down_bit_per_s_per_hz,
    )
    sweep = tuple(bandwidths_hz or benchmark.bandwidths(surface, link))
    possible = benchmark.executable(rules or Rules(), Points.of(surface))
    return Benchmark.from_outcomes(benchmark.benchmark(surface, curves, link, possible, sweep))


def _config(config: str | Path | Config, changes: Mapping[str, Any] | None) -> Config:
    changes = {"workers": 1, **(changes or {})}
    if isinstance(config, Config):
        if set(changes) != {"workers"}:
            raise BadInput("changes apply to a file or a shipped name; change the Config itself")
        return config
    # JSON is YAML, so every value reads back as what it was.
    return load_config(config, [f"{key}={json.dumps(value)}" for key, value in changes.items()])
