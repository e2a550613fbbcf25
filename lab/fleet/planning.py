"""A band shared among devices by fitted curves: what each gets, and what it is expected to reach.

Bytes are any bytes within what was measured; frames and packages are what fits into them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from endedge.allocator import Budget, FleetAllocation, Kind, allocate_fleet
from endedge.allocator.solve.fleet_dual import FleetColumns
from endedge.data.errors import BadInput
from endedge.data.text_tables import plain_table
from endedge.lab.benchmark.planning import SplitPlan, plan
from endedge.lab.fleet.members import Member, same_period

__all__ = ["FleetPlan", "Shares"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_SHOWN = 20  # devices in a text


@dataclass(frozen=True)
class FleetPlan:
    """The members and what each plans with."""

    members: tuple[Member, ...]
    plans: tuple[SplitPlan, ...]

    @classmethod
    def of(cls, members: Sequence[Member], changes: Mapping[str, Any]) -> FleetPlan:
        """Raises :class:`BadInput` for what is not there or cannot share a band."""
        known: dict[str, SplitPlan] = {}
        for member in members:
            if member.place not in known:
                known[member.place] = plan(Path(member.place), changes)
        plans = tuple(known[m.place] for m in members)
        same_period(members, plans, lambda one: one.link)
        return cls(tuple(members), plans)

    def allocate(self, bandwidth_hz: float, trainers: int | None = 1) -> Shares:
        """The shares of a band, where ``trainers`` edges adapt one upload at a time (None: as many
        as it takes).

        Raises :class:`BadInput` for a device whose least update is more than the band or the
        period carries.
        """
        period_s = self.plans[0].link.period_s
        budgets = []
        for member, one in zip(self.members, self.plans, strict=True):
            budget = Budget.of(one.link.at(bandwidth_hz), one.rules, one.curves)
            if budget.reason:
                raise BadInput(f"{member.place}: it fits no share of the band: {budget.reason}")
            budgets.append(budget)
        room_s = math.inf if trainers is None else trainers * period_s
        fleet, member_of = self._fleet(budgets)
        found = allocate_fleet(fleet, bandwidth_hz, room_s=room_s)
        return Shares.of(self, bandwidth_hz, room_s, found, member_of)

    def _fleet(self, budgets: Sequence[Budget]) -> tuple[FleetColumns, Ints]:
        """The devices as columns, those of one kind of curve side by side, and their members."""
        order = sorted(range(len(budgets)), key=lambda i: str(self.plans[i].curves.joint.kind))
        counts = [self.members[i].count for i in order]
        member_of = np.repeat(order, counts)
        ends = np.cumsum([0, *counts]).tolist()
        kinds: list[tuple[Kind, slice]] = []
        for i, start, stop in zip(order, ends, ends[1:], strict=False):
            kind = self.plans[i].curves.joint.kind
            if kinds and kinds[-1][0] == kind:
                kinds[-1] = kind, slice(kinds[-1][1].start, stop)
            else:
                kinds.append((kind, slice(start, stop)))

        def column(values: Sequence[Any]) -> Floats:
            return np.asarray(np.asarray(values, dtype=float)[member_of])

        rules = [p.rules for p in self.plans]
        fleet = FleetColumns(
            kinds=tuple(kinds),
            theta=column([p.curves.joint.theta for p in self.plans]),
            m0=column([p.curves.joint.m0 for p in self.plans]),
            weight=column([m.weight for m in self.members]),
            rate=column([(b.up, b.down) for b in budgets]),
            low=column([(b.upload.low, b.update.low) for b in budgets]),
            high=column([(b.upload.high, b.update.high) for b in budgets]),
            seconds=column([(r.edge_s, r.edge_s_per_upload_byte) for r in rules]),
        )
        return fleet, member_of


@dataclass(frozen=True)
class Shares:
    """For every device (K,), in the order of the members: which ``member`` it is of, its hertz,
    bytes and whole frames, the row of its package among its plan's updates (−1: none is known, or
    nothing is sent), ``map`` and ``m0``."""

    plan: FleetPlan
    bandwidth_hz: float
    room_s: float
    found: FleetAllocation
    member: Ints
    uplink_hz: Floats
    downlink_hz: Floats
    upload_bytes: Floats
    update_bytes: Floats
    frames: Ints
    package: Ints
    map: Floats
    m0: Floats

    @classmethod
    def of(
        cls,
        plan: FleetPlan,
        bandwidth_hz: float,
        room_s: float,
        found: FleetAllocation,
        member_of: Ints,
    ) -> Shares:
        order = np.argsort(member_of, kind="stable")
        member: Ints = member_of[order]
        up, down = found.upload_bytes[order], found.update_bytes[order]
        frames, package = np.zeros_like(member), np.full_like(member, -1)
        for i, one in enumerate(plan.plans):
            mine = member == i
            frames[mine], package[mine] = _operating_points(one, up[mine], down[mine])
        links = [p.link for p in plan.plans]
        rate_up, rate_down = (
            np.array([8.0 / (x.period_s * getattr(x, name)) for x in links])[member]
            for name in ("up_bit_per_s_per_hz", "down_bit_per_s_per_hz")
        )
        m0 = np.array([p.curves.m0 for p in plan.plans])[member]
        reached = np.clip(found.map[order], 0.0, 1.0)
        hertz = rate_up * up, rate_down * down
        return cls(
            plan,
            bandwidth_hz,
            room_s,
            found,
            member,
            *hertz,
            up,
            down,
            frames,
            package,
            reached,
            m0,
        )

    def __len__(self) -> int:
        return len(self.map)

    @property
    def served(self) -> NDArray[np.bool_]:
        return np.asarray(self.update_bytes > 0)

    def _package(self, k: int) -> dict[str, Any]:
        """Codec, student, bits and pruning of what device k sends and takes."""
        one = self.plan.plans[self.member[k]]
        if not self.served[k]:
            return {"codec": None, "student": None, "bits": None, "prune": None}
        uploads = [p for p in one.curves.uploads if p.upload_bytes <= self.upload_bytes[k] * _NEAR]
        known = self.package[k] >= 0
        update = one.curves.updates[self.package[k]] if known else None
        return {
            "codec": uploads[-1].codec if uploads else None,
            "student": (_students(one)[self.package[k]] or None) if known else None,
            "bits": _known(update.bits) if update else None,
            "prune": _known(update.prune) if update else None,
        }

    def record(self) -> dict[str, Any]:
        """What ``endedge allocate --json`` prints: plain numbers (mAP in [0, 1]) and text."""
        found = self.found
        weight = sum(m.weight * m.count for m in self.plan.members)
        cache: dict[tuple[int, int, float, float], dict[str, Any]] = {}
        devices = []
        for k in range(len(self)):
            key = int(self.member[k]), int(self.package[k]), self.upload_bytes[k], self.m0[k]
            if key not in cache:
                cache[key] = self._package(k)
            devices.append(
                {
                    "member": int(self.member[k]),
                    "uplink_hz": float(self.uplink_hz[k]),
                    "downlink_hz": float(self.downlink_hz[k]),
                    "upload_bytes": float(self.upload_bytes[k]),
                    "update_bytes": float(self.update_bytes[k]),
                    "frames": int(self.frames[k]),
                    **cache[key],
                    "predicted_map": float(self.map[k]),
                    "m0": float(self.m0[k]),
                }
            )
        return {
            "bandwidth_hz": self.bandwidth_hz,
            "used_hz": found.used_hz,
            "mean_map": found.objective / weight,
            "bound": found.bound / weight,
            "price_map_per_hz": _finite(found.price),
            "edge_room_s": _finite(self.room_s),
            "edge_used_s": found.used_s,
            "price_map_per_edge_s": found.price_s,
            "members": [
                {**asdict(m), **p.record()}
                for m, p in zip(self.plan.members, self.plan.plans, strict=True)
            ],
            "devices": devices,
        }

    def __str__(self) -> str:
        """What ``endedge allocate`` prints: the whole, the members, the first devices."""
        found, members = self.found, self.plan.members
        weight = sum(m.weight * m.count for m in members)
        idle = float((self.m0 * self._weight).sum()) / weight
        lines = [f"{len(self)} devices: {', '.join(str(m) for m in members)}"]
        for place, one in {
            m.place: p for m, p in zip(members, self.plan.plans, strict=True)
        }.items():
            lines.append(f"{place}:\n{one}")
        reached, bound = 100 * found.objective / weight, 100 * found.bound / weight
        lines += [
            f"band        {found.used_hz:,.0f} of {self.bandwidth_hz:,.0f} Hz used",
            f"mAP         {reached:.2f} % predicted (weighted mean); no update: {100 * idle:.2f} %",
            f"            no split is above {bound:.2f} %",
            f"price       {100 * found.price:.3g} points (weighted sum) for one more hertz",
        ]
        if found.used_s > 0:
            room = "no limit" if math.isinf(self.room_s) else f"{self.room_s:,.0f} s"
            lines.append(
                f"edge        {found.used_s:,.0f} s of work a period, {room}; "
                f"{100 * found.price_s:.3g} points for one more second"
            )
        return "\n".join([*lines, "", self._members(), "", self._devices()])

    @property
    def _weight(self) -> Floats:
        return np.array([m.weight for m in self.plan.members])[self.member]

    def _members(self) -> str:
        rows = []
        for i, member in enumerate(self.plan.members):
            mine = self.member == i
            hertz = (self.uplink_hz + self.downlink_hz)[mine]
            rows.append(
                (
                    str(member),
                    f"{self.served[mine].sum()}/{member.count}",
                    f"{hertz.mean():,.0f}",
                    f"{hertz.sum() / self.bandwidth_hz:.0%}",
                    f"{100 * self.m0[mine].mean():.1f}",
                    f"{100 * self.map[mine].mean():.1f}",
                )
            )
        heads = ("member", "served", "Hz each", "of the band", "before (%)", "mAP (%)")
        return plain_table(heads, rows)

    def _devices(self) -> str:
        rows = []
        for k in range(min(len(self), _SHOWN)):
            package = self._package(k)
            student = package["student"] or ""
            bits = "" if package["bits"] is None else f"{package['bits']:.1f}"
            rows.append(
                (
                    f"{k + 1} {self.plan.members[self.member[k]].place}",
                    f"{self.uplink_hz[k]:,.0f}",
                    f"{self.downlink_hz[k]:,.0f}",
                    f"{self.upload_bytes[k]:,.0f}",
                    f"{self.update_bytes[k]:,.0f}",
                    str(self.frames[k]),
                    bits,
                    student,
                    f"{100 * self.map[k]:.1f}",
                )
            )
        heads = ("device", "Hz up", "Hz down", "B up", "B down", "frames", "bits", "student")
        table = plain_table((*heads, "mAP (%)"), rows)
        more = len(self) - _SHOWN
        return table + (f"\n… {more:,} more (--json has all)" if more > 0 else "")


_NEAR = 1 + 1e-9


def _operating_points(one: SplitPlan, up: Floats, down: Floats) -> tuple[Ints, Ints]:
    """Whole frames that fit into uploads, and the last package on the envelope that does, as
    :class:`endedge.allocator.Allocation` has it of one device."""
    uploads, updates = one.curves.uploads, one.curves.updates
    last = np.searchsorted([p.upload_bytes for p in uploads], up * _NEAR, side="right") - 1
    a_frame = np.array([p.upload_bytes / max(p.frames, 1) for p in uploads])
    known = (last >= 0) & (up > 0)
    frames = np.where(known, up * _NEAR / np.maximum(a_frame[np.maximum(last, 0)], 1e-9), 0.0)
    package = np.searchsorted([p.update_bytes for p in updates], down * _NEAR, side="right") - 1
    return frames.astype(np.int64), np.where(down > 0, package, -1)


def _students(one: SplitPlan) -> list[str]:
    """The architecture of every package on the envelope, empty where it is not known."""
    if one.points is None:
        return ["" for _ in one.curves.updates]
    by_budget = dict(
        zip(one.points.budget_bytes.tolist(), one.points.student.tolist(), strict=True)
    )
    return [str(by_budget.get(p.budget_bytes, "")) for p in one.curves.updates]


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
