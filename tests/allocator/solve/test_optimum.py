"""The split: hand-computed cases, brute force on every family and schedule, odd periods."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endedge.allocator import (
    Budget,
    Curves,
    Joint,
    Kind,
    Link,
    Points,
    Range,
    Rules,
    Split,
    Surface,
    allocate,
)
from endedge.allocator.fitting.fit import all_kinds
from endedge.allocator.fitting.synthetic import curves_of, random_joint
from endedge.allocator.solve.optimum import best_point
from endedge.allocator.solve.search import best_split, worth
from endedge.data.errors import BadInput
from tests.allocator.solve.branch_and_bound import best_anywhere

# A(U) = 0.1 + 0.2·(1 − e^(−U/1e5)), loss 0.1·e^(−M/5e4)
ADDITIVE = Joint(
    Kind("additive", "exponential", "exponential"), 0.05, 0.1, 0.2, 1e5, 1.0, 5e4, 1.0, 0.1
)
# A(U) = 0.4·x/(1+x), x = U/1e5;  G(M) = z/(1+z), z = M/2e5
PRODUCT = Joint(Kind("product", "mmf4", "hill"), 0.01, 0.0, 0.4, 1e5, 1.0, 2e5, 1.0)
ONE_HZ_A_BYTE = {"period_s": 1.0, "up_bit_per_s_per_hz": 8.0, "down_bit_per_s_per_hz": 8.0}


def curves(joint: Joint, low: float = 0.0, high: float = 1e7) -> Curves:
    return curves_of(joint, Range(low, high), Range(low, high))


def test_equal_marginals_by_hand() -> None:
    # Interior where 0.2/1e5·e^(−U/1e5) = 0.1/5e4·e^(−M/5e4): the factors are equal (2e-6), so
    # U/1e5 = M/5e4 and with U + M = 3e5 Hz at a byte a Hz: U = 2e5, M = 1e5.
    # F = 0.1 + 0.2·(1 − e^−2) − 0.1·e^−2 = 0.3 − 0.3·e^−2. One more Hz: 2e-6·e^−2.
    found = allocate(curves(ADDITIVE), Link(3e5, **ONE_HZ_A_BYTE))
    assert found.upload_bytes == pytest.approx(2e5, rel=1e-5)
    assert found.update_bytes == pytest.approx(1e5, rel=1e-5)
    assert found.predicted_map == pytest.approx(0.3 - 0.3 * math.exp(-2), abs=1e-10)
    assert found.upload_value == pytest.approx(2e-6 * math.exp(-2), rel=1e-5)
    assert found.update_value == pytest.approx(found.upload_value, rel=1e-4)
    assert (found.uplink_hz, found.downlink_hz) == pytest.approx((2e5, 1e5), rel=1e-5)
    assert found.regime == "interior"


def test_unequal_efficiencies_by_hand() -> None:
    # Uplink at 4 bit/s/Hz (2 Hz a byte), downlink at 8 (1 Hz a byte), 4e5 Hz for a second.
    # Of A·G the logarithms' slopes: 1/(U(1+x))/2 = 1/(M(1+z)). x = z = 1, U = 1e5, M = 2e5:
    # 1/(2e5)/2 = 1/(4e5). Cost 2·1e5 + 2e5 = 4e5 Hz. F = 0.4·½·½ = 0.1.
    found = allocate(curves(PRODUCT), Link(4e5, 1.0, 4.0, 8.0))
    assert found.upload_bytes == pytest.approx(1e5, rel=1e-5)
    assert found.update_bytes == pytest.approx(2e5, rel=1e-5)
    assert found.predicted_map == pytest.approx(0.1, abs=1e-10)
    # A Hz more is worth A'·G/2 = 0.4/(4·1e5)·½/2 = 2.5e-7 on both sides.
    assert found.upload_value == pytest.approx(2.5e-7, rel=1e-4)
    assert found.update_value == pytest.approx(2.5e-7, rel=1e-4)


def test_corners_and_saturation_by_hand() -> None:
    model_counts_little = replace(ADDITIVE, depth=0.001)
    # Model slope at least bytes 1e3: 0.001/5e4·e^−0.02 = 1.96e-8, below the data's
    # 2e-6·e^(−2.99) = 1e-7 with all the rest of 3e5 Hz: data corner.
    found = allocate(curves(model_counts_little, low=1e3), Link(3e5, **ONE_HZ_A_BYTE))
    assert (found.upload_bytes, found.update_bytes) == pytest.approx((2.99e5, 1e3))
    assert found.regime == "corner data"
    data_count_little = replace(ADDITIVE, gain=0.001)
    # Data slope at 1e3: 0.001/1e5·e^−0.01 = 9.9e-9; the model's 2e-6·e^(−M/5e4) falls to that
    # at M = 5e4·ln(202) = 2.65e5 > 1e5 − 1e3: model corner.
    found = allocate(curves(data_count_little, low=1e3), Link(1e5, **ONE_HZ_A_BYTE))
    assert (found.upload_bytes, found.update_bytes) == pytest.approx((1e3, 9.9e4))
    assert found.regime == "corner model"
    # A package of at most 2e4 bytes: its slope there 2e-6·e^−0.4 = 1.3e-6 still beats the
    # data's 2e-6·e^−2.8: the model is saturated, data get the rest.
    limits = Rules(update_limits=Range(0.0, 2e4))
    found = allocate(curves(ADDITIVE), Link(3e5, **ONE_HZ_A_BYTE), limits)
    assert (found.upload_bytes, found.update_bytes) == pytest.approx((2.8e5, 2e4))
    assert found.regime == "model saturated"
    # 1e4 captured bytes: the data are saturated.
    limits = Rules(upload_limits=Range(0.0, 1e4))
    found = allocate(curves(ADDITIVE), Link(3e5, **ONE_HZ_A_BYTE), limits)
    assert (found.upload_bytes, found.update_bytes) == pytest.approx((1e4, 2.9e5))
    assert found.regime == "data saturated"
    # Everything fits into 2e7 Hz.
    found = allocate(curves(ADDITIVE), Link(2e7, **ONE_HZ_A_BYTE))
    assert (found.upload_bytes, found.update_bytes) == (1e7, 1e7)
    assert found.regime == "saturated"


def test_one_bend_by_hand() -> None:
    # Additive with G = min(1, (M/5e4)²), which is convex up to its cap: all of the model or none.
    # 3e5 Hz at a byte a Hz. At the cap U = 2.5e5: F = 0.3 − 0.2·e^−2.5 − 0 = 0.28358; with no
    # model U = 3e5: 0.3 − 0.2·e^−3 − depth, 0.19004 for a depth of 0.1, 0.28904 for 0.001.
    for depth, upload, update in ((0.1, 2.5e5, 5e4), (0.001, 3e5, 0.0)):
        bent = replace(ADDITIVE, kind=Kind("additive", "exponential", "power"), model_s=2.0)
        bent = replace(bent, depth=depth)
        found = allocate(curves(bent), Link(3e5, **ONE_HZ_A_BYTE), Rules(stale_map=0.0))
        assert (found.upload_bytes, found.update_bytes) == pytest.approx((upload, update), abs=1.0)
    # G = z²/(1+z²), z = M/5e4, bends at z = 3^−½. At z = 1: G′ = 2z/(1+z²)²/5e4 = 1e-5 and
    # A′ = 2e-6·e^(−U/1e5), so with depth 0.1 the marginals agree where e^(−U/1e5) = 0.5, at
    # U = 1e5·ln 2 = 69,315 and M = 5e4: 119,315 Hz in all. F = 0.3 − 0.2·0.5 − 0.1·0.5.
    bent = replace(ADDITIVE, kind=Kind("additive", "exponential", "hill"), model_s=2.0)
    found = allocate(curves(bent), Link(5e4 + 1e5 * math.log(2), **ONE_HZ_A_BYTE))
    assert found.update_bytes == pytest.approx(5e4, rel=1e-5)
    assert found.predicted_map == pytest.approx(0.15, abs=1e-9)


@pytest.mark.parametrize("kind", all_kinds(), ids=str)
def test_as_good_as_branch_and_bound(kind: Kind) -> None:
    rng = np.random.default_rng([*str(kind).encode(), 7])
    for rules in (Rules(), Rules(stale_map=0.0), RULES[3], RULES[4]):
        joint = replace(
            random_joint(kind, rng),
            model_s=float(np.exp(rng.uniform(*np.log(kind.model_shape.bounds)))),
        )
        known = curves_of(joint, Range(0.0, 6e6), Range(0.0, 1e6))
        link = Link(float(np.exp(rng.uniform(np.log(5e3), np.log(4e5)))), 60.0)
        budget = Budget.of(link, rules, known)
        best = max(best_anywhere(joint, budget)[2], budget.stale)
        assert best - error(budget) <= best_split(joint, budget)[2] <= best + 1e-7, (joint, link)


def test_sequential_by_hand() -> None:
    # Nothing to gain by more bytes, so the least are sent. 1e5 bytes up at 8 bit/s/Hz in 1e4 Hz
    # take 10 s, 5e4 down 5 s; with 10 s at the edge and 5 s on the device the new model serves
    # 70 of 100 s: 0.1 + (0.3 − 0.1)·0.7 = 0.24.
    flat = Joint(Kind("share", "exponential", "power"), 0.1, 0.3, 0.0, 1e5, 1.0, 1e4, 1.0)
    known = curves_of(flat, Range(1e5, 1e6), Range(5e4, 1e6))
    rules = Rules(schedule="sequential", edge_s=10.0, apply_s=5.0)
    found = allocate(known, Link(1e4, 100.0, 8.0, 8.0), rules)
    assert (found.upload_bytes, found.update_bytes) == pytest.approx((1e5, 5e4))
    assert found.predicted_map == pytest.approx(0.3)
    assert found.average_map == pytest.approx(0.24)
    # Two more seconds at the edge for every 1e5 bytes of upload: 0.1 + 0.2·0.68.
    slower = replace(rules, edge_s_per_upload_byte=2e-5)
    assert allocate(known, Link(1e4, 100.0, 8.0, 8.0), slower).average_map == pytest.approx(0.236)
    # The same in the pipelined schedule: only the 5 s on the device are lost.
    pipelined = replace(rules, schedule="pipelined")
    assert allocate(known, Link(1e4, 100.0, 8.0, 8.0), pipelined).average_map == pytest.approx(0.29)


@pytest.mark.parametrize(
    ("link", "rules", "words"),
    [
        (Link(0.0, 60.0), Rules(), "no bandwidth"),
        (Link(0.0, 60.0), Rules(schedule="sequential"), "no bandwidth"),
        (Link(1e2, 60.0), Rules(), "need 2102 Hz, there are 100 Hz"),
        (Link(1e6, 60.0), Rules(schedule="sequential", edge_s=61.0), "there are 0 s"),
        (Link(1e6, 60.0), Rules(edge_s=61.0), "more than a period"),
        (Link(1e6, 60.0), Rules(edge_s=1.0, edge_s_per_upload_byte=1.0), "more than a period"),
        (Link(1e6, 60.0), Rules(apply_s=60.0), "more than a period"),
        (Link(1e6, 60.0), Rules(stale_map=0.9), "no update beats"),
    ],
)
def test_infeasible_periods_send_nothing_and_say_why(link: Link, rules: Rules, words: str) -> None:
    known = curves_of(ADDITIVE, Range(3e4, 1e6), Range(2e4, 1e6))
    found = allocate(known, link, rules)
    assert (found.upload_bytes, found.update_bytes, found.regime) == (0.0, 0.0, "none")
    assert words in found.reason
    stale = known.m0 if rules.stale_map is None else rules.stale_map  # of the model in use
    assert found.predicted_map == stale
    assert found.interval == (stale, stale)
    assert (found.frames, found.upload, found.update, found.extrapolates) == (0, None, None, False)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Link(-1.0, 1.0),
        lambda: Link(float("nan"), 1.0),
        lambda: Link(1.0, 0.0),
        lambda: Link(1.0, 1.0, up_bit_per_s_per_hz=-2.0),
        lambda: Link(1.0, 1.0, down_bit_per_s_per_hz=float("inf")),
        lambda: Rules(edge_s=-1.0),
        lambda: Rules(schedule="duplex"),  # type: ignore[arg-type]
        lambda: Rules(objective="mean"),  # type: ignore[arg-type]
        lambda: Rules(stale_map=7.0),
        lambda: Range(2.0, 1.0),
        lambda: Range(0.0, float("inf")),
        lambda: replace(ADDITIVE, gain=-0.1),
        lambda: replace(ADDITIVE, u0_bytes=float("nan")),
    ],
)
def test_bad_input(make: object) -> None:
    with pytest.raises(BadInput) as error:
        make()  # type: ignore[operator]
    assert "\n" not in str(error.value)


def brute(joint: Joint, budget: Budget, count: int = 100_000) -> float:
    """The best objective of ``count`` splits, looked at again finer around the best."""
    if budget.reason:
        return budget.stale
    best, u, m = budget.stale, budget.upload, budget.update
    if budget.fresh_up == 0:
        low = min(u.high, max(u.low, (budget.room - budget.down * m.high) / budget.up))
        high = max(low, min(u.high, (budget.room - budget.down * m.low) / budget.up))
        for size in (count, 2000):
            upload = np.linspace(low, high, size)
            update = np.clip((budget.room - budget.up * upload) / budget.down, m.low, m.high)
            values = worth(joint, budget, upload, update)
            k = int(values.argmax())
            best, step = max(best, float(values[k])), (high - low) / (size - 1)
            low, high = max(low, upload[k] - step), min(high, upload[k] + step)
        return best
    side = int(math.sqrt(count))
    edges = [np.geomspace(max(r.low, 1e2), r.high, side) for r in (u, m)]
    for _ in range(4):
        upload, update = edges[0][:, None], edges[1][None, :]
        update = np.minimum(update, (budget.room - budget.up * upload) / budget.down)
        values = np.where(update >= m.low, worth(joint, budget, upload, np.abs(update)), -1.0)
        i, j = divmod(int(values.argmax()), values.shape[1])
        best = max(best, float(values[i, j]))
        edges = [
            np.linspace(e[max(k - 2, 0)], e[min(k + 2, len(e) - 1)], 60)
            for e, k in zip(edges, (i, j), strict=True)
        ]
    return best


def error(budget: Budget) -> float:
    """How far below the best a split may be, in mAP; measurements are good to 3e-3."""
    return 3e-4 if budget.takes_time else 1e-6


RULES = (
    Rules(),
    Rules(edge_s=20.0, edge_s_per_upload_byte=1e-5, apply_s=3.0),
    Rules(schedule="sequential", edge_s=10.0, objective="final"),
    Rules(schedule="sequential", edge_s=10.0, apply_s=2.0),
    Rules(schedule="sequential", edge_s=4.0, edge_s_per_upload_byte=4e-6, stale_map=0.04),
    Rules(schedule="sequential", stale_map=0.2),
)


@pytest.mark.parametrize("kind", all_kinds(), ids=str)
def test_no_split_of_a_fine_grid_is_better(kind: Kind) -> None:
    # 60 kinds x 18 = 1,080 problems; half of them with shapes anywhere in their bounds.
    rng = np.random.default_rng([*str(kind).encode()])
    for trial in range(18):
        joint = random_joint(kind, rng)
        if trial >= 9:
            data_s, model_s = (
                float(np.exp(rng.uniform(*np.log(shape.bounds))))
                for shape in (kind.data_shape, kind.model_shape)
            )
            start = float(rng.uniform(-0.1, 0.4))
            joint = replace(joint, data_s=data_s, model_s=model_s, start=start)
        low = (9.6e4, 3e4) if trial % 2 else (0.0, 0.0)
        known = curves_of(joint, Range(low[0], 6e6), Range(low[1], 1e6))
        link = Link(float(np.exp(rng.uniform(np.log(5e3), np.log(2e6)))), 60.0)
        budget = Budget.of(link, RULES[trial % len(RULES)], known)
        upload, update, value = best_split(joint, budget)
        assert budget.allows(Split(upload, update))
        if upload or update:
            assert budget.upload.low <= upload <= budget.upload.high * (1 + 1e-12)
            assert budget.update.low <= update <= budget.update.high * (1 + 1e-12)
            assert value == pytest.approx(float(worth(joint, budget, upload, update)), abs=1e-12)
        assert value >= brute(joint, budget) - error(budget), (trial, joint, budget)


@given(bandwidth=st.floats(1e3, 1e7), more=st.floats(1.0, 10.0))
@settings(max_examples=40, deadline=None)
def test_more_bandwidth_is_never_worse(bandwidth: float, more: float) -> None:
    known = curves_of(PRODUCT, Range(1e4, 1e6), Range(1e4, 1e6))
    for rules in (Rules(), RULES[3]):
        thin, wide = (allocate(known, Link(b, 60.0), rules) for b in (bandwidth, bandwidth * more))
        assert wide.average_map >= thin.average_map - 1e-9


def table(rows: list[tuple[float, float, float]]) -> Points:
    """Operating points from (upload, update, accuracy)."""
    return Surface.from_rows(
        {
            "seed": 0,
            "frames": u / 100,
            "codec": "c",
            "upload_bytes": u,
            "budget_bytes": m,
            "update_bytes": m,
            "map": f,
            "m0": 0.1,
        }
        for u, m, f in rows
    ).points()


def test_discrete_points_by_hand() -> None:
    points = table([(1e3, 1e3, 0.2), (2e3, 1e3, 0.3), (1e3, 3e3, 0.35), (4e3, 4e3, 0.5)])
    known = curves_of(PRODUCT, Range(1e3, 4e3), Range(1e3, 4e3))
    for hertz, accuracy in ((1999, None), (2e3, 0.2), (3e3, 0.3), (4e3, 0.35), (8e3, 0.5)):
        budget = Budget.of(Link(hertz, **ONE_HZ_A_BYTE), Rules(stale_map=0.1), known)
        row, value = best_point(points, points.map, budget)
        assert (None if row is None else points.map[row]) == accuracy
        assert value == (accuracy or 0.1)
    # Sequential, 1e4 Hz: 8e3 bytes would take 0.8 s and leave 0.2 s of 0.5: 0.18. The pair
    # (1e3, 3e3) takes 0.4 s: 0.1 + 0.25·0.6 = 0.25; (2e3, 1e3) 0.3 s: 0.1 + 0.2·0.7 = 0.24.
    rules = Rules(schedule="sequential", stale_map=0.1)
    row, value = best_point(points, points.map, Budget.of(Link(1e4, **ONE_HZ_A_BYTE), rules, known))
    assert row is not None
    assert points.map[row] == 0.35
    assert value == pytest.approx(0.25)
    # A saturated curve gives 3e3 and 4e3 bytes of model the same: what is left is used.
    flat = table([(1e3, 1e3, 0.2), (1e3, 3e3, 0.3), (1e3, 4e3, 0.3)])
    for hertz, update in ((3e3, 1e3), (4e3, 3e3), (5e3, 4e3)):
        budget = Budget.of(Link(hertz, **ONE_HZ_A_BYTE), Rules(stale_map=0.1), known)
        row, _ = best_point(flat, flat.map, budget)
        assert row is not None
        assert flat.update_bytes[row] == update
    # Nothing beats a stale model of 0.6.
    keep = Budget.of(Link(8e3, **ONE_HZ_A_BYTE), Rules(stale_map=0.6), known)
    assert best_point(points, points.map, keep) == (None, 0.6)


def test_what_to_execute() -> None:
    rows = [
        (n * 100.0, budget, 0.1 + 1e-4 * n + 1e-8 * budget)
        for n in (10, 20, 40)
        for budget in (1e3, 2e3)
    ]
    points = table(rows)
    known = replace(
        curves_of(PRODUCT, Range(1e3, 4e3), Range(1e3, 2e3)),
        uploads=tuple(points.point(int(i)) for i in points.upload_envelope()),
        updates=tuple(points.point(int(i)) for i in points.update_envelope()),
    )
    found = allocate(known, Link(4.5e3, **ONE_HZ_A_BYTE), Rules(stale_map=0.0))
    assert found.upload is not None
    assert found.update is not None
    assert found.upload.upload_bytes <= found.upload_bytes < 2 * found.upload.upload_bytes + 1
    assert found.frames == int(found.upload_bytes * (1 + 1e-9) / 100.0)  # 100 bytes a frame
    row = points.fitting(found.upload_bytes, found.update_bytes)
    assert row is not None
    assert points.frames[row] == found.upload.frames
    assert points.budget_bytes[row] == found.update.budget_bytes
