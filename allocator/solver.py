"""The split: bytes up against bytes down on one link, one device, fitted curves.

Guarantees (docs/curves.md): where the surface is log-concave the marginal condition
S_u·∂F/∂U = S_d·∂F/∂M is solved to floating-point accuracy; anywhere else branch and bound
(branch.py) proves the answer to be within 1e-8 mAP of the best. Not updating, which costs
nothing and keeps the stale model, is always among the answers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from scipy.optimize import brentq

from endedge.allocator.branch import best_anywhere, best_on_segment, worth
from endedge.allocator.curves import Curves
from endedge.allocator.joint import Joint
from endedge.allocator.link import Budget, Link, Rules, Split
from endedge.allocator.surface import OperatingPoint

__all__ = ["Allocation", "allocate", "best_split"]

_PIPELINED = Rules()


@dataclass(frozen=True)
class Allocation:
    """The answer to one period.

    ``upload_bytes`` U and ``update_bytes`` M with their bandwidth (``uplink_hz``,
    ``downlink_hz``; in the sequential schedule the band times the share of the period);
    ``predicted_map`` after the update, ``average_map`` over the period; ``upload_value`` and
    ``update_value``: mAP that one more hertz over the period would bring on either side (equal
    at an interior optimum); ``regime``: ``none`` (nothing is sent, ``reason`` says why),
    ``corner data`` (the model has its least bytes), ``corner model``, ``interior``,
    ``model saturated``, ``data saturated`` or ``saturated`` (everything fits).
    """

    curves: Curves
    link: Link
    upload_bytes: float
    update_bytes: float
    uplink_hz: float
    downlink_hz: float
    predicted_map: float
    average_map: float
    upload_value: float
    update_value: float
    regime: str
    reason: str
    extrapolates: bool

    @property
    def split(self) -> Split:
        return Split(self.upload_bytes, self.update_bytes)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """90 % bootstrap interval of ``predicted_map``; (m0, m0) when nothing is sent."""
        if not self.split.sends:
            return self.predicted_map, self.predicted_map
        low, high = self.curves.interval(self.upload_bytes, self.update_bytes)
        return float(low[0]), float(high[0])

    @cached_property
    def upload(self) -> OperatingPoint | None:
        """The measured upload (frames, codec) that fits: the last one on the envelope."""
        fits = [p for p in self.curves.uploads if p.upload_bytes <= self.upload_bytes * (1 + 1e-9)]
        return fits[-1] if fits else None

    @cached_property
    def update(self) -> OperatingPoint | None:
        """The measured package (budget, bits, pruning) that fits: the last on its envelope."""
        fits = [p for p in self.curves.updates if p.update_bytes <= self.update_bytes * (1 + 1e-9)]
        return fits[-1] if fits else None

    @property
    def frames(self) -> int:
        """Whole frames that fit into ``upload_bytes`` in the codec of :attr:`upload`."""
        if self.upload is None or self.upload.upload_bytes == 0:
            return 0
        a_frame = self.upload.upload_bytes / max(self.upload.frames, 1)
        return int(self.upload_bytes * (1 + 1e-9) / a_frame)


def allocate(curves: Curves, link: Link, rules: Rules = _PIPELINED) -> Allocation:
    """The best split of ``link`` for ``curves`` under ``rules``.

    Raises :class:`BadInput` only through its arguments; an infeasible period is an answer
    (regime ``none``), not an error.
    """
    budget = Budget.of(link, rules, curves)
    upload, update, value = best_split(curves.joint, budget)
    reason = budget.reason
    if not reason and not (upload > 0 or update > 0):
        reason = "no update beats the model in use"
    predicted = float(curves.predict(upload, update)) if not reason else curves.m0
    per_hz_up = link.period_s * link.up_bit_per_s_per_hz / 8.0
    per_hz_down = link.period_s * link.down_bit_per_s_per_hz / 8.0
    slopes = curves.joint.slopes(upload, update) if not reason else (0.0, 0.0)
    return Allocation(
        curves=curves,
        link=link,
        upload_bytes=upload,
        update_bytes=update,
        uplink_hz=upload / per_hz_up,
        downlink_hz=update / per_hz_down,
        predicted_map=predicted,
        average_map=min(max(value, 0.0), 1.0),
        upload_value=float(slopes[0]) * per_hz_up,
        update_value=float(slopes[1]) * per_hz_down,
        regime=_regime(curves.joint, budget, upload, update) if not reason else "none",
        reason=reason,
        extrapolates=not reason and bool(curves.extrapolates(upload, update)),
    )


def best_split(joint: Joint, budget: Budget) -> tuple[float, float, float]:
    """(U, M, objective) of the best split; (0, 0, stale mAP) when no update beats it."""
    nothing = (0.0, 0.0, budget.stale)
    if budget.reason:
        return nothing
    if budget.fresh_up > 0 or budget.fresh_down > 0:
        found = best_anywhere(joint, budget)
    else:
        found = _on_the_line(joint, budget)
    return found if found[2] > budget.stale else nothing


def _on_the_line(joint: Joint, budget: Budget) -> tuple[float, float, float]:
    """The best point where bytes cost room but no time: all the room is used, or all fits."""
    u, m = budget.upload, budget.update
    if budget.cost(u.high, m.high) <= budget.room:
        upload = u.high
    else:
        low = max(u.low, (budget.room - budget.down * m.high) / budget.up)
        high = min(u.high, (budget.room - budget.down * m.low) / budget.up)
        if not joint.is_log_concave:
            ends = [(x, (budget.room - budget.up * x) / budget.down) for x in (low, high)]
            return best_on_segment(joint, budget, ends[0], ends[1])
        upload = _marginal_root(joint, budget, low, high)
    update = min((budget.room - budget.up * upload) / budget.down, m.high)
    update = max(update, m.low)
    return upload, update, float(worth(joint, budget, upload, update))


def _marginal_root(joint: Joint, budget: Budget, low: float, high: float) -> float:
    """Where the marginal value of room is equal on both sides, U in [low, high].

    The difference of the two falls in U (of logarithms for a product), so its sign at an
    end tells a corner and one bracketed root is the optimum.
    """
    additive = joint.kind.composition == "additive"
    exchange = budget.up / budget.down

    def pull(upload: float) -> float:
        update = max((budget.room - budget.up * upload) / budget.down, 0.0)
        up, down = joint.data_slope(upload), joint.model_slope(update) * exchange
        if additive:
            return float(up - joint.depth * down)
        gained, kept = joint.data(upload) - joint.base, joint.model(update)
        if gained <= 0.0:
            return math.inf
        return float(up * kept - gained * down) if kept > 0.0 else -math.inf

    if pull(low) <= 0.0:
        return low
    if pull(high) >= 0.0:
        return high
    # brentq wants finite ends: walk off the regions where one factor is not positive.
    while math.isinf(pull(low)) or math.isinf(pull(high)):
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        if pull(middle) > 0.0:
            low = middle
        else:
            high = middle
    return float(brentq(pull, low, high, xtol=1e-9 * high, rtol=1e-12))


def _regime(joint: Joint, budget: Budget, upload: float, update: float) -> str:
    near = 1e-6
    full_model = update >= budget.update.high * (1 - near) or joint.model(update) >= 1 - 1e-9
    full_data = upload >= budget.upload.high * (1 - near)
    if full_model and full_data:
        return "saturated"
    if full_model:
        return "model saturated"
    if full_data:
        return "data saturated"
    if update <= budget.update.low * (1 + near):
        return "corner data"
    if upload <= budget.upload.low * (1 + near):
        return "corner model"
    return "interior"
