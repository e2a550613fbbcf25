"""K devices on one band: exhaustive search, CVXPY, menus, sizes and odd input."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from endedge.allocator import Budget, Joint, Kind, Range
from endedge.allocator.fitting.fit import all_kinds
from endedge.allocator.fitting.synthetic import random_joint
from endedge.allocator.solve.fleet import FleetDevice, allocate_fleet
from endedge.allocator.solve.knapsack import allocate_menus
from endedge.allocator.solve.search import best_split
from endedge.data.errors import BadInput

PERIOD_S = 60.0


def device(rng: np.random.Generator, kind: Kind) -> FleetDevice:
    return FleetDevice(
        random_joint(kind, rng),
        Range(9.6e4, 6e6),
        Range(3e4, 1e6),
        weight=float(rng.uniform(0.5, 2.0)),
        up_bit_per_s_per_hz=float(rng.uniform(1.0, 4.0)),
        down_bit_per_s_per_hz=float(rng.uniform(2.0, 8.0)),
    )


def alone(one: FleetDevice, hertz: float) -> float:
    """Weighted mAP of one device that has ``hertz`` for itself."""
    up, down = (8 / (PERIOD_S * s) for s in (one.up_bit_per_s_per_hz, one.down_bit_per_s_per_hz))
    thin = up * one.upload.low + down * one.update.low > hertz
    budget = Budget(
        up, down, hertz, one.upload, one.update, 1.0, 0.0, 0.0, one.joint.m0, "thin" if thin else ""
    )
    return one.weight * best_split(one.joint, budget)[2]


@pytest.mark.parametrize("seed", range(12))
def test_two_devices_against_every_share(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kinds = all_kinds()
    devices = [device(rng, kinds[rng.integers(len(kinds))]) for _ in range(2)]
    band = float(np.exp(rng.uniform(np.log(8e3), np.log(5e5))))
    found = allocate_fleet(devices, band, PERIOD_S)
    shares = np.linspace(0.0, 1.0, 201)
    best = max(alone(devices[0], s * band) + alone(devices[1], (1 - s) * band) for s in shares)
    assert found.objective >= best - 1e-6
    assert found.bound >= best - 1e-6
    assert found.used_hz <= band * (1 + 1e-9)
    said = sum(d.weight * float(f) for d, f in zip(devices, found.map, strict=True))
    assert found.objective == pytest.approx(said, abs=1e-9)


def test_three_devices_against_every_share() -> None:
    rng = np.random.default_rng(5)
    kinds = [Kind("share", "power", "hill"), Kind("product", "mmf4", "weibull"), all_kinds()[20]]
    devices = [device(rng, kind) for kind in kinds]
    for band in (2e4, 6e4, 2e5):
        found = allocate_fleet(devices, band, PERIOD_S)
        value = [[alone(d, s * band / 40) for s in range(41)] for d in devices]
        best = max(
            value[0][i] + value[1][j] + value[2][40 - i - j]
            for i, j in itertools.product(range(41), repeat=2)
            if i + j <= 40
        )
        assert found.objective >= best - 1e-6
        assert found.bound >= found.objective


def test_identical_devices_share_alike_by_hand() -> None:
    # Concave curves: equal devices get equal shares, twice the weight more, and the price is
    # the marginal value of a hertz of each of them.
    joint = Joint(
        Kind("additive", "exponential", "exponential"), 0.01, 0.1, 0.2, 1e5, 1.0, 5e4, 1.0, 0.1
    )
    one = FleetDevice(joint, Range(0.0, 1e7), Range(0.0, 1e7), 1.0, 8.0, 8.0)
    found = allocate_fleet([one] * 4, 12e5, 1.0)
    # A quarter of the band each, 3e5 Hz at a byte a Hz: U = 2e5, M = 1e5 as for one device
    # (tests/allocator/solve/test_optimum.py), price 2e-6·e^−2.
    assert found.upload_bytes == pytest.approx([2e5] * 4, rel=1e-4)
    assert found.update_bytes == pytest.approx([1e5] * 4, rel=1e-4)
    assert found.price == pytest.approx(2e-6 * np.exp(-2), rel=1e-4)
    assert found.bound == pytest.approx(found.objective, abs=1e-9)
    heavy = allocate_fleet([one, replace(one, weight=2.0)], 6e5, 1.0)
    assert heavy.upload_bytes[1] > heavy.upload_bytes[0]


def test_against_cvxpy() -> None:
    cvxpy = pytest.importorskip("cvxpy", reason="CVXPY is not installed; it is only compared with")
    rng = np.random.default_rng(3)
    devices = []
    for i in range(20):
        one = device(rng, Kind("additive", ("exponential", "logarithm")[i % 2], "exponential"))
        # CVXPY's problem serves everyone: make that the best here too.
        concave = replace(one.joint, model_s=float(rng.uniform(0.3, 1.0)), m0=0.0)
        devices.append(replace(one, joint=concave))
    for band in (3e5, 1e6, 5e6):
        terms, costs, limits = [], [], []
        for one in devices:  # in units of U0 and M0
            j, up, down = one.joint, cvxpy.Variable(), cvxpy.Variable()
            rise = 1 - cvxpy.exp(-up) if j.kind.data == "exponential" else cvxpy.log(1 + up)
            model = 1 - j.model_s * cvxpy.exp(-down)
            terms.append(one.weight * (j.start + j.gain * rise - j.depth * (1 - model)))
            per_up = 8 / (PERIOD_S * one.up_bit_per_s_per_hz) * j.u0_bytes / band
            per_down = 8 / (PERIOD_S * one.down_bit_per_s_per_hz) * j.m0_bytes / band
            costs.append(per_up * up + per_down * down)
            limits += [up >= one.upload.low / j.u0_bytes, up <= one.upload.high / j.u0_bytes]
            limits += [down >= one.update.low / j.m0_bytes, down <= one.update.high / j.m0_bytes]
        problem = cvxpy.Problem(cvxpy.Maximize(sum(terms)), [*limits, sum(costs) <= 1])
        best = problem.solve(solver="CLARABEL")
        found = allocate_fleet(devices, band, PERIOD_S)
        assert found.objective == pytest.approx(best, abs=1e-6)
        assert found.bound >= best - 1e-6


def test_large_fleet_stays_within_its_bound() -> None:
    rng = np.random.default_rng(0)
    kinds = (Kind("share", "power", "hill"), Kind("product", "wbl4", "power"))
    devices = [device(rng, kinds[i % 2]) for i in range(1500)]
    found = allocate_fleet(devices, 1500 * 2.5e4, PERIOD_S)
    assert 0 <= found.bound - found.objective <= 0.01  # of 418: less than one device's gain
    assert 0.999 < found.used_hz / (1500 * 2.5e4) <= 1 + 1e-9
    idle = found.upload_bytes == 0
    assert 0 < idle.mean() < 1
    assert found.map[idle] == pytest.approx(np.array([d.joint.m0 for d in devices])[idle])


def test_bands_of_nothing_and_of_everything() -> None:
    rng = np.random.default_rng(1)
    devices = [device(rng, Kind("share", "power", "hill")) for _ in range(5)]
    nothing = allocate_fleet(devices, 0.0, PERIOD_S)
    assert nothing.objective == pytest.approx(sum(d.weight * d.joint.m0 for d in devices))
    assert not nothing.upload_bytes.any()
    thin = allocate_fleet(devices, 1.0, PERIOD_S)
    assert thin.objective == pytest.approx(nothing.objective)
    everything = allocate_fleet(devices, 1e12, PERIOD_S)
    full = sum(d.weight * max(d.joint.value(6e6, 1e6), d.joint.m0) for d in devices)
    assert everything.objective == pytest.approx(full, abs=1e-9)


def test_bad_fleets() -> None:
    one = device(np.random.default_rng(0), Kind("share", "power", "hill"))
    with pytest.raises(BadInput, match="at least one"):
        allocate_fleet([], 1.0, PERIOD_S)
    with pytest.raises(BadInput, match="bandwidth_hz"):
        allocate_fleet([one], float("nan"), PERIOD_S)
    with pytest.raises(BadInput, match="weight"):
        allocate_fleet([replace(one, weight=-1.0)], 1.0, PERIOD_S)
    with pytest.raises(BadInput, match="bit_per_s_per_hz"):
        allocate_fleet([replace(one, up_bit_per_s_per_hz=0.0)], 1.0, PERIOD_S)
    with pytest.raises(BadInput, match="period_s"):
        allocate_fleet([one], 1.0, 0.0)


@pytest.mark.parametrize("seed", [2])
def test_an_edge_with_too_few_seconds_against_a_grid(seed: int) -> None:
    """Two devices on one band and one trainer: hertz and seconds have a price each."""
    rng = np.random.default_rng(seed)
    kinds = all_kinds()
    devices = [
        replace(
            device(rng, kinds[rng.integers(len(kinds))]),
            edge_s=float(rng.uniform(5, 15)),
            edge_s_per_upload_byte=float(rng.uniform(0, 1e-5)),
        )
        for _ in range(2)
    ]
    band, room_s = float(np.exp(rng.uniform(np.log(5e4), np.log(5e5)))), float(rng.uniform(8, 60))
    found = allocate_fleet(devices, band, PERIOD_S, room_s)
    u, m = (
        a.ravel() for a in np.meshgrid(np.geomspace(9.6e4, 6e6, 14), np.geomspace(3e4, 1e6, 14))
    )
    options = []
    for d in devices:
        hertz = 8 / PERIOD_S * (u / d.up_bit_per_s_per_hz + m / d.down_bit_per_s_per_hz)
        seconds = d.edge_s + d.edge_s_per_upload_byte * u
        value = d.weight * d.joint.value(u, m)
        nothing = [d.weight * d.joint.m0], [0.0], [0.0]
        options.append(
            [np.append(*pair) for pair in zip((value, hertz, seconds), nothing, strict=True)]
        )
    (v0, hz0, s0), (v1, hz1, s1) = options
    fits = (hz0[:, None] + hz1 <= band) & (s0[:, None] + s1 <= room_s)
    best = float(np.where(fits, v0[:, None] + v1, -np.inf).max())
    assert found.used_hz <= band * (1 + 1e-9)
    assert found.used_s <= room_s * (1 + 1e-9)
    spent = [
        d.edge_s + d.edge_s_per_upload_byte * up
        for d, up in zip(devices, found.upload_bytes, strict=True)
        if up > 0
    ]
    assert found.used_s == pytest.approx(sum(spent))
    assert found.bound >= best - 1e-6
    # A second is worth something only where there are too few.
    free = allocate_fleet(devices, band, PERIOD_S)
    assert free.price_s == 0.0
    assert free.objective >= found.objective - 1e-9
    if free.used_s <= room_s:
        assert found.objective == pytest.approx(free.objective, abs=1e-9)


def test_seconds_ration_alike_devices() -> None:
    # 10 s each and 60 s in all: six of thirty, though the band would carry more.
    one = device(np.random.default_rng(0), Kind("share", "power", "hill"))
    fleet = [replace(one, edge_s=10.0, weight=1.0)] * 30
    found = allocate_fleet(fleet, 1e9, PERIOD_S, 60.0)
    assert (found.update_bytes > 0).sum() == 6
    gain = found.map.max() - one.joint.m0
    assert found.price_s == pytest.approx(gain / 10, rel=1e-3)
    assert found.bound == pytest.approx(found.objective, rel=1e-4)
    with pytest.raises(BadInput, match="room_s"):
        allocate_fleet(fleet, 1e9, PERIOD_S, -1.0)


@pytest.mark.parametrize("seed", range(30))
def test_menus_against_every_choice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, entries = int(rng.integers(1, 6)), int(rng.integers(2, 6))
    cost = np.sort(rng.uniform(0, 10, (count, entries)), axis=1)
    cost[:, 0] = 0.0
    value = rng.uniform(0, 1, (count, entries))
    value[rng.random((count, entries)) < 0.1] = -np.inf
    value[:, 0] = rng.uniform(0, 0.3, count)
    band = float(rng.uniform(0, 15))
    found = allocate_menus(cost, value, band)
    best = max(
        sum(value[k, j] for k, j in enumerate(choice))
        for choice in itertools.product(range(entries), repeat=count)
        if sum(cost[k, j] for k, j in enumerate(choice)) <= band
    )
    assert found.used_hz <= band
    assert found.objective <= best + 1e-12
    assert found.bound >= best - 1e-12
    most = (np.where(np.isfinite(value), value, 0).max(axis=1) - value[:, 0]).max()
    assert best - found.objective <= most + 1e-12  # one device's gain at most


def test_menus_by_hand() -> None:
    # Per hertz: device 0 gains 0.3/1, then 0.1/1; device 1 gains 0.2/1, then 0.4/3.
    cost = np.array([[0.0, 1.0, 2.0], [0.0, 1.0, 4.0]])
    value = np.array([[0.0, 0.3, 0.4], [0.0, 0.2, 0.6]])
    for band, choice in ((0.5, [0, 0]), (1.0, [1, 0]), (2.0, [1, 1]), (6.0, [2, 2])):
        assert allocate_menus(cost, value, band).choice.tolist() == choice
    with pytest.raises(BadInput, match="cost 0"):
        allocate_menus(cost + 1, value, 1.0)
    with pytest.raises(BadInput, match="equal"):
        allocate_menus(cost, value[:1], 1.0)
    with pytest.raises(BadInput, match="NaN"):
        allocate_menus(cost, value * np.nan, 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_alike_neighbours_answer_once_for_all(seed: int) -> None:
    """Grouped, devices are solved as runs; dealt out anew, one by one: the same split."""
    rng = np.random.default_rng(seed)
    kinds = [device(rng, kind) for kind in rng.permutation(np.array(all_kinds(), dtype=object))[:2]]
    kinds.append(replace(kinds[0], weight=2.0))
    grouped = [one for one in kinds for _ in range(40)]
    order = rng.permutation(len(grouped))
    dealt = [grouped[i] for i in order]
    most = sum(alone_hz(one) for one in grouped)
    for share in (0.02, 0.3, 0.8):
        a, b = allocate_fleet(grouped, share * most), allocate_fleet(dealt, share * most)
        room = 0.02 * max(1.0, a.bound)  # both are within about a device's gain of the bound
        assert a.objective <= a.bound + 1e-9
        assert b.objective == pytest.approx(a.objective, abs=room)
        assert b.bound == pytest.approx(a.bound, rel=1e-4)
        assert a.used_hz <= share * most * (1 + 1e-9)
        for part in range(3):  # alike devices that are served are served alike
            mine = a.update_bytes[40 * part : 40 * part + 40]
            sent = mine[mine > 0]
            assert len(sent) == 0 or np.ptp(sent) <= 1e-6 * sent.max()


def alone_hz(one: FleetDevice) -> float:
    """What everything of a device takes."""
    up, down = 8 / one.up_bit_per_s_per_hz, 8 / one.down_bit_per_s_per_hz
    return up * one.upload.high + down * one.update.high
