"""What a split costs and what it returns."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from endedge.allocator.accuracy.fitted import Fitted
from endedge.allocator.problem import Budget, Link, Rules
from endedge.allocator.solve.fleet_dual import FleetColumns, FleetDual
from endedge.data.errors import BadInput

__all__ = ["Ledger", "Prices", "ledger", "worthwhile"]


@dataclass(frozen=True)
class Prices:
    """In one currency, all >= 0: a gigabyte (1e9 bytes) each way, an hour of the edge's GPU, a
    visit to the device, and one mAP point (0.01) held for an hour."""

    up_per_gb: float = 0.0
    down_per_gb: float = 0.0
    edge_gpu_hour: float = 0.0
    device_visit: float = 0.0
    map_point_hour: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value >= 0):
                raise BadInput(f"price {field.name} = {value} must be finite and >= 0")


@dataclass(frozen=True)
class Ledger:
    """One period: costs, ``gain`` = value of the accuracy above m0, ``net`` = gain − costs,
    ``rate_of_return`` = net / costs (infinite when nothing is paid)."""

    uplink: float
    downlink: float
    edge: float
    visits: float
    gain: float

    @property
    def cost(self) -> float:
        return self.uplink + self.downlink + self.edge + self.visits

    @property
    def net(self) -> float:
        return self.gain - self.cost

    @property
    def rate_of_return(self) -> float:
        return self.net / self.cost if self.cost > 0 else math.inf


def ledger(
    prices: Prices,
    *,
    upload_bytes: float,
    update_bytes: float,
    average_map: float,
    m0: float,
    period_s: float,
    edge_s: float = 0.0,
    visits: float = 0.0,
) -> Ledger:
    """The books of one period, of a predicted or of a measured accuracy alike.

    ``edge_s``: seconds of the edge's GPU; ``visits``: expected visits to the device (e.g. the
    share of updates that fail and need one).

    Args:
        prices: per gigabyte, GPU hour, visit and mAP point held for an hour, in one currency.
        upload_bytes: sent up in the period, >= 0.
        update_bytes: sent down, >= 0.
        average_map: mAP in [0, 1] averaged over the period.
        m0: mAP in [0, 1] without an update; below ``average_map`` the gain is positive.
        period_s: between two updates, > 0.
        edge_s: seconds of the edge's GPU, >= 0.
        visits: expected number of visits, >= 0.
    """
    return Ledger(
        uplink=prices.up_per_gb * upload_bytes / 1e9,
        downlink=prices.down_per_gb * update_bytes / 1e9,
        edge=prices.edge_gpu_hour * edge_s / 3600.0,
        visits=prices.device_visit * visits,
        gain=prices.map_point_hour * (average_map - m0) * 100.0 * period_s / 3600.0,
    )


def worthwhile(
    curves: Fitted, link: Link, prices: Prices, rules: Rules | None = None
) -> tuple[float, float, float]:
    """(bandwidth in Hz, U, M): beyond this bandwidth another bit costs more than it returns.

    U and M maximise the value of F(U, M) less the price of the bytes, whatever the link (its
    bandwidth is not used); the bandwidth is what carries them in the pipelined schedule.
    (0, 0, 0) when no update pays for its bytes, the edge's ``edge_s`` included. Where bytes
    are free, the limits of the rules decide.
    """
    rules = rules or Rules()
    if rules.schedule != "pipelined":
        raise BadInput("worthwhile bandwidth is defined for the pipelined schedule")
    budget = Budget.of(link, rules, curves)
    joint = curves.joint
    fleet = FleetColumns(
        kinds=((joint.kind, slice(0, 1)),),
        theta=joint.theta[None],
        m0=np.array([joint.m0]),
        weight=np.array([prices.map_point_hour * 100.0 * link.period_s / 3600.0 * budget.fresh]),
        rate=np.array([[prices.up_per_gb, prices.down_per_gb]]) / 1e9,
        low=np.array([[budget.upload.low, budget.update.low]]),
        high=np.array([[budget.upload.high, budget.update.high]]),
    )
    if fleet.weight[0] <= 0:
        return 0.0, 0.0, 0.0
    dual = FleetDual(fleet, 0.0)
    dual.search(1.0)
    edge_s = rules.edge_s + rules.edge_s_per_upload_byte * float(dual.bytes[0, 0])
    pays = float(dual.surplus[0] - fleet.idle[0]) - prices.edge_gpu_hour * edge_s / 3600.0
    if pays <= 0:
        return 0.0, 0.0, 0.0
    upload, update = (float(x) for x in dual.bytes[0])
    return budget.cost(upload, update), upload, update
