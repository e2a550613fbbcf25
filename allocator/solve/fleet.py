"""K devices on one band, by dual decomposition: one price for a hertz.

maximise Σ w_k F_k(U_k, M_k) subject to Σ (up_k U_k + down_k M_k) <= B (pipelined schedule).
At a price a hertz every device answers alone (fleet_dual.py); the price at which the answers fill
the band solves the whole (Palomar and Chiang, IEEE JSAC 24(8), 2006).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from endedge.allocator.accuracy.joint import Joint
from endedge.allocator.problem import Budget, Range
from endedge.allocator.solve.fleet_dual import FleetColumns, FleetDual
from endedge.allocator.solve.search import best_split
from endedge.data.errors import BadInput

__all__ = ["FleetAllocation", "FleetDevice", "allocate_fleet", "fleet_of"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_SMALL = 12  # fleets up to this size are polished by exchange between pairs
_SHARES = 33
_GOLDEN = (math.sqrt(5) - 1) / 2
_SAMPLED = 2000  # larger fleets get their first price from a sample


@dataclass(frozen=True)
class FleetDevice:
    """One device: its curves, its say, its link, the bytes that it may send and take, and the
    seconds that the edge works on an update, and on each byte of its upload."""

    joint: Joint
    upload: Range
    update: Range
    weight: float = 1.0
    up_bit_per_s_per_hz: float = 2.55
    down_bit_per_s_per_hz: float = 5.0
    edge_s: float = 0.0
    edge_s_per_upload_byte: float = 0.0


@dataclass(frozen=True)
class FleetAllocation:
    """``upload_bytes``, ``update_bytes``, ``map`` (K,); 0, 0 and m0 for a device without an
    update. ``objective`` = Σ w·mAP; ``price``: weighted mAP that one more hertz brings,
    ``price_s``: that one more second of the edge brings. No split is better than ``bound`` (weak
    duality)."""

    upload_bytes: Floats
    update_bytes: Floats
    map: Floats
    objective: float
    price: float
    bound: float
    used_hz: float
    price_s: float = 0.0
    used_s: float = 0.0


def fleet_of(
    devices: Sequence[FleetDevice], period_s: float
) -> tuple[FleetColumns, NDArray[np.int64]]:
    """The devices as columns, sorted by kind, and the column of each device in the list.

    Raises :class:`BadInput` for no devices, and for weights, rates or a period that are not
    finite and > 0.
    """
    if not devices:
        raise BadInput("a fleet needs at least one device")
    order = sorted(range(len(devices)), key=lambda i: str(devices[i].joint.kind))
    mine = [devices[i] for i in order]
    weight = np.array([d.weight for d in mine])
    efficiency = np.array([(d.up_bit_per_s_per_hz, d.down_bit_per_s_per_hz) for d in mine])
    for name, values in (("weight", weight), ("bit_per_s_per_hz", efficiency)):
        if not (np.isfinite(values) & (values > 0)).all():
            raise BadInput(f"{name} must be finite and > 0 for every device")
    if not (math.isfinite(period_s) and period_s > 0):
        raise BadInput(f"period_s = {period_s} must be finite and > 0")
    kinds, start = [], 0
    for stop in range(1, len(mine) + 1):
        if stop == len(mine) or mine[stop].joint.kind != mine[start].joint.kind:
            kinds.append((mine[start].joint.kind, slice(start, stop)))
            start = stop
    column = np.empty(len(mine), dtype=np.int64)
    column[order] = np.arange(len(mine))
    fleet = FleetColumns(
        kinds=tuple(kinds),
        theta=np.array([d.joint.theta for d in mine]),
        m0=np.array([d.joint.m0 for d in mine]),
        weight=weight,
        rate=8.0 / (period_s * efficiency),
        low=np.array([(d.upload.low, d.update.low) for d in mine]),
        high=np.array([(d.upload.high, d.update.high) for d in mine]),
        seconds=np.array([(d.edge_s, d.edge_s_per_upload_byte) for d in mine]),
    )
    return fleet, column


def allocate_fleet(
    devices: Sequence[FleetDevice] | FleetColumns,
    bandwidth_hz: float,
    period_s: float = 1.0,
    room_s: float = math.inf,
) -> FleetAllocation:
    """Share ``bandwidth_hz`` among ``devices`` (pipelined schedule, weighted sum of mAP).

    A :class:`FleetColumns` answers in its own order and has its period in its rates. For concave
    surfaces the answer is the optimum; for others it lies within ``bound - objective`` of it,
    at most about the gain of one device; up to 12 devices are then polished by the best
    exchange between every pair, which is exact for two. ``room_s``: what the edge has of seconds
    in a period; where the devices need more, a second price rations them, unpolished. Raises
    :class:`BadInput` for a bandwidth that is negative or not finite, for a room that is negative
    or NaN, and as :func:`fleet_of`.
    """
    if not (math.isfinite(bandwidth_hz) and bandwidth_hz >= 0):
        raise BadInput(f"bandwidth_hz = {bandwidth_hz} must be finite and >= 0")
    if not room_s >= 0:
        raise BadInput(f"room_s = {room_s} must be >= 0")
    if isinstance(devices, FleetColumns):
        fleet, column = devices, np.arange(len(devices))
    else:
        fleet, column = fleet_of(devices, period_s)
    if bandwidth_hz == 0:
        nothing, idle = np.zeros(len(fleet)), float(fleet.idle.sum())
        return FleetAllocation(nothing, nothing, fleet.m0[column], idle, math.inf, idle, 0.0)
    answer = _at_price(fleet, bandwidth_hz, 0.0, room_s)
    if answer.dual_s > room_s:
        answer = _rationed(fleet, bandwidth_hz, room_s, answer)
    elif len(fleet) <= _SMALL and answer.bound - float(answer.reached.sum()) > 1e-9:
        better = _exchange(fleet, answer.n_bytes, answer.reached, bandwidth_hz)
        if _seconds(fleet, better[0]).sum() <= room_s:
            answer = replace(answer, n_bytes=better[0], reached=better[1])
    objective = float(answer.reached.sum())
    return FleetAllocation(
        upload_bytes=answer.n_bytes[column, 0],
        update_bytes=answer.n_bytes[column, 1],
        map=(answer.reached / fleet.weight)[column],
        objective=objective,
        price=answer.price if answer.price > 1e-20 else 0.0,  # the band is more than enough
        bound=max(answer.bound, objective),
        used_hz=float((fleet.rate * answer.n_bytes).sum()),
        price_s=answer.price_s,
        used_s=float(_seconds(fleet, answer.n_bytes).sum()),
    )


@dataclass(frozen=True)
class _Found:
    """What a price of the edge's seconds leads to; ``dual_s``: the seconds asked for at it."""

    n_bytes: Floats
    reached: Floats
    price: float
    bound: float
    price_s: float
    dual_s: float


def _seconds(fleet: FleetColumns, n_bytes: Floats) -> Floats:
    """Seconds of the edge (K,), for the bytes that devices send; none for those that send
    nothing."""
    if fleet.seconds is None:
        return np.zeros(len(fleet))
    fixed, each = fleet.seconds.T
    return np.asarray(np.where(n_bytes[:, 1] > 0, fixed + each * n_bytes[:, 0], 0.0))


def _at_price(fleet: FleetColumns, band_hz: float, price_s: float, room_s: float) -> _Found:
    """Share the band where an edge's second costs ``price_s``; who would go beyond ``room_s``,
    those that gain least by it first, gets no update."""
    dual = FleetDual(fleet, band_hz, price_s, room_s if price_s else 0.0)
    _clear(dual, 1e-6 if len(fleet) <= 100 else 3e-4)
    asking = np.where((dual.surplus > dual.hurdle)[:, None], dual.bytes, 0.0)
    asked_s = float(_seconds(fleet, asking).sum())
    served = _serve(dual, room_s)
    n_bytes = np.where(served[:, None], dual.bytes, 0.0)
    reached = np.where(served, dual.value(), fleet.idle)
    used_s = float(_seconds(fleet, n_bytes).sum())
    if used_s > room_s * (1 + 1e-9):  # more bytes for those served: more work than there is room
        n_bytes, reached = np.zeros_like(n_bytes), fleet.idle
    return _Found(n_bytes, reached, dual.price, dual.bound, price_s, max(asked_s, used_s))


def _rationed(fleet: FleetColumns, band_hz: float, room_s: float, free: _Found) -> _Found:
    """The price of a second whose dual bound is least (it is convex: golden section of its
    logarithm), and of all splits seen on the way the best."""
    least = _seconds(fleet, np.maximum(fleet.low, 1.0))
    high = math.log(2.0 * float(fleet.weight.max()) / float(least[least > 0].min()))
    low, rounds = high - 20.0, 32
    if len(fleet) > _SAMPLED:  # a sample tells the price nearly
        sample = fleet.sample(_SAMPLED)
        share = len(sample) / len(fleet)
        few = _at_price(sample, band_hz * share, 0.0, room_s * share)
        if few.dual_s > room_s * share:
            near = math.log(_rationed(sample, band_hz * share, room_s * share, few).price_s)
            low, high, rounds = near - 0.1, near + 0.1, 4
    tried: dict[float, _Found] = {}

    def bound(log_price: float) -> float:
        if log_price not in tried:
            tried[log_price] = _at_price(fleet, band_hz, math.exp(log_price), room_s)
        return tried[log_price].bound

    for _ in range(rounds):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if bound(left) <= bound(right):
            high = right
        else:
            low = left
    dual = min((free, *tried.values()), key=lambda answer: answer.bound)
    best = max((free, *tried.values()), key=lambda answer: float(answer.reached.sum()))
    return replace(best, bound=dual.bound, price=dual.price, price_s=dual.price_s)


def _clear(dual: FleetDual, tolerance: float) -> None:
    """Find the price of the band, every device free to take an update or not."""
    fleet = dual.fleet
    if len(fleet) <= _SAMPLED:
        everything = (fleet.rate * fleet.high).sum(axis=1)
        price = float(np.median(fleet.weight / everything)) * 0.1
    else:  # a few hundred of them tell the price nearly, to a few hundredths
        sample = fleet.sample(500)
        share = len(sample) / len(fleet)
        few = FleetDual(sample, dual.band * share, dual.price_s, dual.room_s * share)
        _clear(few, 1e-2)
        price, dual.slope = few.price, few.slope
    dual.root(price, None, tolerance)


def _serve(dual: FleetDual, room_s: float) -> Bools:
    """Fix who gets an update, and let them use the whole band."""
    fleet, cost = dual.fleet, dual.cost()
    surplus = dual.surplus - dual.hurdle
    served = surplus > 0
    left = dual.band - float(cost[served].sum())
    # Those nearest to gaining come next, while what they ask for fits into what is left.
    gains = dual.surplus + dual.price * cost > dual.hurdle
    order = np.argsort(-surplus, kind="stable")  # of alike devices the first ones
    for i in order[int(served.sum()) :]:
        if not gains[i] or cost[i] > left:
            break
        served[i], left = True, left - float(cost[i])
    if math.isfinite(room_s):
        work = np.where(served, _seconds(fleet, dual.bytes), 0.0)[order]
        served[order] &= np.cumsum(work) <= room_s
    if served.any():
        dual.root(dual.price, served, 1e-10 if dual.few else 4e-6)
    return np.asarray(served & (dual.value() > fleet.idle))


def _exchange(
    fleet: FleetColumns, n_bytes: Floats, reached: Floats, band_hz: float
) -> tuple[Floats, Floats]:
    """Share out anew what two devices have (and what nobody has), pair by pair, to the end."""
    joints: list[Joint] = []
    for kind, part in fleet.kinds:
        joints += [
            Joint.of(kind, row, float(m0))
            for row, m0 in zip(fleet.theta[part], fleet.m0[part], strict=True)
        ]

    def best(k: int, hz: float) -> tuple[float, float, float]:
        """Weighted mAP of device k with ``hz`` for itself, and its bytes."""
        (up, down), low, high = fleet.rate[k].tolist(), fleet.low[k], fleet.high[k]
        upload, update = Range(low[0], high[0]), Range(low[1], high[1])
        enough = up * low[0] + down * low[1] <= hz
        budget = Budget(
            up, down, hz, upload, update, 1.0, 0.0, 0.0, joints[k].m0, "" if enough else "too thin"
        )
        split = best_split(joints[k], budget)
        return float(fleet.weight[k]) * split[2], split[0], split[1]

    def share_out(i: int, j: int, hz: float) -> tuple[float, float]:
        """The best sum of two devices, and the first one's share of ``hz``."""
        low, high, most = 0.0, 1.0, (-math.inf, 0.0)
        for _ in range(6):
            shares = np.linspace(low, high, _SHARES)
            sums = [(best(i, s * hz)[0] + best(j, (1.0 - s) * hz)[0], float(s)) for s in shares]
            most = max(most, max(sums))
            step = (high - low) / (_SHARES - 1)
            low, high = max(0.0, most[1] - step), min(1.0, most[1] + step)
        return most

    n_bytes, reached = n_bytes.copy(), reached.copy()
    for _ in range(20):
        before = float(reached.sum())
        for i in range(len(fleet)):
            for j in range(i):
                pair = np.array([i, j])
                hz = band_hz - float((fleet.rate * n_bytes).sum())
                hz += float((fleet.rate[pair] * n_bytes[pair]).sum())
                total, share = share_out(i, j, hz)
                if total > float(reached[pair].sum()) + 1e-12:
                    for k, mine in ((i, share), (j, 1.0 - share)):
                        reached[k], n_bytes[k, 0], n_bytes[k, 1] = best(k, mine * hz)
        if float(reached.sum()) - before < 1e-10:
            break
    return n_bytes, reached
