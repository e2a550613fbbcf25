"""The split: bytes up against bytes down on one link, one device, fitted curves.

Where both directions may move, the best split is where one more hertz brings the same on either
side: S_u·∂F/∂U = S_d·∂F/∂M. search.py finds it. Not updating, which costs nothing and keeps the
stale model, is always among the answers.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from endedge.allocator import display as show
from endedge.allocator.accuracy.fitted import Fitted, Options
from endedge.allocator.accuracy.joint import Joint
from endedge.allocator.accuracy.shapes import Number
from endedge.allocator.problem import Budget, Link, OperatingPoint, Rules, Split
from endedge.allocator.solve.search import Best, best_by, best_split
from endedge.data.errors import BadInput

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Allocation", "allocate", "best_point"]

_PIPELINED = Rules()


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


def allocate(
    curves: Fitted, link: Link, rules: Rules = _PIPELINED, quantile: float | None = None
) -> Allocation:
    """The best split of ``link`` for ``curves`` under ``rules``; with a ``quantile`` in (0, 1) the
    one whose objective has the best such quantile over the bootstrap curves, and ``average_map``
    is that quantile.

    Raises :class:`BadInput` for a quantile outside (0, 1), or of curves without replicates; an
    infeasible period is an answer (regime ``none``), not an error.
    """
    budget = Budget.of(link, rules, curves)
    if quantile is None:
        return _described(curves, link, budget, best_split(curves.joint, budget))
    if not 0 < quantile < 1:
        raise BadInput(f"quantile {quantile} must lie between 0 and 1")
    if not curves.replicates:
        raise BadInput("a quantile needs curves with bootstrap replicates; fit them with some")

    def lower(upload: Number, update: Number) -> Number:
        flat = upload.ravel(), update.ravel()
        drawn = budget.objective(curves.draws(*flat), *flat)
        return np.quantile(drawn, quantile, axis=0).reshape(upload.shape)

    return _described(curves, link, budget, best_by(lower, budget))


def _described(curves: Fitted, link: Link, budget: Budget, best: Best) -> Allocation:
    """All that is to say about the best U and M."""
    upload, update, value = best
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
