"""Choosing the next cells: the knowledge gradient against closed forms and sampling, the loop on
a made-up surface."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from endedge.allocator import Link
from endedge.data.errors import BadInput
from endedge.lab.sweep.adaptive import Outlook, adaptive, first_cells, knowledge_gradient, options
from endedge.lab.sweep.cell import Cell

CODEC = "jpeg-q75-64"


def test_knowledge_gradient_of_two_choices_in_closed_form() -> None:
    # E[max(0, d + s·Z)] = d·Φ(d/s) + s·φ(d/s) for choices 0 and d; minus max(0, d).
    for d, s in ((0.0, 1.0), (-0.5, 0.7), (0.3, 0.2)):
        phi = math.exp(-((d / s) ** 2) / 2) / math.sqrt(2 * math.pi)
        cdf = 0.5 * (1 + math.erf(d / s / math.sqrt(2)))
        found = knowledge_gradient(np.array([0.0, d]), np.array([[0.0], [s]]))
        assert found == pytest.approx(d * cdf + s * phi - max(0.0, d), abs=0.01 * s)


def test_knowledge_gradient_against_sampling() -> None:
    rng = np.random.default_rng(0)
    mean, change = rng.normal(size=5), rng.normal(size=(5, 3))
    z = rng.normal(size=400_000)
    sampled = [(mean[:, None] + change[:, [i]] * z).max(0).mean() - mean.max() for i in range(3)]
    assert knowledge_gradient(mean, change) == pytest.approx(sampled, abs=0.01)


@pytest.mark.parametrize(
    ("change", "worth"),
    [
        ([[0.0], [0.0]], 0.0),  # it says nothing of either choice
        ([[1.0], [1.0]], 0.0),  # it moves both alike: the choice stays
    ],
)
def test_what_cannot_change_the_choice_is_worth_nothing(
    change: list[list[float]], worth: float
) -> None:
    assert knowledge_gradient(np.array([0.2, 0.5]), np.array(change)) == pytest.approx(worth)


def test_width_is_the_quantile_of_the_regret() -> None:
    points = (Cell(0, 1, CODEC, 1), Cell(0, 2, CODEC, 1))
    draws = np.array([[0.5, 0.3]] * 8 + [[0.5, 0.9]] * 2)  # the first has the better mean
    outlook = Outlook(points, draws, np.array([[True, True], [True, False]]), 0.01)
    assert outlook.width == pytest.approx((np.quantile([0.0] * 8 + [0.4] * 2, 0.9) + 0.0) / 2)
    assert outlook.worth()[1] > outlook.worth()[0] >= 0


def test_the_first_cells_are_the_least_that_can_be_fitted() -> None:
    uplink = [(n, CODEC) for n in (8, 16, 32, 64)] + [(n, "webp-q30-64") for n in (8, 16)]
    cells = first_cells([3, 4], uplink, [10, 20, 30, 40, 50])
    assert {c.seed for c in cells} == {3}
    assert {c.frames for c in cells if c.codec == CODEC} == {8, 16, 64}
    assert {c.frames for c in cells if c.codec != CODEC} == {8, 16}
    assert {c.budget_bytes for c in cells} == {10, 30, 50}
    assert len(cells) == len(set(cells)) == 3 * 3 + 2 * 3


def test_a_trunk_is_paid_once_and_worth_counts_for_a_second_of_work() -> None:
    grid = [Cell(0, n, CODEC, b) for n in (1, 2) for b in (10, 20)]
    draws = np.random.default_rng(0).normal(0.5, 0.01, (200, 4))
    outlook = Outlook(tuple(grid), draws, np.ones((1, 4), bool), 0.005)
    # Independent and alike, so price decides: what shares the measured trunk, then the other's.
    chosen = options(grid, [grid[0]], outlook, lambda cell: 100.0, 1.0, 3)
    assert chosen[0] == grid[1]
    assert {c.frames for c in chosen[1:]} == {2}
    assert options(grid, grid, outlook, lambda cell: 1.0, 1.0, 3) == []


def _truth(cell: Cell) -> float:
    data = 0.45 - 0.25 * math.pow(1 + cell.frames / 10, -0.8)
    return 0.2 + (data - 0.2) * (1 - math.exp(-cell.budget_bytes / 12_000))


def test_it_stops_early_with_the_allocation_of_the_full_grid() -> None:
    cells = [
        Cell(seed, n, CODEC, b)
        for seed in (0, 1)
        for n in (8, 16, 32, 64, 128, 256)
        for b in (10_000, 15_000, 20_000, 30_000, 60_000)
    ]
    noise = np.random.default_rng(1).normal(0, 0.003, len(cells))
    measured: list[int] = []

    def measure(asked: Sequence[Cell]) -> list[dict[str, Any]]:
        measured.append(len(asked))
        return [
            {
                **asdict(c),
                "upload_bytes": 2_700 * c.frames,
                "update_bytes": c.budget_bytes,
                "map": _truth(c) + noise[cells.index(c)],
                "m0": 0.2,
            }
            for c in asked
        ]

    links = [Link(hz, 60.0) for hz in (3_000.0, 8_000.0, 20_000.0, 60_000.0)]
    asked = adaptive(
        cells,
        measure,
        {c: 2_700.0 * c.frames for c in cells},
        links,
        width=0.02,
        trunk_seconds=lambda c: float(c.frames),
        leaf_seconds=lambda: 3.0,
        at_a_time=2,
    )
    assert len(asked) == len(set(asked)) == measured[-1] < len(cells) / 2
    outlook = Outlook.of(
        measure(asked),
        [c for c in cells if c.seed == 0],
        {c: 2_700.0 * c.frames for c in cells},
        links,
    )
    for fits in outlook.fits:
        at = np.flatnonzero(fits)
        chosen = at[outlook.draws.mean(0)[at].argmax()]
        best = max(_truth(outlook.points[i]) for i in at)
        assert best - _truth(outlook.points[chosen]) < 0.02

    with pytest.raises(BadInput, match="must be > 0"):
        adaptive(
            cells,
            measure,
            {},
            links,
            width=0.0,
            trunk_seconds=lambda c: 1.0,
            leaf_seconds=lambda: 1.0,
        )
