"""Who decides the split of a round's air time: a policy of the registry.

The policies are those of :mod:`endedge.allocator.policies`. Each is told what one device's equal
slot of the air allows, what that device's rounds gained so far, and curves that follow from it.
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
from dataclasses import dataclass, replace
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
    allocate_menus,
    decide,
    fit,
    policies,
    registry,
)
from endedge.allocator.online.adaptive import menu
from endedge.allocator.online.belief import believe
from endedge.allocator.online.law import achievable, first_rates
from endedge.allocator.policies import NOT_FITTED, NOT_KNOWN, TooEarly
from endedge.allocator.problem import Budget
from endedge.data.errors import BadInput
from endedge.lab.config import Config, loop_of
from endedge.lab.loop.answers import HELD_BACK

__all__ = [
    "Air",
    "MeasuredPrior",
    "adaptive",
    "check_policy",
    "history_of",
    "learned",
    "source_of",
    "split_of",
    "told",
    "watches",
]

_EXPLORED = (0.5, 0.8, 0.65, 0.9)  # shares of the uplink while nothing is known
_COLD_KINDS = (Kind("share", "power", "exponential"), Kind("share", "exponential", "exponential"))
_PACKAGES = 16  # sizes of a package that a policy may choose among
PIPELINE = 2  # rounds from an upload to the package made of it
_SIZES = 6  # of each side, at which a belief is turned into curves
_REPLICATES = 20  # bootstrap surfaces behind the curves that a policy is told
_FEDERATED = r"federated(-0\.\d+)?"


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
        honest = sorted(n for n in registry() if not policies.hindsight(n))
        raise BadInput(
            f"loop.policies: no policy {name!r}; there are adaptive, {', '.join(honest)}, "
            "static-0.8, each also as NAME+redacted, and federated, federated-0.4"
        ) from None


def watches(policy: str) -> bool:
    """Whether a policy is told what its rounds gained; to measure that takes time."""
    return policies.watches(policy) and not re.fullmatch(_FEDERATED, policy)


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
    """One period's air: ``room_s`` for ``devices`` devices; seconds a byte each way; the bytes that
    may be sent; the whole ``link``; the most ``frames`` of an upload; ``overhead_s`` of a period in
    which the edge works or bytes are on their way. ``pipelined``: both directions all through the
    period, so that bytes take up hertz and no seconds."""

    room_s: float
    devices: int
    up_s: float
    down_s: float
    upload: Range
    update: Range
    link: Link
    frames: int
    overhead_s: float = 0.0
    pipelined: bool = False

    @classmethod
    def of(cls, config: Config, frame_bytes: tuple[float, float]) -> Air:
        """``frame_bytes``: mean and largest bytes of an encoded frame."""
        loop, link = loop_of(config), config.link
        mean, largest = frame_bytes
        latency_s = 2 * loop.latency_s * len(loop.days)
        deadline_s = min(loop.deadline_s or link.period_s, link.period_s)
        overhead_s = loop.edge_s * len(loop.days) + latency_s
        return cls(
            deadline_s - overhead_s,
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
            overhead_s,
            link.schedule == "pipelined",
        )

    def at(self, level: float) -> Air:
        """The same in a period whose bandwidth is ``level`` times as large."""
        hz = self.link.bandwidth_hz * level
        up_s, down_s = self.up_s / level, self.down_s / level
        return replace(self, up_s=up_s, down_s=down_s, link=replace(self.link, bandwidth_hz=hz))

    def cost_s(self, split: Split) -> float:
        """Seconds of air that a split takes."""
        return self.up_s * split.upload_bytes + self.down_s * split.update_bytes

    @property
    def slot(self) -> Budget:
        """An equal slot of one device. The new model serves when all devices' bytes have passed."""
        hz, period_s = self.link.bandwidth_hz, self.link.period_s
        if self.pipelined:
            up, down = self.up_s * hz / period_s, self.down_s * hz / period_s
            room, unit, fresh, used = hz / self.devices, "Hz", 1.0, 0.0
        else:
            up, down, room, unit = self.up_s, self.down_s, self.room_s / self.devices, "s"
            fresh, used = 1 - self.overhead_s / period_s, self.devices / period_s
        need = up * self.upload.low + down * self.update.low
        short = f"the least upload and package need {need:.3g} {unit}, a slot has {room:.3g} {unit}"
        return Budget(
            up,
            down,
            room,
            self.upload,
            self.update,
            fresh,
            used * up,
            used * down,
            stale=0.0,
            reason=short if need > room else "",
        )

    @property
    def whole(self) -> Budget:
        """All of the air for one device, as if the others sent nothing."""
        return replace(self, devices=1).slot

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
    return decide(policy, _known(policy, air, curves, history, seed))


def _known(
    policy: str, air: Air, curves: Curves | None, history: Sequence[Observed], seed: int
) -> Known:
    rng = np.random.default_rng([zlib.crc32(policy.encode()), seed, len(history)])
    fitted = NOT_FITTED if curves is None else curves
    limits = air.slot if curves is None else replace(air.slot, stale=curves.m0)
    here = next((h.learned_in for h in reversed(history) if h.learned_in != NOT_KNOWN), 0)
    return Known(
        air.link, fitted, air.options, rng, history=tuple(history), limits=limits, place=here
    )


def told(
    policy: str,
    round_index: int,
    rows: Sequence[Mapping[str, Any]],
    air: Air,
    prior: MeasuredPrior | None,
    seed: int,
) -> tuple[Split, str]:
    """The split of one device under ``policy``, which is told its ``rows`` so far and the curves
    that follow from them, and these curves in words. One that needs curves before there are any
    explores: it goes through a few shares."""
    if not watches(policy):
        return split_of(policy, air), ""
    history = history_of(rows, air)
    curves = learned(history, air, prior)
    try:
        split = split_of(policy, air, curves, history, seed)
    except TooEarly:
        return air.slot.with_share(_EXPLORED[(round_index - 1) % len(_EXPLORED)]), ""
    return split, "" if curves is None else _words(curves.joint)


def history_of(rows: Sequence[Mapping[str, Any]], air: Air) -> list[Observed]:
    """The rounds of one device, oldest first, as policies are told them. The place of a period is
    known when its frames have gone up and been looked at. What came of an update that was lost, or
    never made, says nothing of what updates gain. In a pipeline a package is made from the upload
    of two rounds before."""
    lag = PIPELINE if air.pipelined else 0
    places = [int(p) if (p := row.get("place", "")) != "" else NOT_KNOWN for row in rows]
    history = []
    for i, row in enumerate(rows):
        refused = row["reason"] == HELD_BACK
        tells = bool(row["applied"] or refused) and i >= lag
        learned_in = places[i]
        judged_in = places[i + lag + 1] if i + lag + 1 < len(rows) else NOT_KNOWN
        history.append(
            Observed(
                row["round"],
                rows[i - lag]["upload_bytes"] if i >= lag else 0.0,
                row["budget_bytes"] if refused else row["update_bytes"],
                row["monitor_before"],
                row["monitor_after"],
                refused,
                learned_in if tells else NOT_KNOWN,
                judged_in,
            )
        )
    return history


@dataclass(frozen=True)
class MeasuredPrior:
    """What an earlier `endedge run` measured, and the curves fitted to it."""

    surface: Surface
    curves: Curves

    @classmethod
    def read(cls, folder: Path) -> MeasuredPrior:
        """From ``surface.csv`` (and ``curves.json``, if it is there) of a results folder."""
        surface = Surface.read(folder / "surface.csv")
        if (folder / "curves.json").is_file():
            return cls(surface, Curves.load(folder / "curves.json"))
        return cls(surface, fit(surface, replicates=0))


def adaptive(
    histories: Sequence[Sequence[Mapping[str, Any]]],
    air: Air,
    prior: MeasuredPrior | None,
    recalls: bool = False,
) -> tuple[list[Split], list[str]]:
    """The split of every device from what its own rounds (``histories``, a list a device) taught,
    and what is believed in words. Devices share the air: each weighs all that the whole air could
    carry for it, and one price a second decides who gets what."""
    menus = []
    for rows in histories:
        history = history_of(rows, air)
        budget = air.slot if air.devices == 1 else air.whole
        known = _known("adaptive", air, None if prior is None else prior.curves, history, 0)
        menus.append(menu(replace(known, limits=budget, recalls=recalls)))
    width = max(len(m.splits) for m in menus)
    cost, value = np.zeros((len(menus), width)), np.full((len(menus), width), -np.inf)
    for i, one in enumerate(menus):
        cost[i, : len(one.splits)] = one.cost
        value[i, : len(one.splits)] = -one.loss
    shared = allocate_menus(cost, value, air.slot.room * air.devices)
    splits = [m.splits[j] for m, j in zip(menus, shared.choice, strict=True)]
    return splits, [m.words for m in menus]


def _words(joint: Joint) -> str:
    named = " ".join(f"{name}={value:.4g}" for name, value in joint.parameters().items())
    return f"{joint.kind} {named}"


def learned(history: Sequence[Observed], air: Air, prior: MeasuredPrior | None) -> Curves | None:
    """Curves for policies that ask some: fitted to what the rounds make of the share of the
    achievable gain at sizes of both kinds (:mod:`endedge.allocator.online.belief`), from the mAP of
    the last round on. The prior's own before the first round; None where there is none."""
    if not any(h.upload_bytes > 0 and h.learned_in != NOT_KNOWN for h in history):
        return None if prior is None else prior.curves
    slot, given = air.slot, None if prior is None else prior.curves
    rates, first = first_rates(slot.upload, slot.update, given), achievable(given)
    belief = believe(rates, first, _in_one_place(history))
    up = np.linspace(slot.upload.low, slot.upload.high, _SIZES)
    down = np.geomspace(slot.update.low, slot.update.high, _SIZES)
    pairs = [a.ravel() for a in np.meshgrid(up, down, indexing="ij")]
    now = min(max(history[-1].after, 0.0), 1.0)
    gap = belief.weight * belief.gap(history[-1].judged_in, now)
    gained = np.clip(now + gap @ rates(*pairs), 0.0, 1.0)
    columns = {"seed": 0, "frames": 1, "codec": "believed", "m0": now}
    cells = [
        {**columns, "frames": 1 + i // _SIZES, "upload_bytes": u, "update_bytes": d}
        | {"budget_bytes": d, "map": v}
        for i, (u, d, v) in enumerate(zip(*pairs, gained, strict=True))
    ]
    return fit(Surface.from_rows(cells), m0=now, kinds=list(_COLD_KINDS), replicates=_REPLICATES)


def _in_one_place(history: Sequence[Observed]) -> list[Observed]:
    """As if the last round had been judged where its frames are from: its own frames have not come
    yet, and a policy that asks curves has nothing else."""
    last = history[-1]
    return [*history[:-1], replace(last, judged_in=last.learned_in)]
