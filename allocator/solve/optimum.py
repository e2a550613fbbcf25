"""The split: bytes up against bytes down on one link, one device, fitted curves.

Guarantees (docs/curves.md): where the surface is log-concave, or additive with a concave data
curve, the marginal condition S_u·∂F/∂U = S_d·∂F/∂M is solved to floating-point accuracy;
anywhere else branch and bound (branch_and_bound.py) proves the answer to be within 1e-8 mAP of the
best. Not updating, which costs nothing and keeps the stale model, is always among the answers.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from endedge.allocator import display as show
from endedge.allocator.accuracy.fitted import Fitted, Options
from endedge.allocator.accuracy.joint import Joint
from endedge.allocator.accuracy.shapes import TINY
from endedge.allocator.problem import Budget, Link, OperatingPoint, Rules, Split
from endedge.allocator.solve.branch_and_bound import best_anywhere, best_on_segment, worth

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Allocation", "allocate", "best_point", "best_split", "describe"]

_PIPELINED = Rules()
_ENDLESS = 1e4  # beyond any logarithm of a ratio of floats


@dataclass(frozen=True)
class Allocation:
    """The answer to one period.

    ``upload_bytes`` U and ``update_bytes`` M with their bandwidth (``uplink_hz``,
    ``downlink_hz``; in the sequential schedule the band times the share of the period);
    ``predicted_map`` after the update (of the model in use, where nothing is sent),
    ``average_map`` over the period; ``upload_value`` and
    ``update_value``: mAP that one more hertz over the period would bring on either side (equal
    at an interior optimum); ``regime``: ``none`` (nothing is sent, ``reason`` says why),
    ``corner data`` (the model has its least bytes), ``corner model``, ``interior``,
    ``model saturated``, ``data saturated`` or ``saturated`` (everything fits).
    """

    curves: Fitted = field(repr=False)
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
        """90 % interval of ``predicted_map``; that itself, twice, when nothing is sent."""
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

    def record(self) -> dict[str, Any]:
        """The answer as plain numbers and text: what ``endedge allocate --json`` prints."""
        low, high = self.interval
        return {
            "regime": self.regime,
            "reason": self.reason,
            "uplink_hz": self.uplink_hz,
            "downlink_hz": self.downlink_hz,
            "upload_bytes": self.upload_bytes,
            "update_bytes": self.update_bytes,
            "frames": self.frames,
            "codec": self.upload.codec if self.upload else None,
            "bits": _known(self.update.bits) if self.update else None,
            "prune": _known(self.update.prune) if self.update else None,
            "predicted_map": self.predicted_map,
            "predicted_map_low": low,
            "predicted_map_high": high,
            "average_map": self.average_map,
            "upload_value_map_per_hz": self.upload_value,
            "update_value_map_per_hz": self.update_value,
            "extrapolates": self.extrapolates,
            "m0": self.curves.m0,
        }

    def frame(self) -> DataFrame:
        """:meth:`record` as a pandas table of one row."""
        return show.data_frame([self.record()])

    def __str__(self) -> str:
        """What ``endedge allocate`` prints."""
        used = self.uplink_hz + self.downlink_hz
        share = self.uplink_hz / used if used > 0 else 0.0
        low, high = self.interval
        sent = f"{self.frames} frames, {self.upload.codec}" if self.upload else "nothing"
        package = self.update
        model = f": {package.bits:.1f} bits, {package.prune:.0%} pruned" if package else ""
        before = self.curves.m0
        accuracy = f"{100 * self.predicted_map:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
        lines = [
            f"regime      {self.regime}" + (f" ({self.reason})" if self.reason else ""),
            f"uplink      {self.uplink_hz:,.0f} Hz ({share:.0%} of what is used)",
            f"            {self.upload_bytes:,.0f} B: {sent}",
            f"downlink    {self.downlink_hz:,.0f} Hz",
            f"            {self.update_bytes:,.0f} B{model}",
            f"mAP         {accuracy} from {100 * before:.1f} %",
        ]
        if self.extrapolates:
            lines.append("warning     outside the measured bytes: the curves extrapolate")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def _known(value: float) -> float | None:
    """JSON has no NaN: what was not measured is null."""
    return None if math.isnan(value) else value


def allocate(curves: Fitted, link: Link, rules: Rules = _PIPELINED) -> Allocation:
    """The best split of ``link`` for ``curves`` under ``rules``.

    Raises :class:`BadInput` only through its arguments; an infeasible period is an answer
    (regime ``none``), not an error.
    """
    budget = Budget.of(link, rules, curves)
    return describe(curves, link, budget, *best_split(curves.joint, budget))


def describe(
    curves: Fitted, link: Link, budget: Budget, upload: float, update: float, value: float
) -> Allocation:
    """All that is to say about U and M bytes whose objective is ``value``."""
    reason = budget.reason
    if not reason and not (upload > 0 or update > 0):
        reason = "no update beats the model in use"
    predicted = float(curves.predict(upload, update)) if not reason else budget.stale
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
    takes_time = budget.fresh_up > 0 or budget.fresh_down > 0
    if takes_time and joint.is_log_concave and budget.stale >= joint.base:
        found = _best_time(joint, budget)
    elif takes_time:
        found = best_anywhere(joint, budget)
    else:
        found = _on_the_line(joint, budget, budget.room)
    return found if found[2] > budget.stale else nothing


def best_point(
    points: Options, accuracy: NDArray[np.float64], budget: Budget
) -> tuple[int | None, float]:
    """The best measured operating point (row) that fits, by ``accuracy`` (n,), and its
    objective: exact, by enumeration. None and the stale mAP when no point beats it.

    Of equal ones the one with the most bytes: a saturated curve says that they do not help, and
    left unused they cannot.
    """
    u, m = points.upload_bytes, points.update_bytes
    value = budget.objective(accuracy, u, m)
    fits = budget.up * u + budget.down * m <= budget.room * (1 + 1e-9)
    fits &= (u <= budget.upload.high * (1 + 1e-9)) & (m <= budget.update.high * (1 + 1e-9))
    if budget.reason or not fits.any():
        return None, budget.stale
    value = np.where(fits, value, -np.inf)
    equal = value >= value.max() - 1e-12
    best = int(np.argmax(np.where(equal, budget.up * u + budget.down * m, -1.0)))
    return (best, float(value[best])) if value[best] > budget.stale else (None, budget.stale)


def _best_time(joint: Joint, budget: Budget) -> tuple[float, float, float]:
    """The best point where bytes take time from the new model (``fresh_up`` and
    ``fresh_down`` are then the same multiple of ``up`` and ``down``).

    V(s), the best accuracy that air time s buys, less the stale one is log-concave in s, and
    so is its product with the time left: one root in s over the roots of the split.
    """
    u, m = budget.upload, budget.update
    per_room = budget.fresh_up / budget.up

    def pull(room: float) -> float:
        upload, update, _ = _on_the_line(joint, budget, room)
        gained, left = joint.value(upload, update) - budget.stale, budget.fresh - per_room * room
        if gained <= 0.0:
            return _ENDLESS
        by_upload, by_update = joint.slopes(upload, update)
        # What more room buys: where both sides may move they agree, except at the kink of a
        # capped model curve, where only the data still gain.
        by_room = by_upload / budget.up
        if not u.low < upload < u.high:
            by_room = by_update / budget.down if update < m.high else 0.0
        return _log_ratio(by_room * left, gained * per_room)

    least = budget.cost(u.low, m.low)
    most = min(budget.room, budget.cost(u.high, m.high))
    # At the corners themselves it is not defined which side would move: step 1e-8 inside.
    low, high = least + 1e-8 * (most - least), most - 1e-8 * (most - least)
    if pull(high) >= 0.0:
        return _on_the_line(joint, budget, most)
    if pull(low) <= 0.0:
        return _on_the_line(joint, budget, least)
    room = float(brentq(pull, low, high, xtol=1e-9 * most, rtol=1e-12))
    return _on_the_line(joint, budget, room)


def _on_the_line(joint: Joint, budget: Budget, room: float) -> tuple[float, float, float]:
    """The best point that uses all of ``room``, or everything that there is to send."""
    u, m = budget.upload, budget.update
    if budget.cost(u.high, m.high) <= room:
        return u.high, m.high, float(worth(joint, budget, u.high, m.high))
    low = max(u.low, (room - budget.down * m.high) / budget.up)
    high = max(low, min(u.high, (room - budget.down * m.low) / budget.up))

    def at(upload: float) -> tuple[float, float, float]:
        update = max(min((room - budget.up * upload) / budget.down, m.high), m.low)
        return upload, update, float(worth(joint, budget, upload, update))

    if joint.is_log_concave:
        pull = _pull(joint, budget, room)
        return at(_root(pull, room / budget.up, low, high))
    if joint.has_one_bend:
        found, most_data = at(_last_root(joint, budget, room, low, high)), at(high)
        return found if found[2] >= most_data[2] else most_data
    ends = [(x, (room - budget.up * x) / budget.down) for x in (low, high)]
    return best_on_segment(joint, budget, ends[0], ends[1])


def _pull(joint: Joint, budget: Budget, room: float) -> Callable[[float], float]:
    """The logarithm of what a little room is worth for U over what it is worth for M, as a
    function of U where U and M take all of ``room``."""
    data, model, up, down = joint.kind.data_shape, joint.kind.model_shape, budget.up, budget.down
    data_s, model_s, base, depth = joint.data_s, joint.model_s, joint.base, joint.depth
    start, gain, u0, m0 = joint.start - base, joint.gain, joint.u0_bytes, joint.m0_bytes
    exchange = down * m0 / (up * u0) * gain
    additive = joint.kind.composition == "additive"

    def pull(upload: float) -> float:
        x, z = upload / u0 + TINY, max((room - up * upload) / down, 0.0) / m0 + TINY
        rise, kept = data.value(x, data_s), model.value(z, model_s)
        by_upload = data.slope(x, data_s, rise) * exchange
        by_update = model.slope(z, model_s, kept)
        if additive:
            return _log_ratio(by_upload, depth * by_update)
        above = start + gain * rise
        if above <= 0.0:
            return _ENDLESS
        if kept <= 0.0:
            return -_ENDLESS
        return _log_ratio(by_upload * kept, above * by_update)

    return pull


def _root(pull: Callable[[float], float], whole: float, low: float, high: float) -> float:
    """Where the marginal value of room is equal on both sides, U in [low, high].

    ``pull`` crosses zero once, downwards, so its sign at an end tells a corner and one
    bracketed root is the optimum. It is searched in the logit of the share of ``whole``, in
    which it is nearly straight.
    """
    if low >= high or pull(low) <= 0.0:
        return low
    if pull(high) >= 0.0:
        return high
    ends = [math.log(max(x, 1e-12 * whole) / max(whole - x, 1e-12 * whole)) for x in (low, high)]
    logit = brentq(lambda t: pull(whole / (1.0 + math.exp(-t))), ends[0], ends[1], xtol=1e-9)
    return min(max(whole / (1.0 + math.exp(-logit)), low), high)


def _last_root(joint: Joint, budget: Budget, room: float, low: float, high: float) -> float:
    """The one inner maximum of an additive surface whose data curve is concave, as U; ``high``
    (least model) when there is none.

    Up to the bend of the model curve −pull is concave in M, and beyond it falls
    (docs/curves.md): it is positive on one interval of M at most, and where that ends
    upwards is the maximum. So one model size where it is positive brackets it.
    """
    pull, whole = _pull(joint, budget, room), room / budget.up
    if low >= high or pull(low) <= 0.0:
        return low

    def upload_at(update: float) -> float:
        return min(max((room - budget.down * update) / budget.up, low), high)

    data, model = joint.kind.data_shape, joint.kind.model_shape
    u0, m0 = joint.u0_bytes, joint.m0_bytes
    bend = float(model.peak(joint.model_s)) * m0
    for near in (bend * (1 - 1e-9), bend * (1 + 1e-9)):  # a shape may jump there
        if pull(upload_at(near)) <= 0.0:
            return _root(pull, whole, low, upload_at(near))

    def steeper(upload: float) -> float:
        """How −pull changes with M, per byte."""
        x = upload / u0 + TINY
        z = max((room - budget.up * upload) / budget.down, 0.0) / m0 + TINY
        by_data = data.bend(x, joint.data_s, data.value(x, joint.data_s)) / u0
        by_model = model.bend(z, joint.model_s, model.value(z, joint.model_s)) / m0
        return float(by_model + by_data * budget.down / budget.up)

    ends = upload_at(bend), high
    if ends[0] >= ends[1] or steeper(ends[0]) >= 0.0 or steeper(ends[1]) <= 0.0:
        return high
    top = float(brentq(steeper, ends[0], ends[1], xtol=1e-12 * whole))
    return _root(pull, whole, low, top) if pull(top) <= 0.0 else high


def _log_ratio(x: float, y: float) -> float:
    return math.log(max(x, 1e-300)) - math.log(max(y, 1e-300))


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
