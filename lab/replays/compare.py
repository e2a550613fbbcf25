"""Policies over many days, paired: what there was to win first, then who won how much of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from endedge.allocator.policies import find, hindsight
from endedge.data.errors import BadInput
from endedge.data.text_tables import plain_table
from endedge.lab.benchmark.headroom import Contrast
from endedge.lab.replays.days import draw
from endedge.lab.replays.play import NO_UPDATE, ORACLE, Played, Setting, play
from endedge.lab.replays.worlds import KINDS, PLACES, REACHED, Ground, World

__all__ = ["ADVANCE", "ASSUMED", "Condition", "Replay", "as_record", "as_text", "replay"]

Floats: TypeAlias = NDArray[np.float64]
Say: TypeAlias = Callable[[int, int, str], None]

ADVANCE = "best-in-advance"
_SHARES = (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
_AIR = (1.0, 0.7, 0.4)  # of the period's room; a sequential update comes sooner with less
_TRAINING = 48  # days at most, on which the split fixed in advance is chosen
_AWAY = 10**6  # seeds of those days

ASSUMED = (
    "assumed, not measured: what a second update on top of the first does (hence three worlds);",
    f"that the best measured update reaches {REACHED:.0%} of what can be gained; how places differ",
    f"where one table stands for {PLACES}; what an update does to other places; the noise of",
    "trainings and of what is measured; that a period's bandwidth is known as it begins.",
    "shared: the policy's own law; levels, own: worlds that it does not believe in",
)


@dataclass(frozen=True)
class Condition:
    """A ``world`` with a ``band``: the ``map`` of each policy on each day, (policies, days), and
    what was played; ``fixed``: by seed of the table, the split that was best in advance."""

    world: str
    band: str
    policies: tuple[str, ...]
    map: Floats
    played: dict[str, list[Played]]
    fixed: dict[int, str]

    def contrast(self, one: str, other: str) -> Contrast:
        """How far ``one`` is ahead of ``other``, paired by day."""
        i, j = self.policies.index(one), self.policies.index(other)
        return Contrast.of(self.map[i] - self.map[j])

    @cached_property
    def headroom(self) -> Contrast:
        """The oracle of each round over the best split fixed in advance."""
        return self.contrast(ORACLE, ADVANCE)

    def changes(self, policy: str) -> tuple[float, float, float]:
        """How places are recognised by the uploads of ``policy``: rounds until a change is
        noticed (mean), changes said that were none, a day, and the share of uploads named right."""
        rows = self.played[policy]
        delays = [d for row in rows for d in row.delays]
        seen = sum(row.seen for row in rows)
        return (
            float(np.mean(delays)) if delays else float("nan"),
            float(np.mean([row.false_alarms for row in rows])),
            sum(row.rightly_named for row in rows) / seen if seen else float("nan"),
        )


@dataclass(frozen=True)
class Replay:
    ground: Ground
    days: int
    rounds: int
    conditions: tuple[Condition, ...]

    @property
    def name(self) -> str:
        return " + ".join(table.name for table in self.ground.tables)


def replay(
    ground: Ground,
    policies: Sequence[str] = ("adaptive", "equal", NO_UPDATE),
    *,
    days: int = 200,
    rounds: int = 24,
    dwell: tuple[int, int] = (6, 10),
    bands: dict[str, str | Floats] | None = None,
    worlds: Sequence[str] = KINDS,
    setting: Setting | None = None,
    say: Say = lambda done, total, message: None,
) -> Replay:
    """Play ``policies`` on ``days`` days of ``rounds`` rounds in each of ``worlds`` with each of
    ``bands`` (a name for each), the same days for all. The oracle and the best split fixed in
    advance, chosen on other days and, where the table has them, other seeds, always play.

    Raises :class:`BadInput` for policies that are not there or have to know how a round ends.
    """
    setting = setting or Setting()
    names = [n for n in dict.fromkeys(policies) if n not in (ORACLE, ADVANCE)]
    for name in names:
        find(name)
        if hindsight(name):
            raise BadInput(f"policy {name!r} has to know how every round ends; not in a replay")
    if days < 2:
        raise BadInput(f"{days} days: an error needs 2 or more")
    training = min(_TRAINING, max(days, len(ground.seeds)))
    bands = bands or {"constant": "constant", "walk": "walk"}
    sequential = ground.rules.schedule == "sequential"
    candidates = [
        f"static-{share}" if air == 1 else f"static-{share}@{air}"
        for share in _SHARES
        for air in (_AIR if sequential else _AIR[:1])
    ]
    done, total = 0, len(worlds) * len(bands) * (days + training)

    def through(name: str, kind: str, band: str | Floats, number: int, seed: int) -> Played:
        places = len(World(kind, ground, seed, np.random.default_rng(number)))
        day = draw(np.random.default_rng([number, 7]), places, rounds, dwell, band, ground.sweep)
        world = World(kind, ground, seed, np.random.default_rng([number, 8]))
        return play(name, ground, world, day, number, seed, setting)

    def tick(message: str) -> None:
        nonlocal done
        done += 1
        say(done, total, message)

    conditions = []
    for kind in worlds:
        for label, band in bands.items():
            where = f"{kind}, {label}"
            tried: dict[int, list[list[float]]] = {s: [] for s in ground.seeds}
            for t in range(training):
                seed = ground.seeds[t % len(ground.seeds)]
                row = [through(n, kind, band, _AWAY + t, seed).map for n in candidates]
                tried[seed].append(row)
                tick(f"{where}: fixed splits")
            fixed = {s: candidates[_best_elsewhere(tried, s)] for s in ground.seeds}
            played: dict[str, list[Played]] = {n: [] for n in (*names, ADVANCE, ORACLE)}
            for d in range(days):
                seed = ground.seeds[d % len(ground.seeds)]
                for name, rows in played.items():
                    who = fixed[seed] if name == ADVANCE else name
                    rows.append(through(who, kind, band, d, seed))
                tick(f"{where}: day {d + 1}")
            scores = np.array([[row.map for row in rows] for rows in played.values()])
            conditions.append(Condition(kind, label, tuple(played), scores, played, fixed))
    return Replay(ground, days, rounds, tuple(conditions))


def _best_elsewhere(tried: dict[int, list[list[float]]], seed: int) -> int:
    """The candidate that was best on the days of other seeds (of the only one: on its own)."""
    others = [row for s, rows in tried.items() if s != seed or len(tried) == 1 for row in rows]
    return int(np.mean(others, axis=0).argmax())


# Told -----------------------------------------------------------------------------------------


def verdict(found: Replay) -> str:
    """The first line: is there anything to win?"""
    claims = [c for c in found.conditions if c.headroom.claims]
    where = ", ".join(f"{c.world}/{c.band} {c.headroom.text}" for c in claims)
    if not claims:
        return (
            "nothing to gain here: in no condition is the oracle of each round two errors above "
            "the best split fixed in advance"
        )
    return f"something to win over the best split fixed in advance (points): {where}"


def as_text(found: Replay) -> str:
    """For a terminal: headroom first, then every condition."""
    ground = found.ground
    low, high = ground.sweep
    played = f"{found.days} days of {found.rounds} rounds a condition, {ground.rules.schedule}"
    lines = [
        f"{found.name}: {verdict(found)}",
        f"  {played}, {low:.4g} to {high:.4g} Hz, edge {ground.rules.edge_s:.3g} s",
        *(f"  {line}" for line in ASSUMED),
    ]
    heads = ["policy", "mAP (%)", "over best in advance", "95 %", "updates", "refused"]
    for c in found.conditions:
        chosen = ", ".join(sorted(set(c.fixed.values())))
        standing = c.headroom.standing
        lines += [
            "",
            f"{c.world}, {c.band}: headroom {c.headroom.text} points"
            + (f" ({standing})" if standing else "")
            + f"; best in advance: {chosen}",
        ]
        rows = []
        for name in sorted(c.policies, key=lambda n: -c.map[c.policies.index(n)].mean()):
            over = c.contrast(name, ADVANCE)
            half = 100 * over.half(0.95)
            mean = 100 * over.mean
            days = c.played[name]
            rows.append(
                [
                    name,
                    f"{100 * c.map[c.policies.index(name)].mean():.2f}",
                    over.text if name != ADVANCE else "",
                    f"[{mean - half:+.2f}, {mean + half:+.2f}]" if name != ADVANCE else "",
                    f"{np.mean([p.updates for p in days]):.1f}",
                    f"{np.mean([p.refused for p in days]):.1f}",
                ]
            )
        lines.append(plain_table(heads, rows))
        if "adaptive" in c.policies:
            delay, false, right = c.changes("adaptive")
            lines.append(
                f"changes noticed {delay:.2f} rounds after the first upload that shows them, "
                f"{false:.2f} false alarms a day, {right:.0%} of uploads named right"
            )
    return "\n".join(lines)


def as_record(found: Replay) -> dict[str, Any]:
    """Plain numbers (mAP in [0, 1]) and text, for JSON."""
    conditions = []
    for c in found.conditions:
        policies = {}
        for name in c.policies:
            over, half = c.contrast(name, ADVANCE), c.contrast(name, ADVANCE).half(0.95)
            policies[name] = {
                "map": float(c.map[c.policies.index(name)].mean()),
                "over_best_in_advance": over.mean,
                "low": over.mean - half,
                "high": over.mean + half,
                "updates": float(np.mean([p.updates for p in c.played[name]])),
                "refused": float(np.mean([p.refused for p in c.played[name]])),
            }
        noticed = {}
        if "adaptive" in c.policies:
            delay, false, right = c.changes("adaptive")
            noticed = {
                "delay_rounds": None if np.isnan(delay) else delay,
                "false_alarms_a_day": false,
                "named_right": None if np.isnan(right) else right,
            }
        conditions.append(
            {
                "world": c.world,
                "band": c.band,
                "headroom": c.headroom.mean,
                "headroom_error": c.headroom.error,
                "claims": c.headroom.claims,
                "best_in_advance": {str(s): n for s, n in c.fixed.items()},
                "policies": policies,
                "changes": noticed,
            }
        )
    return {
        "tables": [table.name for table in found.ground.tables],
        "verdict": verdict(found),
        "assumed": list(ASSUMED),
        "schedule": found.ground.rules.schedule,
        "edge_s": found.ground.rules.edge_s,
        "bandwidth_hz": list(found.ground.sweep),
        "days": found.days,
        "rounds": found.rounds,
        "conditions": conditions,
    }
