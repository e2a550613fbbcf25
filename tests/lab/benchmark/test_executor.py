"""One rounding for all: what a policy is told is what is executed, whoever asks."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import numpy as np
import pytest

from endedge.allocator import (
    Curves,
    Joint,
    Kind,
    Known,
    Link,
    Points,
    Split,
    Surface,
    decide,
    fit,
    policies,
    register,
    registry,
)
from endedge.allocator.fitting.synthetic import sample_surface
from endedge.lab.benchmark.benchmark import (
    BenchmarkSetup,
    bandwidths,
    executable,
    rules_of,
    sendable,
)
from endedge.lab.config import HeldBack, LinkConfig

TRUTH = Joint(Kind("share", "power", "hill"), 0.11, 0.08, 0.13, 3e5, 0.9, 1e5, 2.5)
SCHEDULES = (LinkConfig(), LinkConfig(schedule="sequential", edge_s=10.0))


@pytest.fixture(scope="module")
def measured() -> tuple[Surface, Curves]:
    surface = sample_surface(TRUTH, np.random.default_rng(0))
    known = np.zeros(len(surface))  # NaN is not equal to itself
    surface = replace(surface, bits=known, prune=known)
    return surface, fit(surface, kinds=[TRUTH.kind], replicates=20)


def setup(measured: tuple[Surface, Curves], link: LinkConfig) -> BenchmarkSetup:
    surface, curves = measured
    points = Points.of(surface)
    rules = executable(rules_of(link, surface), points)
    return BenchmarkSetup(curves, link, rules, bandwidths(surface, link), points)


@pytest.mark.parametrize("link", SCHEDULES, ids=lambda link: link.schedule)
def test_told_is_executed_for_every_policy_and_bandwidth(
    measured: tuple[Surface, Curves], link: LinkConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "_BUILT_IN", dict(policies._BUILT_IN))
    monkeypatch.setattr(policies, "_HINDSIGHT", set(policies._HINDSIGHT))
    told: dict[tuple[str, float], int | None] = {}
    for name in list(registry()):

        def asks(known: Known, name: str = name) -> Split:
            split = registry()[name](known)
            told[name, known.link.bandwidth_hz] = known.executes(split)
            return split

        # One that asks before it answers, and sees what the one it imitates sees.
        register(f"asking-{name}", hindsight=name in policies._HINDSIGHT)(asks)
    game = setup(measured, link)
    asking = [name for name in registry() if name.startswith("asking-")]
    decisions = game.decisions(asking)
    assert len(decisions) == len(asking) * len(game.bandwidths_hz)
    for d in decisions:
        row = told[d.policy.removeprefix("asking-"), d.bandwidth_hz]
        said = None if row is None or not d.split.sends else game.options.point(row)
        assert d.point == said


def test_an_operating_points_bytes_are_that_point_whoever_asks(
    measured: tuple[Surface, Curves], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "_BUILT_IN", dict(policies._BUILT_IN))
    monkeypatch.setattr(policies, "_HINDSIGHT", set(policies._HINDSIGHT))
    game = setup(measured, SCHEDULES[0])
    wide = game.bandwidths_hz[-1]
    for row in range(len(game.options)):
        wanted = game.options.point(row)

        split = Split(wanted.upload_bytes, wanted.update_bytes)

        def exactly(known: Known, split: Split = split) -> Split:
            return split

        for hindsight in (False, True):
            name = f"exactly-{row}-{hindsight}"
            register(name, hindsight=hindsight)(exactly)
            assert game.decide(name, wide).point == wanted


def test_judged_accuracy_does_not_round(measured: tuple[Surface, Curves]) -> None:
    points = Points.of(measured[0])
    rng = np.random.default_rng(0)
    turned = replace(points, map=rng.permutation(points.map))
    for _ in range(200):
        up = float(np.exp(rng.uniform(np.log(5e4), np.log(1e7))))
        down = float(np.exp(rng.uniform(np.log(2e4), np.log(2e6))))
        assert points.fitting(up, down) == turned.fitting(up, down)


def test_too_few_frames_for_a_verdict_are_not_offered(measured: tuple[Surface, Curves]) -> None:
    surface, curves = measured
    points = Points.of(sendable(surface, 64))
    rules = executable(rules_of(SCHEDULES[0], surface), points)
    assert rules.upload_limits is not None
    assert rules.upload_limits.low == points.upload_bytes[points.frames == 64].min()
    rng = np.random.default_rng(0)
    sent = 0
    for name in registry():
        known = Known(Link(1.5e5, 60.0), curves, points, rng, rules)
        row = known.executes(decide(name, known))
        assert row is None or points.frames[row] >= 64
        sent += row is not None
    assert sent > 5
    assert len(sendable(surface, 10**9)) == len(surface)
    held = HeldBack(share=0.2, most=64, least=4)
    assert held.fewest_frames == 18  # a fifth of 18 is 3.6: four are held back
    assert HeldBack(least=65).fewest_frames == 0


def test_a_student_and_a_codec_that_a_split_names_are_executed(
    measured: tuple[Surface, Curves], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packages of 120 kB and more are of another student; one budget differs between seeds."""
    monkeypatch.setattr(policies, "_BUILT_IN", dict(policies._BUILT_IN))
    surface, curves = measured
    student = np.where(surface.budget_bytes >= 1.2e5, "large.pt", "small.pt")
    torn = (surface.budget_bytes == 3e4) & (surface.seed == 0)
    surface = replace(surface, student=np.where(torn, "large.pt", student))
    points = Points.of(surface)
    assert set(points.student[points.budget_bytes == 3e4]) == {""}
    assert Surface.from_rows(csv.DictReader(io.StringIO(surface.to_csv()))).student.tolist() == (
        surface.student.tolist()
    )
    rules = executable(rules_of(SCHEDULES[0], surface), points)
    game = BenchmarkSetup(curves, SCHEDULES[0], rules, bandwidths(surface, SCHEDULES[0]), points)
    wide = game.bandwidths_hz[-1]
    up, down = float(points.upload_bytes.max()), float(points.update_bytes.max())
    told = []
    for name in ("large.pt", "small.pt", "absent.pt", ""):

        def asks(known: Known, name: str = name) -> Split:
            split = Split(up, down, "synthetic", name)
            told.append(known.executes(split))
            return split

        register(f"wants-{name}")(asks)
        found = game.decide(f"wants-{name}", wide).point
        assert found == (None if told[-1] is None else points.point(told[-1]))
    assert [None if row is None else float(points.budget_bytes[row]) for row in told] == [
        1e6,
        6e4,
        None,
        1e6,
    ]
    assert points.fitting(up, down, "absent", "small.pt") is None
    least = points.upload_bytes.min(), points.update_bytes[points.student == "large.pt"].min()
    assert points.fitting(*least, "", "small.pt") is not None  # not those very bytes, but theirs


def test_tables_without_students_hash_as_they_did(measured: tuple[Surface, Curves]) -> None:
    surface, _ = measured
    assert "student" not in surface.to_csv().splitlines()[0].split(",")
    named = replace(surface, student=np.full(len(surface), "a.pt"))
    assert named.sha256() != surface.sha256()
