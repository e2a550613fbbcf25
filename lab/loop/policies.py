"""Who decides the split of a round's air time: a policy of the registry, or curves re-fitted.

The policies are those of :mod:`endedge.allocator.policies`. Each is told what one device's equal
slot of the air allows, what that device's rounds gained so far, and the curves fitted to these.
Only ``adaptive`` decides for all devices at once, and ``federated`` sends no frame.

A round is sequential (TDD): uploads, the edge's work, packages, one after the other on one band.
So bytes cost seconds, and all devices together have what the edge leaves of the period.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from endedge.allocator import (
    Curves,
    Joint,
    Kind,
    Known,
    Link,
    Observed,
    Points,
    Range,
    Split,
    Surface,
    allocate_fleet,
    decide,
    fit,
    policies,
    registry,
)
from endedge.allocator.policies import NOT_FITTED, TooEarly
from endedge.allocator.problem import Budget
from endedge.allocator.solve.fleet import Device
from endedge.data.errors import BadInput
from endedge.lab.config import Config, loop_of

__all__ = [
    "Air",
    "Prior",
    "adaptive",
    "check_policy",
    "refit",
    "source_of",
    "split_of",
    "told",
    "watches",
]

_EXPLORED = (0.5, 0.8, 0.65, 0.9)  # shares of the uplink while nothing is known
_COLD_KINDS = (Kind("share", "power", "exponential"), Kind("share", "exponential", "exponential"))
_PACKAGES = 16  # sizes of a package that a policy may choose among
_WEIGHT = 4  # copies of a fresh observation beside one of each cell of the prior
_REPLICATES = 20  # bootstrap surfaces behind the curves that a policy is told
_FEDERATED = r"federated(-0\.\d+)?"
_BLIND = r"equal|data-only|model-only|no-update|static-0\.\d+"  # they look at nothing that happens


def check_policy(name: str) -> None:
    """Raises :class:`BadInput` for a policy that cannot be played in a loop."""
    policy = name.removesuffix("+redacted")
    if re.fullmatch(_FEDERATED, name) or policy == "adaptive":
        return
    if policies.hindsight(policy):
        raise BadInput(f"loop.policies: {policy} has to know how every round ends; not in a loop")
    try:
        policies.find(policy)
    except BadInput:
        known = sorted(n for n in registry() if not policies.hindsight(n))
        raise BadInput(
            f"loop.policies: no policy {name!r}; there are adaptive, {', '.join(known)}, "
            "static-0.8, each also as NAME+redacted, and federated, federated-0.4"
        ) from None


def watches(policy: str) -> bool:
    """Whether a policy is told what its rounds gained; to measure that takes time."""
    return not re.fullmatch(f"{_BLIND}|{_FEDERATED}", policy)


def source_of(policy: str) -> str | None:
    """Hash of the file of a policy that did not come with endedge: another file, other rounds."""
    if policy == "adaptive" or not watches(policy):
        return None
    made = policies.find(policy)
    if getattr(made, "__module__", "").startswith("endedge."):
        return None
    try:
        file = inspect.getsourcefile(made)
    except TypeError:  # an object that is called: the file of its class
        file = inspect.getsourcefile(type(made))
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None


@dataclass(frozen=True)
class Air:
    """One period's air time: ``room_s`` for ``devices`` devices; seconds a byte each way; the
    bytes that may be sent; the whole ``link``; the most ``frames`` of an upload."""

    room_s: float
    devices: int
    up_s: float
    down_s: float
    upload: Range
    update: Range
    link: Link
    frames: int

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
            Range(min(config.downlink.budgets), max(config.downlink.budgets)),
            link.at(loop.bandwidth_hz),
            loop.frames_per_period,
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

    @property
    def options(self) -> Points:
        """Uploads and packages to choose among, evenly over what may be sent."""
        up = np.linspace(self.upload.low, self.upload.high, self.frames)
        down = np.geomspace(self.update.low, self.update.high, _PACKAGES)
        uploads, updates = (a.ravel() for a in np.meshgrid(up, down, indexing="ij"))
        n, unknown = len(uploads), np.full(len(uploads), np.nan)
        return Points(
            frames=np.maximum(np.rint(uploads / self.upload.high * self.frames), 1.0),
            codec=np.full(n, ""),
            upload_bytes=uploads,
            budget_bytes=updates,
            update_bytes=updates,
            bits=unknown,
            prune=unknown,
            mode=np.full(n, ""),
            map=unknown,
            map_error=unknown,
            seeds=np.zeros(n),
            student=np.full(n, ""),
        )


def split_of(
    policy: str,
    air: Air,
    curves: Curves | None = None,
    history: Sequence[Observed] = (),
    seed: int = 0,
) -> Split:
    """What ``policy`` gives to one device in its equal slot of ``air``.

    Raises :class:`TooEarly` for one that needs ``curves`` where there are none.
    """
    rng = np.random.default_rng([zlib.crc32(policy.encode()), seed, len(history)])
    limits, found = air.slot, NOT_FITTED if curves is None else curves
    known = Known(air.link, found, air.options, rng, history=tuple(history), limits=limits)
    return decide(policy, known)


def told(
    policy: str,
    round_index: int,
    rows: Sequence[Mapping[str, Any]],
    air: Air,
    prior: Prior | None,
    half_life_rounds: float,
    seed: int,
) -> tuple[Split, str]:
    """The split of one device under ``policy``, which is told its ``rows`` so far and the curves
    fitted to them, and these curves in words. One that needs curves before there are any
    explores, as ``adaptive`` does."""
    if not watches(policy):
        return split_of(policy, air), ""
    history = [
        Observed(
            r["round"],
            r["upload_bytes"],
            r["update_bytes"],
            r["monitor_before"],
            r["monitor_after"],
        )
        for r in rows
    ]
    curves = refit(rows, round_index, prior, half_life_rounds, _REPLICATES)
    try:
        split = split_of(policy, air, curves, history, seed)
    except TooEarly:
        return _explored(round_index, air), ""
    return split, "" if curves is None else _words(curves.joint)


def _explored(round_index: int, air: Air) -> Split:
    return air.slot.with_share(_EXPLORED[(round_index - 1) % len(_EXPLORED)])


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
    fitted = [refit(rows, round_index, prior, half_life_rounds) for rows in seen]
    joints = [None if curves is None else curves.joint for curves in fitted]
    explored = _explored(round_index, air)
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
    replicates: int = 0,
) -> Curves | None:
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
        return fit(Surface.from_rows(cells), m0=m0, kinds=kinds, replicates=replicates)
    except BadInput:  # fewer than three uploads or two packages so far
        return None
