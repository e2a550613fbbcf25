"""Who decides the split of a round's air time: fixed shares, or curves re-fitted as it goes.

A round is sequential (TDD): uploads, the edge's work, packages, one after the other on one band.
So bytes cost seconds, and all devices together have what the edge leaves of the period.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from endedge.allocator import Curves, Joint, Kind, Range, Split, Surface, allocate_fleet, fit
from endedge.allocator.problem import Budget
from endedge.allocator.solve.fleet import Device
from endedge.data.errors import BadInput
from endedge.lab.config import Config, loop_of

__all__ = ["Air", "Prior", "adaptive", "check_policy", "refit", "static"]

_EXPLORED = (0.5, 0.8, 0.65, 0.9)  # shares of the uplink while nothing is known
_COLD_KINDS = (Kind("share", "power", "exponential"), Kind("share", "exponential", "exponential"))
_WEIGHT = 4  # copies of a fresh observation beside one of each cell of the prior
_NAMES = r"(adaptive|equal|data-only|model-only|no-update|static-0\.\d+)(\+redacted)?"
_FEDERATED = r"federated(-0\.\d+)?"


def check_policy(name: str) -> None:
    """Raises :class:`BadInput` for a policy that there is not."""
    if not re.fullmatch(f"{_NAMES}|{_FEDERATED}", name):
        raise BadInput(
            f"loop.policies: no policy {name!r}; there are adaptive, equal, data-only, model-only, "
            "static-0.8, each also as NAME+redacted, no-update, federated, federated-0.4"
        )


@dataclass(frozen=True)
class Air:
    """One period's air time: ``room_s`` for ``devices`` devices; seconds a byte each way; the
    bytes that may be sent."""

    room_s: float
    devices: int
    up_s: float
    down_s: float
    upload: Range
    update: Range

    @classmethod
    def of(cls, config: Config, frame_bytes: tuple[float, float]) -> Air:
        """``frame_bytes``: mean and largest bytes of an encoded frame."""
        loop, link = loop_of(config), config.link
        mean, largest = frame_bytes
        latency_s = 2 * loop.latency_s * len(loop.days)
        deadline_s = min(loop.deadline_s or link.period_s, link.period_s)
        return cls(
            deadline_s - loop.edge_s * len(loop.days) - latency_s,
            len(loop.days),
            8 / (loop.bandwidth_hz * link.up_bit_per_s_per_hz),
            8 / (loop.bandwidth_hz * link.down_bit_per_s_per_hz),
            Range(
                config.edge.least_frames * largest + 32,
                loop.frames_per_period * (mean + largest) / 2,
            ),
            Range(min(config.downlink.budgets_bytes), max(config.downlink.budgets_bytes)),
        )

    def cost_s(self, split: Split) -> float:
        """Seconds of air that a split takes."""
        return self.up_s * split.upload_bytes + self.down_s * split.update_bytes

    @property
    def slot(self) -> Budget:
        """An equal slot of one device."""
        room_s = self.room_s / self.devices
        need_s = self.up_s * self.upload.low + self.down_s * self.update.low
        reason = (
            ""
            if need_s <= room_s
            else (f"the least upload and package need {need_s:.3g} s, a slot has {room_s:.3g} s")
        )
        return Budget(self.up_s, self.down_s, room_s, self.upload, self.update, 1, 0, 0, 0, reason)


def static(name: str, air: Air) -> Split:
    """The split of every device under a policy that never looks."""
    slot = air.slot
    if name == "no-update" or slot.reason:
        return Split(0.0, 0.0)
    if name == "data-only":
        return replace(slot.with_upload(math.inf), update_bytes=slot.update.low)
    if name == "model-only":
        return slot.with_upload(0.0)
    return slot.with_share(0.5 if name == "equal" else float(name.rpartition("-")[2]))


@dataclass(frozen=True)
class Prior:
    """What an earlier `endedge run` measured, and the kind of curves that fitted it best."""

    surface: Surface
    kind: Kind

    @classmethod
    def read(cls, folder: Path) -> Prior:
        """From ``surface.csv`` (and ``curves.json``, if it is there) of a results folder."""
        surface = Surface.read(folder / "surface.csv")
        if (folder / "curves.json").is_file():
            return cls(surface, Curves.load(folder / "curves.json").joint.kind)
        return cls(surface, _COLD_KINDS[0])


def adaptive(
    round_index: int,
    seen: Sequence[Sequence[Mapping[str, Any]]],
    air: Air,
    prior: Prior | None,
    half_life_rounds: float,
) -> tuple[list[Split], list[str]]:
    """The split of every device from its curves, re-fitted to ``seen`` (a list a device of its
    rounds so far), and these curves in words. Devices share the air at one price a second. A device
    without curves explores, and so does one whose curves promise nothing, with air that is left:
    an update that does not help is not sent, and one that is never tried is never learned."""
    joints = [refit(rows, round_index, prior, half_life_rounds) for rows in seen]
    explored = air.slot.with_share(_EXPLORED[(round_index - 1) % len(_EXPLORED)])
    splits = [Split(0.0, 0.0) if joint else explored for joint in joints]
    sure = [i for i, joint in enumerate(joints) if joint is not None]
    if sure:
        fleet = [
            Device(j, air.upload, air.update, 1.0, 1.0 / air.up_s, 1.0 / air.down_s)
            for j in joints
            if j is not None
        ]
        # Seconds of air take the place of hertz: 8 / (8 s · byte/s) = 1 / (byte/s).
        room_s = air.room_s * len(sure) / air.devices
        found = allocate_fleet(fleet, room_s, period_s=8.0)
        for i, up, down in zip(sure, found.upload_bytes, found.update_bytes, strict=True):
            splits[i] = Split(float(up), float(down))
        left_s = air.room_s - sum(map(air.cost_s, splits))
        for i in sure:
            if not splits[i].sends and air.cost_s(explored) <= left_s:
                splits[i], left_s = explored, left_s - air.cost_s(explored)
    return splits, ["" if joint is None else _words(joint) for joint in joints]


def _words(joint: Joint) -> str:
    named = " ".join(f"{name}={value:.4g}" for name, value in joint.parameters().items())
    return f"{joint.kind} {named}"


def refit(
    rows: Sequence[Mapping[str, Any]],
    round_index: int,
    prior: Prior | None,
    half_life_rounds: float,
) -> Joint | None:
    """Curves of one device from its earlier rounds: what each gained over the model before, on
    frames kept for decisions, as if gained over the prior's start. An observation counts half
    after ``half_life_rounds``. None while there is too little to fit."""
    observed = [r for r in rows if r["upload_bytes"] > 0 and r["update_bytes"] > 0]
    if not observed and prior is None:
        return None
    m0 = float(prior.surface.m0.mean()) if prior else 0.5
    cells: list[Mapping[str, Any]] = []
    if prior is not None:
        s = prior.surface
        cells += [
            {
                "seed": 0,
                "frames": f,
                "codec": "prior",
                "upload_bytes": u,
                "budget_bytes": b,
                "update_bytes": d,
                "map": v,
                "m0": m0,
            }
            for f, u, b, d, v in zip(
                s.frames, s.upload_bytes, s.budget_bytes, s.update_bytes, s.map, strict=True
            )
        ]
    for r in observed:
        age = round_index - 1 - r["round"]
        gained = min(max(m0 + r["monitor_after"] - r["monitor_before"], 0.0), 1.0)
        cell = {
            "seed": 0,
            "frames": r["frames"],
            "codec": "prior" if prior else "seen",
            "upload_bytes": r["upload_bytes"],
            "budget_bytes": r["update_bytes"],
            "update_bytes": r["update_bytes"],
            "map": gained,
            "m0": m0,
        }
        cells += [cell] * round(_WEIGHT * 0.5 ** (age / half_life_rounds))
    try:
        kinds = [prior.kind] if prior else list(_COLD_KINDS)
        return fit(Surface.from_rows(cells), m0=m0, kinds=kinds, replicates=0).joint
    except BadInput:  # fewer than three uploads or two packages so far
        return None
