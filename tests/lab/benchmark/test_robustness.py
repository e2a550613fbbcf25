"""Studies of the benchmark on a made-up surface: held-out cells, wrong curves, other links."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from endedge.allocator import Curves, Joint, Kind, Points, Surface, fit
from endedge.allocator.fitting.synthetic import sample_surface
from endedge.data.errors import BadInput
from endedge.lab.benchmark import robustness
from endedge.lab.benchmark.benchmark import (
    BenchmarkSetup,
    bandwidths,
    executable,
    outcomes,
    rules_of,
)
from endedge.lab.benchmark.robustness import held_out, injected_errors, mean_by, scenarios
from endedge.lab.config import Config

FRAMES, BUDGETS = (16, 64, 256, 512, 1024), (60_000, 250_000, 1_000_000)
KIND = Kind("share", "power", "weibull")
TRUTH = Joint(KIND, 0.11, 0.10, 0.11, 6e5, 0.9, 2.6e5, 1.4)


def quiet(message: str) -> None:
    pass


def config(**keys: Any) -> Config:
    return Config.model_validate(
        {
            "name": "made-up",
            "seeds": [0, 1, 2],
            "data": {"source": "generated"},
            "weights": {"teacher": "large.pt", "student": "small.pt"},
            "uplink": {"frames": FRAMES},
            "downlink": {"budgets_bytes": BUDGETS},
            "teacher": {},
            "student": {},
            "link": {"bandwidths": 6},
            **keys,
        }
    )


@pytest.fixture(scope="module")
def surface() -> Surface:
    return sample_surface(TRUTH, np.random.default_rng(1), frames=FRAMES, budgets=BUDGETS)


@pytest.fixture(scope="module")
def curves(surface: Surface) -> Curves:
    return fit(surface, kinds=[KIND], replicates=20)


def test_held_out_cells_were_never_seen(surface: Surface, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Surface] = []

    def watched(part: Surface, replicates: int) -> Curves:
        seen.append(part)
        return fit(part, kinds=[KIND], replicates=replicates)

    monkeypatch.setattr(robustness, "fit", watched)
    cfg = config()
    sweep = bandwidths(surface, cfg.link)
    trials = held_out(surface, cfg.link, sweep, quiet)
    arms = list(dict.fromkeys((t.study, t.arm) for t in trials))
    assert [study for study, _ in arms] == ["points"] * 2 + ["seeds"] * 3
    assert len(seen) == len(arms)
    for (study, arm), part in zip(arms, seen, strict=True):
        fitted = set(zip(part.seed, part.frames, part.budget_bytes, strict=True))
        executed = [t for t in trials if (t.study, t.arm) == (study, arm) and t.frames]
        assert executed
        assert all((t.seed, t.frames, t.budget_bytes) not in fitted for t in executed)
    regret = mean_by(trials, lambda t: t.regret)
    for study, arm in arms:
        assert regret[study, arm, "oracle"] == 0
        assert regret[study, arm, "fitted"] < regret[study, arm, "no-update"]
    # One seed cannot be left out of one.
    alone = surface.select(surface.seed == 0)
    assert {t.study for t in held_out(alone, cfg.link, sweep, quiet)} == {"points"}


def test_half_of_a_small_grid_is_no_grid(surface: Surface) -> None:
    small = surface.select((surface.frames < 1000) & (surface.budget_bytes < 1e6))
    small = small.select(small.seed == 0)  # 4 x 2 points, 4 in each half
    cfg = config()
    assert held_out(small, cfg.link, bandwidths(small, cfg.link), quiet) == []


def test_wrong_curves(surface: Surface, curves: Curves) -> None:
    cfg = config()
    points, sweep = Points.of(surface), bandwidths(surface, cfg.link)
    rules = executable(rules_of(cfg.link, surface), points)
    setup = BenchmarkSetup(curves, cfg.link, rules, sweep, points)
    trials = injected_errors(setup, surface, 4, quiet)
    lost = mean_by(trials, lambda t: t.regret)
    as_they_are = outcomes(setup, surface, setup.decisions(["fitted"]))
    mine = np.mean([o.regret for o in as_they_are if o.policy == "fitted"])
    assert lost["error", "0%", "fitted"] == pytest.approx(mine)
    assert lost["error", "20%", "fitted-bytes"] >= 0
    assert {t.arm for t in trials} == {"0%", "5%", "10%", "20%"}
    assert {t.draw for t in trials if t.arm == "20%"} == {0, 1, 2, 3}
    assert {t.draw for t in trials if t.arm == "0%"} == {0}
    again = injected_errors(setup, surface, 4, quiet)
    assert again == trials  # seeded


def test_other_links(surface: Surface, curves: Curves) -> None:
    cfg = config(
        scenarios={
            "period_s": [30, 60, 120],
            "captured_frames": [64],
            "edge_s": [0, 70],
            "down_bit_per_s_per_hz": [50],
            "schedule": ["sequential"],
            "bandwidth_high_hz": [1e4],
        }
    )
    trials = scenarios(cfg, surface, curves, quiet)
    best = mean_by([t for t in trials if t.policy == "oracle"], lambda t: t.average_map)

    def oracle(study: str, value: object) -> float:
        return best[study, str(value), "oracle"]

    # Twice the period carries twice the bytes at the same bandwidths.
    assert oracle("period_s", 30) < oracle("period_s", 60) < oracle("period_s", 120)
    assert oracle("down_bit_per_s_per_hz", 50) > oracle("period_s", 60)
    assert oracle("captured_frames", 64) < oracle("period_s", 60)
    assert max(t.frames for t in trials if t.study == "captured_frames") == 64
    assert oracle("edge_s", 0) == oracle("period_s", 60)
    assert oracle("edge_s", 70) == pytest.approx(0.11)  # the edge needs more than a period
    assert oracle("schedule", "sequential") < oracle("period_s", 60)  # the stale model serves
    hz = {t.bandwidth_hz for t in trials if t.study == "bandwidth_high_hz"}
    assert max(hz) == pytest.approx(1e4)
    for t in trials:
        used = t.upload_bytes > 0
        assert used == (t.frames > 0)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"bandwith_hz": [1]}, "is not a key of link; those are period_s"),
        ({"period_s": [60, 0]}, "scenarios.period_s: 0: Input should be greater than 0"),
        ({"schedule": ["tdd"]}, "scenarios.schedule: 'tdd'"),
        ({"edge_s": [float("nan")]}, "scenarios.edge_s"),
    ],
)
def test_scenarios_that_make_no_sense(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        config(scenarios=wrong)


def test_scenario_of_frames_that_were_not_measured(surface: Surface, curves: Curves) -> None:
    cfg = config(scenarios={"captured_frames": [2]})
    with pytest.raises(BadInput, match="smallest measured upload has 16"):
        scenarios(cfg, surface, curves, quiet)
