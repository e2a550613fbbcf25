"""Policies: each answers what the link carries, sees what it may, and can be registered."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from endedge.allocator import (
    Curves,
    Joint,
    Kind,
    Known,
    Link,
    Points,
    Rules,
    Split,
    decide,
    fit,
    policies,
    register,
    registry,
)
from endedge.allocator.fitting.synthetic import sample_surface
from endedge.allocator.policies import Observed
from endedge.data.errors import BadInput

TRUTH = Joint(Kind("share", "power", "hill"), 0.11, 0.08, 0.13, 3e5, 0.9, 1e5, 2.5)
BANDWIDTHS = tuple(float(x) for x in np.geomspace(3e3, 6e5, 7))
RULES = (Rules(), Rules(schedule="sequential", edge_s=10.0, apply_s=1.0))
BUILT_IN = {
    "no-update",
    "data-only",
    "model-only",
    "equal",
    "full-model-first",
    "random",
    "marginal-greedy",
    "thief",
    "fitted",
    "fitted-bytes",
    "robust",
    "monotone",
    "best-static",
    "oracle",
    "exhaustive",
    "ams-rate",
    "bandit",
}


@pytest.fixture(scope="module")
def measured() -> tuple[Curves, Points]:
    surface = sample_surface(TRUTH, np.random.default_rng(0))
    return fit(surface, kinds=[TRUTH.kind], replicates=40), surface.points()


def known(measured: tuple[Curves, Points], bandwidth: float, rules: Rules = RULES[0]) -> Known:
    curves, points = measured
    rng = np.random.default_rng(1)
    return Known(Link(bandwidth, 60.0), curves, points, rng, rules, BANDWIDTHS)


def test_the_baselines_are_there() -> None:
    assert set(registry()) >= BUILT_IN


@pytest.mark.parametrize("name", sorted(BUILT_IN))
@pytest.mark.parametrize("rules", RULES, ids=lambda r: r.schedule)
def test_answers_fit_the_link(measured: tuple[Curves, Points], name: str, rules: Rules) -> None:
    for bandwidth in (0.0, *BANDWIDTHS):
        here = known(measured, bandwidth, rules)
        split = decide(name, here)
        assert here.budget.allows(split)
        assert split.sends == (split != Split(0.0, 0.0))
        again = decide(name, known(measured, bandwidth, rules))
        assert split == again
        if bandwidth < 5e3:
            assert not split.sends


def test_what_each_is_named_for(measured: tuple[Curves, Points]) -> None:
    here = known(measured, 1e5)
    curves, budget = here.curves, here.budget
    assert decide("data-only", here).update_bytes == pytest.approx(curves.update_range.low)
    assert decide("model-only", here).upload_bytes == pytest.approx(curves.upload_range.low)
    thin = known(measured, 4e4)
    half = decide("equal", thin)
    assert budget.up * half.upload_bytes == pytest.approx(budget.down * half.update_bytes)
    first = decide("full-model-first", here)
    assert first.update_bytes == pytest.approx(curves.update_range.high)
    assert budget.cost(first.upload_bytes, first.update_bytes) == pytest.approx(1e5)
    best = here.worth(decide("fitted-bytes", here))
    for name in BUILT_IN:
        assert here.worth(decide(name, here)) <= best + 1e-9
    assert here.worth(decide("marginal-greedy", here)) > best - 0.002
    assert here.worth(decide("thief", here)) > best - 0.01


@pytest.mark.parametrize("rules", RULES, ids=lambda r: r.schedule)
def test_oracle_is_the_best_that_is_executed(measured: tuple[Curves, Points], rules: Rules) -> None:
    points = measured[1]
    for bandwidth in BANDWIDTHS:
        here = known(measured, bandwidth, rules)

        def achieved(name: str, here: Known = here) -> float:
            split = decide(name, here)
            row = points.fitting(split.upload_bytes, split.update_bytes)
            if row is None or not split.sends:
                return here.budget.stale
            used = points.upload_bytes[row], points.update_bytes[row]
            fresh = here.budget.fresh - here.budget.fresh_up * used[0]
            fresh -= here.budget.fresh_down * used[1]
            return float(here.budget.stale + (points.map[row] - here.budget.stale) * fresh)

        best = achieved("oracle")
        assert all(achieved(name) <= best + 1e-12 for name in BUILT_IN)


def test_only_hindsight_sees_measured_accuracy(
    measured: tuple[Curves, Points], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "_BUILT_IN", dict(policies._BUILT_IN))
    monkeypatch.setattr(policies, "_HINDSIGHT", set(policies._HINDSIGHT))
    seen: dict[str, bool] = {}

    def look(name: str) -> Any:
        def policy(here: Known) -> Split:
            seen[name] = bool(np.isfinite(here.points.map).any())
            return Split(0.0, 0.0)

        return policy

    register("blind")(look("blind"))
    register("told", hindsight=True)(look("told"))
    for name in ("blind", "told"):
        decide(name, known(measured, 1e5))
    assert seen == {"blind": False, "told": True}
    with pytest.raises(BadInput, match="registered already"):
        register("blind")(look("blind"))


def test_answers_that_no_link_carries(
    measured: tuple[Curves, Points], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "_BUILT_IN", dict(policies._BUILT_IN))
    register("greedy")(lambda here: Split(1e9, 1e9))
    register("mute")(lambda here: None)  # type: ignore[arg-type, return-value]
    register("odd")(lambda here: Split(float("nan"), 1.0))
    register("negative")(lambda here: Split(-1.0, 1.0))
    for name in ("greedy", "mute", "odd", "negative"):
        with pytest.raises(BadInput, match=f"'{name}' answered"):
            decide(name, known(measured, 1e5))
    with pytest.raises(BadInput, match="no policy 'absent'; there are"):
        decide("absent", known(measured, 1e5))


def test_a_policy_that_ends_the_program_is_an_error(
    measured: tuple[Curves, Points], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(policies, "_BUILT_IN", dict(policies._BUILT_IN))
    register("leaver")(lambda here: sys.exit(0))
    with pytest.raises(BadInput, match="'leaver' ends the program"):
        decide("leaver", known(measured, 1e5))
    (tmp_path / "mine.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(BadInput, match=r"mine\.py does not run: SystemExit"):
        policies.from_file(tmp_path / "mine.py")


def answer_nothing(here: Known) -> Split:
    return Split(0.0, 0.0)


def test_entry_points_of_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(name: str, value: str) -> None:
        entry = EntryPoint(name, value, "endedge.policies")
        monkeypatch.setattr(policies, "entry_points", lambda group: EntryPoints([entry]))

    installed("theirs", "math:sqrt")
    assert registry()["theirs"] is not None
    installed("theirs", "math:absent")
    with pytest.raises(BadInput, match=r"theirs = math:absent .* does not load"):
        registry()
    installed("theirs", "math:pi")
    with pytest.raises(BadInput, match="not callable"):
        registry()
    installed("oracle", "math:sqrt")
    with pytest.raises(BadInput, match="takes a name that exists"):
        registry()


def test_best_static_is_one_share_for_all(measured: tuple[Curves, Points]) -> None:
    shares = set()
    for bandwidth in BANDWIDTHS[2:5]:
        here = known(measured, bandwidth)
        split = decide("best-static", here)
        if split.update_bytes < here.budget.update.high and split.upload_bytes > 97e3:
            shares.add(round(here.budget.up * split.upload_bytes / bandwidth, 6))
    assert len(shares) == 1


def test_held_back_points_are_not_needed(measured: tuple[Curves, Points]) -> None:
    curves, points = measured
    few = replace(points, **{f.name: getattr(points, f.name)[:4] for f in fields(points)})
    here = Known(Link(1e5, 60.0), curves, few, np.random.default_rng(0))
    assert decide("oracle", here).upload_bytes == few.upload_bytes[0]


def test_a_fixed_share_is_a_policy(measured: tuple[Curves, Points]) -> None:
    asked = known(measured, 5e4)
    assert decide("static-0.75", asked) == asked.budget.with_share(0.75)
    with pytest.raises(BadInput, match=r"no policy 'static-1.5'.*static-0.8"):
        decide("static-1.5", asked)


def test_before_the_first_fit_only_policies_that_ask_curves_wait(
    measured: tuple[Curves, Points],
) -> None:
    asked = known(measured, 5e4)
    early = replace(asked, curves=policies.NOT_FITTED, limits=asked.budget)
    assert decide("equal", early) == decide("equal", asked)
    for name in ("fitted", "fitted-bytes", "robust", "monotone", "thief", "marginal-greedy"):
        with pytest.raises(policies.TooEarly):
            decide(name, early)


def test_the_bandit_learns_from_its_periods(measured: tuple[Curves, Points]) -> None:
    here = known(measured, 4e4)
    history: list[Observed] = []
    budget = here.budget
    for period in range(60):
        split = decide("bandit", replace(here, history=tuple(history)))
        share = budget.up * split.upload_bytes / budget.cost(split.upload_bytes, split.update_bytes)
        reward = 0.2 - 0.3 * (share - 0.7) ** 2  # made up: seven tenths are best
        history.append(Observed(period, split.upload_bytes, split.update_bytes, 0.1, reward))
    tried = [budget.up * o.upload_bytes / 4e4 for o in history]
    assert tried[0] == pytest.approx(0.5, abs=0.01)
    arms = {budget.with_share(float(s)).upload_bytes for s in np.linspace(0.1, 0.9, 9)}
    assert {o.upload_bytes for o in history[: len(arms)]} == arms  # each once before any twice
    best = min(arms, key=lambda u: abs(budget.up * u / 4e4 - 0.7))
    pulls = [o.upload_bytes for o in history]
    assert pulls.count(best) == max(pulls.count(arm) for arm in arms)


def test_exhaustive_finds_what_the_solver_finds(measured: tuple[Curves, Points]) -> None:
    for bandwidth in BANDWIDTHS:
        here = known(measured, bandwidth)
        best = here.worth(decide("fitted-bytes", here))
        assert best - 2e-4 <= here.worth(decide("exhaustive", here)) <= best + 1e-9


def test_robust_takes_the_lower_decile_and_fitted_the_curves(
    measured: tuple[Curves, Points], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two points that fit: bootstrap curves agree on the first and quarrel over the second, which
    is better in the mean and in the upper decile."""
    curves, points = measured
    known = Known(Link(1e9, 60.0), curves, points, np.random.default_rng(0))
    steady, wild = len(points) // 2, len(points) - 1
    drawn = np.zeros((20, len(points)))
    drawn[:, steady] = 0.30
    drawn[:, wild] = np.linspace(0.1, 0.9, 20)
    monkeypatch.setattr(Curves, "draws", lambda self, upload, update: drawn)
    split = decide("robust", known)
    assert (split.upload_bytes, split.update_bytes) == (
        points.upload_bytes[steady],
        points.update_bytes[steady],
    )
    best = int(np.argmax(curves.joint.value(points.upload_bytes, points.update_bytes)))
    split = decide("fitted", known)
    assert curves.joint.value(split.upload_bytes, split.update_bytes) == pytest.approx(
        curves.joint.value(points.upload_bytes[best], points.update_bytes[best])
    )


def test_monotone_goes_by_the_reference_and_no_family(measured: tuple[Curves, Points]) -> None:
    """It is best in the middle here, where every family rises to the end."""
    curves, points = measured
    peak = np.zeros_like(curves.reference.map)
    peak[peak.shape[0] // 2, peak.shape[1] // 2] = 0.5
    reference = replace(curves.reference, map=peak)
    known = Known(
        Link(1e9, 60.0), replace(curves, reference=reference), points, np.random.default_rng(0)
    )
    said = reference.predict(points.upload_bytes, points.update_bytes)
    split = decide("monotone", known)
    assert said.max() > 0.2
    assert reference.predict(split.upload_bytes, split.update_bytes) == pytest.approx(said.max())
    assert decide("fitted", known) != split
