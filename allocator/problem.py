"""The thin link and the rules of a period, as one linear constraint on bytes.

Both schedules come down to ``up·U + down·M <= room``: in hertz when uplink and downlink share
the band (pipelined), in seconds when they take turns (sequential).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeAlias

from endedge.data.errors import BadInput
from endedge.data.units import hz_for_bytes

__all__ = ["Budget", "Link", "Measured", "OperatingPoint", "Range", "Rules", "Split"]

Number: TypeAlias = Any  # float or float64 array


@dataclass(frozen=True)
class Range:
    """A closed range of bytes, 0 <= low <= high."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (0 <= self.low <= self.high and math.isfinite(self.high)):
            raise BadInput(f"byte range [{self.low}, {self.high}] needs 0 <= low <= high, finite")


@dataclass(frozen=True)
class OperatingPoint:
    """What a decision executes: N frames in a codec up, a package of a budget down."""

    frames: int
    codec: str
    upload_bytes: float
    budget_bytes: float
    update_bytes: float
    bits: float
    prune: float
    mode: str


class Measured(Protocol):
    """What of fitted curves bounds a problem: the mAP before any update, and the bytes that were
    measured."""

    @property
    def m0(self) -> float: ...

    @property
    def upload_range(self) -> Range: ...

    @property
    def update_range(self) -> Range: ...


@dataclass(frozen=True)
class Link:
    """One link for both directions: ``bandwidth_hz`` >= 0 over ``period_s`` > 0 seconds.

    Spectral efficiencies in bit/s/Hz; the defaults are those of Zhang et al., IEEE JSAC 43(1),
    2025. Raises :class:`BadInput` for anything negative, zero (but bandwidth) or not finite.
    """

    bandwidth_hz: float
    period_s: float
    up_bit_per_s_per_hz: float = 2.55
    down_bit_per_s_per_hz: float = 5.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.bandwidth_hz) and self.bandwidth_hz >= 0):
            raise BadInput(f"bandwidth_hz = {self.bandwidth_hz} must be finite and >= 0")
        for name in ("period_s", "up_bit_per_s_per_hz", "down_bit_per_s_per_hz"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise BadInput(f"{name} = {value} must be finite and > 0")

    def hz_for(self, upload_bytes: Number, update_bytes: Number) -> Number:
        """Bandwidth (Hz) that carries both in a period. Arrays broadcast."""
        up = hz_for_bytes(upload_bytes, self.up_bit_per_s_per_hz, self.period_s)
        return up + hz_for_bytes(update_bytes, self.down_bit_per_s_per_hz, self.period_s)


@dataclass(frozen=True)
class Rules:
    """What a period allows, and what counts.

    ``schedule``: ``pipelined`` (both directions all through T; the edge works on the last
    period's frames) or ``sequential`` (upload, edge, download, apply, one after another).
    ``edge_s`` and ``edge_s_per_upload_byte``: time of fine-tuning, distilling and packing,
    fixed and per uploaded byte; ``apply_s``: until the device runs the new model.
    ``objective``: ``average`` over the period (the ``stale_map`` model, by default m0, serves
    until the update is applied) or the mAP ``final``ly reached. ``upload_limits`` and
    ``update_limits``: what the device captured, what the packer reaches; by default the bytes
    that were measured, so that nothing extrapolates.
    """

    schedule: Literal["pipelined", "sequential"] = "pipelined"
    edge_s: float = 0.0
    edge_s_per_upload_byte: float = 0.0
    apply_s: float = 0.0
    objective: Literal["average", "final"] = "average"
    stale_map: float | None = None
    upload_limits: Range | None = None
    update_limits: Range | None = None

    def __post_init__(self) -> None:
        if self.schedule not in ("pipelined", "sequential"):
            raise BadInput(f"schedule {self.schedule!r}: write 'pipelined' or 'sequential'")
        if self.objective not in ("average", "final"):
            raise BadInput(f"objective {self.objective!r}: write 'average' or 'final'")
        for name in ("edge_s", "edge_s_per_upload_byte", "apply_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise BadInput(f"{name} = {value} must be finite and >= 0")
        if self.stale_map is not None and not 0 <= self.stale_map <= 1:
            raise BadInput(f"stale_map = {self.stale_map} must lie in [0, 1]")


@dataclass(frozen=True)
class Split:
    """A policy's decision: bytes that may flow each way in the period; 0, 0 is no update.

    ``codec`` names the one that frames are sent in (``jpeg-q75-320``), ``student`` the architecture
    that the package is of (as ``surface.csv`` has it); empty leaves it open.
    """

    upload_bytes: float
    update_bytes: float
    codec: str = ""
    student: str = ""

    @property
    def sends(self) -> bool:
        return self.upload_bytes > 0 and self.update_bytes > 0


@dataclass(frozen=True)
class Budget:
    """``up``·U + ``down``·M <= ``room`` with U and M in their ranges.

    Units of room: Hz (pipelined) or s (sequential). The new model is in use for the share
    ``fresh - fresh_up·U - fresh_down·M`` of the period, the ``stale`` one before.
    ``reason`` says why nothing can be sent, when nothing can.
    """

    up: float
    down: float
    room: float
    upload: Range
    update: Range
    fresh: float
    fresh_up: float
    fresh_down: float
    stale: float
    reason: str = ""

    @property
    def takes_time(self) -> bool:
        """Whether bytes shorten the time in which the new model is in use."""
        return self.fresh_up > 0 or self.fresh_down > 0

    @classmethod
    def of(cls, link: Link, rules: Rules, curves: Measured) -> Budget:
        """The constraint of ``link`` under ``rules`` with the ranges of ``curves``."""
        period, average = float(link.period_s), rules.objective == "average"
        upload = rules.upload_limits or curves.upload_range
        update = rules.update_limits or curves.update_range
        stale = curves.m0 if rules.stale_map is None else rules.stale_map
        reason = "" if link.bandwidth_hz > 0 else "the link has no bandwidth"
        if rules.schedule == "pipelined":
            up = 8.0 / (period * link.up_bit_per_s_per_hz)
            down = 8.0 / (period * link.down_bit_per_s_per_hz)
            room, unit, fresh_up, fresh_down = float(link.bandwidth_hz), "Hz", 0.0, 0.0
            fresh = 1.0 - rules.apply_s / period if average else 1.0
            left = period - rules.edge_s - rules.edge_s_per_upload_byte * upload.low
            if left < 0 or fresh <= 0:
                reason = reason or "the edge and the device need more than a period"
            elif rules.edge_s_per_upload_byte > 0:
                most = (period - rules.edge_s) / rules.edge_s_per_upload_byte
                upload = Range(upload.low, min(upload.high, most))
        else:
            hz = max(float(link.bandwidth_hz), 1e-300)
            up = 8.0 / (hz * link.up_bit_per_s_per_hz) + rules.edge_s_per_upload_byte
            down = 8.0 / (hz * link.down_bit_per_s_per_hz)
            room, unit = period - rules.edge_s - rules.apply_s, "s"
            fresh = room / period if average else 1.0
            fresh_up, fresh_down = (up / period, down / period) if average else (0.0, 0.0)
        need = up * upload.low + down * update.low
        if not reason and need > room:
            have = f"{max(room, 0.0):.4g} {unit}"
            reason = f"the least upload and package need {need:.4g} {unit}, there are {have}"
        return cls(up, down, room, upload, update, fresh, fresh_up, fresh_down, stale, reason)

    def cost(self, upload_bytes: float, update_bytes: float) -> float:
        """Room that these bytes take."""
        return self.up * upload_bytes + self.down * update_bytes

    def allows(self, split: Split, periods: int = 1) -> bool:
        """Whether a split is two sizes >= 0 that stay within the room (to 1e-9 of it) of so many
        ``periods``."""
        upload, update = split.upload_bytes, split.update_bytes
        if upload == update == 0:
            return True
        room = periods * self.room * (1 + 1e-9)
        return bool(min(upload, update) >= 0 and self.cost(upload, update) <= room)

    def within(self, share: float) -> Budget:
        """The same with only ``share`` of the room; nothing is sent where it is too little."""
        room = share * self.room
        need = self.cost(self.upload.low, self.update.low)
        short = f"the least upload and package need {need:.4g}, there are {room:.4g}"
        return replace(self, room=room, reason=self.reason or (short if need > room else ""))

    def with_upload(self, upload_bytes: float) -> Split:
        """This upload (clipped to what is possible), and all the model bytes left beside it."""
        if self.reason:
            return Split(0.0, 0.0)
        most = (self.room - self.down * self.update.low) / self.up
        upload = min(max(upload_bytes, self.upload.low), self.upload.high, most)
        update = min((self.room - self.up * upload) / self.down, self.update.high)
        return Split(upload, max(update, self.update.low))

    def with_share(self, share: float) -> Split:
        """Give ``share`` in [0, 1] of the room to the uplink and the rest to the downlink;
        what one direction cannot use, the other gets."""
        split = self.with_upload(share * self.room / self.up)
        if not split.sends or split.update_bytes < self.update.high:
            return split
        spare = (self.room - self.down * split.update_bytes) / self.up
        return Split(min(spare, self.upload.high), split.update_bytes)

    def fresh_share(self, upload_bytes: Number, update_bytes: Number) -> Number:
        """Share of the period in which the new model is in use (1 for a final objective)."""
        return self.fresh - self.fresh_up * upload_bytes - self.fresh_down * update_bytes

    def objective(self, map_: Number, upload_bytes: Number, update_bytes: Number) -> Number:
        """What an update that reaches ``map_`` is worth: mAP averaged over the period (or final),
        the ``stale`` one until it is in use. Arrays broadcast."""
        return self.stale + (map_ - self.stale) * self.fresh_share(upload_bytes, update_bytes)
