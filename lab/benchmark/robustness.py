"""How much of the benchmark rests on what: cells the fit never saw, curves that are wrong, other
links. Every study is measured rounds, and one CSV file of the results folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from endedge.allocator import Curves, Points, Surface, checkerboard, fit
from endedge.allocator.csv_files import read_rows
from endedge.allocator.fitting.synthetic import perturbed
from endedge.data.errors import BadInput
from endedge.lab.benchmark.benchmark import (
    BenchmarkRow,
    BenchmarkSetup,
    Hindsight,
    bandwidths,
    captured,
    executable,
    outcomes,
    rules_of,
    sendable,
)
from endedge.lab.config import Config, LinkConfig

__all__ = [
    "FILES",
    "Means",
    "Trial",
    "held_out",
    "injected_errors",
    "mean_by",
    "read_trials",
    "scenarios",
]

FILES = ("heldout.csv", "errors.csv", "scenarios.csv")

Means: TypeAlias = dict[tuple[str, str, str], float]  # by (study, arm, policy)

ERROR_SIZES = (0.05, 0.1, 0.2)
_REPLICATES = 50


@dataclass(frozen=True)
class Trial(BenchmarkRow):
    """An outcome in one ``arm`` of a ``study``; ``draw`` numbers random repetitions."""

    study: str
    arm: str
    draw: int


def held_out(
    surface: Surface,
    link: LinkConfig,
    sweep: Sequence[float],
    say: Callable[[str], None],
    fewest_frames: int = 0,
) -> list[Trial]:
    """Curves fitted to some cells decide among others that they never saw.

    ``points``: every other operating point along both axes decides about the rest, and the other
    way round. ``seeds``: all seeds but one decide about that one, so the noise that was fitted is
    not the noise that is met. A part too small for curves is left out.

    Args:
        surface: all measured cells.
        link: without a bandwidth; these are the ``sweep`` (Hz).
        sweep: bandwidths (Hz).
        say: hears which part is at work.
        fewest_frames: as of :func:`sendable`.
    """
    half = checkerboard(surface)
    arms = [("points", "even → odd", half, ~half), ("points", "odd → even", ~half, half)]
    for seed in np.unique(surface.seed):
        one = surface.seed == seed
        if not one.all():
            arms.append(("seeds", f"others → {seed:.0f}", ~one, one))
    trials = []
    for study, arm, fitted_to, rest in arms:
        if not rest.any():
            continue
        say(f"held-out {study}, {arm}")
        try:
            curves = fit(surface.select(fitted_to), replicates=_REPLICATES)
        except BadInput:
            continue
        cells = surface.select(rest)
        setup = _setup(cells, curves, link, sweep, fewest_frames)
        for o in outcomes(setup, cells, setup.decisions()):
            trials.append(Trial(**vars(o), study=study, arm=arm, draw=0))
    return trials


def injected_errors(
    setup: BenchmarkSetup, surface: Surface, draws: int, say: Callable[[str], None]
) -> list[Trial]:
    """The fitted allocators with curves whose parameters are wrong by about 5, 10 and 20 % (each
    by its own random factor), beside the curves as they are (``0 %``)."""
    names, hindsight = ("fitted", "fitted-bytes"), Hindsight.of(setup, surface)
    trials = []
    for size in (0.0, *ERROR_SIZES):
        say(f"curves wrong by {size:.0%}")
        for draw in range(draws if size else 1):
            rng = np.random.default_rng([draw, round(1000 * size)])
            wrong = replace(setup, curves=perturbed(setup.curves, size, rng))
            for o in outcomes(wrong, surface, wrong.decisions(names), hindsight):
                trials.append(Trial(**vars(o), study="error", arm=f"{size:.0%}", draw=draw))
    return trials


def scenarios(
    config: Config, surface: Surface, curves: Curves, say: Callable[[str], None]
) -> list[Trial]:
    """Every policy on other links: each value of each of the configuration's ``scenarios``, the
    rest as in ``link``, at the same bandwidths (unless it is these that change)."""
    usual = bandwidths(captured(surface, config.link), config.link, curves)
    trials = []
    for key, values in config.scenarios.items():
        for value in values:
            say(f"scenario {key} = {value}")
            link = config.link_with(key, value)
            sweep = bandwidths(surface, link, curves) if key.startswith("bandwidth") else usual
            cells = captured(surface, link)
            fewest = config.fewest_frames
            setup = _setup(cells, curves, link, sweep, fewest)
            for o in outcomes(setup, cells, setup.decisions()):
                trials.append(Trial(**vars(o), study=key, arm=str(value), draw=0))
    return trials


def read_trials(folder: Path) -> tuple[Trial, ...]:
    """The trials of all studies that ``folder`` holds. Raises :class:`BadInput` for a file that
    is not one."""
    return tuple(t for name in FILES for t in read_rows(Trial, folder / name, "bench"))


def mean_by(trials: Sequence[Trial], value: Callable[[Trial], float]) -> Means:
    """Mean of ``value`` for each (study, arm, policy)."""
    groups: dict[tuple[str, str, str], list[float]] = {}
    for t in trials:
        groups.setdefault((t.study, t.arm, t.policy), []).append(value(t))
    return {key: float(np.mean(values)) for key, values in groups.items()}


def _setup(
    cells: Surface, curves: Curves, link: LinkConfig, sweep: Sequence[float], fewest_frames: int
) -> BenchmarkSetup:
    points = Points.of(sendable(cells, fewest_frames))
    rules = executable(rules_of(link, cells), points)
    return BenchmarkSetup(curves, link, rules, tuple(sweep), points)
