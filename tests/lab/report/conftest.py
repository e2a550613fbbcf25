"""A results folder from a made-up surface: nothing in it was measured, its codec says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from endedge.allocator import Joint, Kind, fit
from endedge.allocator.csv_files import rows_csv
from endedge.allocator.fitting.synthetic import sample_surface
from endedge.lab.benchmark.benchmark import (
    BenchmarkRow,
    allocation_csv,
    bandwidths,
    benchmark,
    planned,
    split_sweep,
)
from endedge.lab.config import Config
from tests.browser import Browser, browsing

FRAMES, BUDGETS = (16, 64, 256, 1024), (60_000, 250_000, 1_000_000)
KIND = Kind("share", "power", "weibull")


@pytest.fixture(scope="session")
def results_folder(once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """All files that a report needs, written once; copy the folder before changing it."""
    return once("results", _written)


def _written(folder: Path) -> None:
    joint = Joint(
        KIND, 0.111, start=0.10, gain=0.11, u0_bytes=6e5, data_s=0.9, m0_bytes=2.6e5, model_s=1.4
    )
    surface = sample_surface(joint, np.random.default_rng(1), frames=FRAMES, budgets=BUDGETS)
    surface = replace(
        surface,
        teacher_map=np.clip(np.asarray(joint.data(surface.upload_bytes)) + 0.03, 0, 1),
        seconds_teacher=surface.frames * 0.3,
        seconds_student=surface.frames * 0.2,
        seconds_pack=np.full(len(surface), 12.0),
    )
    curves = fit(surface, kinds=[KIND, Kind("share", "mmf4", "hill")], replicates=20)
    config = Config.model_validate(
        {
            "name": "synthetic",
            "seeds": [0, 1, 2],
            "data": {"source": "generated"},
            "weights": {"teacher": "large.pt", "student": "small.pt"},
            "uplink": {"frames": FRAMES},
            "downlink": {"budgets_bytes": BUDGETS},
            "teacher": {},
            "student": {},
            "link": {"bandwidths": 5},
        }
    )
    sweep, rules = bandwidths(surface, config.link), planned(config, surface)
    surface.write(folder / "surface.csv")
    curves.save(folder / "curves.json")
    steps = split_sweep(curves, config.link, rules, sweep)
    outcomes = benchmark(surface, curves, config.link, rules, sweep)
    (folder / "config.yaml").write_text(config.to_yaml())
    (folder / "allocation.csv").write_text(allocation_csv(steps))
    (folder / "benchmark.csv").write_text(rows_csv(BenchmarkRow, outcomes))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests; skips where there is none."""
    with browsing() as one:
        yield one
