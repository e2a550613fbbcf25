"""Rivals for a band on measured tables: what there was to win, who won it, and by what.

As for one device: a device decides by curves that never saw the seed that judges it, is judged by
the cells of that seed, and a headroom is claimed only above two of its paired errors. A *trial*
gives all devices one seed of their tables, another one in each, and all rivals play the same
trials. With ``devices`` a trial draws so many of them, each with any seed and, where its table has
replicates, an evaluation draw of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from endedge.allocator import Budget, FleetDevice, allocate_fleet, best_split
from endedge.allocator.solve.turns import paces
from endedge.data.errors import BadInput
from endedge.lab.benchmark.headroom import Contrast, Judged
from endedge.lab.benchmark.table import Table
from endedge.lab.fleet.members import Member, same_period, total
from endedge.lab.fleet.menus import Menus, Sort, Timing, Unit
from endedge.lab.fleet.rivals import (
    OBJECTIVES,
    RIVALS,
    STEPS,
    Answer,
    Objective,
    play_rival,
    reached,
)

__all__ = ["FIXED", "PLAIN", "Fleet", "FleetScore", "Settings", "score_fleet"]

Floats = NDArray[np.float64]
Progress = Callable[[int, int, str], None]

PLAIN = ("equal", "turns")  # equal shares, and no more
FIXED = (*PLAIN, "turns-spare")  # these need nobody else's curves: a gain is over the best
_SWEEP = 8
_LARGE = 100  # devices, of which one more or less does not matter


@dataclass(frozen=True)
class Settings:
    """``objective`` that is made greatest; ``turns``: longest cycle of periods; ``keep``: share of
    an update's gain left a period later; ``trainers`` (None: no limit); ``devices``: so many are
    drawn (None: all members, as they are); ``trials``: fleets (None: 3 where drawn, else as many as
    every table has seeds); ``seed`` of the draws."""

    objective: Objective = "mean"
    turns: int = 8
    keep: float = 0.0
    trainers: int | None = 1
    devices: int | None = None
    trials: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise BadInput(f"objective {self.objective!r}; there are {', '.join(OBJECTIVES)}")
        if not 0 <= self.keep <= 1:
            raise BadInput(f"keep = {self.keep:g} must lie in [0, 1]")
        for name in ("trainers", "devices", "trials"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadInput(f"{name} = {value}; give 1 or more")


@dataclass(frozen=True)
class Fleet:
    """The members and their tables, ready to be played."""

    members: tuple[Member, ...]
    sorts: tuple[Sort, ...]

    @classmethod
    def load(cls, members: Sequence[Member], changes: Sequence[str] = ()) -> Fleet:
        """Raises :class:`BadInput` for tables that are not there or cannot share a band."""
        known: dict[str, Table] = {}
        for member in members:
            if member.place not in known:
                known[member.place] = Table.load(member.place, changes)
        tables = [known[m.place] for m in members]
        same_period(members, tables, lambda table: table.link)
        made = {place: Sort(table) for place, table in known.items()}
        return cls(tuple(members), tuple(made[m.place] for m in members))

    def sweep(self, devices: int, turns: int) -> tuple[float, ...]:
        """Bands in Hz, log-spaced: from where the thriftiest update just fits into the longest
        cycle of an equal share to where everything fits."""
        low = min(float(s.hertz.min()) for s in self.sorts) / turns
        high = float(
            np.average([s.hertz.max() for s in self.sorts], weights=[m.count for m in self.members])
        )
        return tuple(devices * float(hz) for hz in np.geomspace(1.05 * low, 1.25 * high, _SWEEP))

    def units(self, trial: int, settings: Settings) -> list[Unit]:
        """The devices of a trial."""
        if settings.devices is None:
            listed = [i for i, m in enumerate(self.members) for _ in range(m.count)]
            return [Unit(i, self.members[i].weight, self._seed(i, trial)) for i in listed]
        rng = np.random.default_rng([settings.seed, trial])
        share = np.array([m.count for m in self.members], dtype=float)
        drawn = []
        for i in rng.choice(len(share), settings.devices, p=share / share.sum()):
            replicates = self.sorts[i].table.replicates
            own = None if replicates is None else int(rng.integers(len(replicates.m0)))
            seed = self._seed(int(i), int(rng.integers(1 << 30)))
            drawn.append(Unit(int(i), self.members[i].weight, seed, own))
        return drawn

    def _seed(self, member: int, k: int) -> int:
        seeds = self.sorts[member].table.seeds
        return seeds[k % len(seeds)]

    def lacks(self, settings: Settings) -> list[str]:
        """What the tables cannot say, in sentences."""
        said = []
        for place, sort in {
            m.place: s for m, s in zip(self.members, self.sorts, strict=True)
        }.items():
            said += [f"{place}: {sentence}" for sentence in sort.table.lacks()]
            if settings.devices is not None and sort.table.replicates is None:
                said.append(f"{place}: devices drawn from it differ by their seed alone")
        if settings.keep > 0:
            said.append(
                f"keep {settings.keep:g} is assumed: the tables measured one period, not how long "
                "an update serves"
            )
        return said


@dataclass(frozen=True)
class FleetScore(Judged):
    """``worth`` (policies, bands, trials): the objective, mAP; ``draws`` the same with a last axis
    of evaluation draws, None where a table has none. ``by_member`` (policies, bands, members): mean
    mAP of a member's devices; ``served`` and ``used`` (policies, bands): share of devices that get
    updates, and of the band. ``bound`` (bands,): what no schedule can pass, mean over trials;
    ``price``, ``price_s`` (bands,): of the auction. ``unrounded`` (bands,): by the curves alone,
    any bytes and no turns, the best shares over equal ones (mean mAP of a large fleet of this mix):
    what is won beyond it is won by turns and by hitting measured sizes."""

    fleet: Fleet
    settings: Settings
    policies: tuple[str, ...]
    bandwidth_hz: tuple[float, ...]
    worth: Floats
    draws: Floats | None
    by_member: Floats
    served: Floats
    used: Floats
    bound: Floats
    price: Floats
    price_s: Floats
    unrounded: Floats

    @property
    def devices(self) -> int:
        return self.settings.devices or total(self.fleet.members)

    def fixed(self, at: int | None = None, among: Sequence[str] = FIXED) -> str:
        """The best of the rules of slots ``among`` which a gain is held to."""
        which = slice(None) if at is None else slice(at, at + 1)
        mean = {n: float(self.worth[self.policies.index(n), which].mean()) for n in among}
        return max(among, key=lambda name: mean[name])

    def headroom(self, at: int | None = None) -> Contrast:
        """The oracle over the best fixed rule."""
        return self.contrast("oracle", self.fixed(at), at)

    def honest_headroom(self, at: int | None = None) -> Contrast:
        """The same of the oracle that chooses by other seeds (one seed: of the oracle)."""
        name = "oracle-other-seeds"
        return self.contrast(name if name in self.policies else "oracle", self.fixed(at), at)

    def won(self, at: int | None = None, among: Sequence[str] = FIXED) -> Contrast:
        """The auction over the best fixed rule: what is really caught."""
        return self.contrast("auction", self.fixed(at, among), at)

    def steps(self, at: int | None = None) -> list[tuple[str, str, Contrast]]:
        """What each step from the plainest rule to the price adds: its name, what changes, and the
        gain. In this order; another order shares out the same sum otherwise."""
        return [
            (name, what, self.contrast(after, before, at)) for name, before, after, what in STEPS
        ]

    def ranking(self) -> list[str]:
        """Policies, the best in the mean over the sweep first."""
        mean = self.worth.mean(axis=(1, 2))
        return [self.policies[i] for i in np.argsort(-mean, kind="stable")]


def score_fleet(
    fleet: Fleet,
    settings: Settings | None = None,
    bandwidths_hz: Sequence[float] = (),
    own: Sequence[str] = (),
    progress: Progress = lambda done, total, says: None,
) -> FleetScore:
    """Play every rival, and ``own`` policies of one device in equal slots, over ``bandwidths_hz``
    (default: a sweep of 8). Raises :class:`BadInput` for a band that carries no device's least
    update in any turn."""
    settings = settings or Settings()
    kept = Timing(
        paces(settings.turns, stretch=settings.keep > 0), settings.keep, settings.trainers
    )
    devices = settings.devices or total(fleet.members)
    sweep = tuple(bandwidths_hz) or fleet.sweep(devices, settings.turns)
    _check(fleet, max(sweep), settings)
    seeds = min(len(s.table.seeds) for s in fleet.sorts)
    trials = settings.trials or (3 if settings.devices else seeds)
    several = all(len(s.table.seeds) > 1 for s in fleet.sorts)
    names = [n for n in RIVALS if n != "oracle" and (several or n != "oracle-other-seeds")]
    names += [n for n in dict.fromkeys(own) if n not in names]
    played = []
    for t in range(trials):
        played.append(_trial(fleet, t, kept, sweep, names, settings))
        progress(t + 1, trials, "fleets")
    draws = [p.draws for p in played]
    return FleetScore(
        fleet,
        settings,
        (*names, "oracle"),
        sweep,
        np.stack([p.worth for p in played], axis=-1),
        None
        if any(d is None for d in draws)
        else np.stack([d for d in draws if d is not None], -2),
        np.mean([p.by_member for p in played], axis=0),
        np.mean([p.served for p in played], axis=0),
        np.mean([p.used for p in played], axis=0),
        np.mean([p.bound for p in played], axis=0),
        np.mean([p.price for p in played], axis=0),
        np.mean([p.price_s for p in played], axis=0),
        np.array([_unrounded(fleet, fleet.units(0, settings), hz) for hz in sweep]),
    )


def _check(fleet: Fleet, band_hz: float, settings: Settings) -> None:
    """Every member's least update must fit into the widest band in some turn."""
    for member, sort in zip(fleet.members, fleet.sorts, strict=True):
        least = float(sort.hertz.min()) / settings.turns
        if least > band_hz:
            raise BadInput(
                f"{member.place}: its least update needs {least:,.0f} Hz even over "
                f"{settings.turns} periods, the band has {band_hz:,.0f} Hz; it fits no share"
            )


def _unrounded(fleet: Fleet, units: Sequence[Unit], band_hz: float) -> float:
    """What the best shares of any bytes gain over equal ones by the curves (mean mAP)."""
    told: dict[tuple[int, int], tuple[FleetDevice, float]] = {}
    for u in units:
        if (key := (u.member, u.seed)) in told:
            continue
        sort = fleet.sorts[u.member]
        rules, curves = sort.table.rules, sort.table.curves_for(u.seed)
        budget = Budget.of(sort.link.at(band_hz / len(units)), rules, curves)
        joint, link = curves.joint, sort.link
        rates = link.up_bit_per_s_per_hz, link.down_bit_per_s_per_hz
        device = FleetDevice(joint, budget.upload, budget.update, u.weight, *rates)
        told[key] = device, best_split(joint, budget)[2]
    mine = [told[u.member, u.seed] for u in units]
    weight = np.array([u.weight for u in units])
    period_s = fleet.sorts[0].link.period_s
    times = -(-_LARGE // len(mine))
    found = allocate_fleet([device for device, _ in mine] * times, band_hz * times, period_s)
    alike = float((weight * np.array([alone for _, alone in mine])).sum())
    return (found.objective / times - alike) / float(weight.sum())


@dataclass(frozen=True)
class _Played:
    """A trial: as :class:`FleetScore`, without the axis of trials."""

    worth: Floats
    draws: Floats | None
    by_member: Floats
    served: Floats
    used: Floats
    bound: Floats
    price: Floats
    price_s: Floats


def _trial(
    fleet: Fleet,
    trial: int,
    kept: Timing,
    sweep: Sequence[float],
    names: Sequence[str],
    settings: Settings,
) -> _Played:
    units, objective = fleet.units(trial, settings), settings.objective
    menus = Menus(fleet.sorts, units, kept, trial)
    shape = (len(names) + 1, len(sweep))
    worth, served, used = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    by_member = np.zeros((*shape, len(fleet.members)))
    bound, price, price_s = np.zeros((3, len(sweep)))
    drawn: list[list[Floats | None]] = [[None] * len(sweep) for _ in range(shape[0])]
    rows = np.arange(len(units))
    for b, band_hz in enumerate(sweep):
        answers = [play_rival(name, menus, band_hz, objective) for name in names]
        answers.append(_knowing(menus, band_hz, objective, answers))
        for i, answer in enumerate(answers):
            choice = answer.placed.choice
            judged = menus.judged[rows, choice]
            worth[i, b] = reached(judged, menus.weight, objective)
            served[i, b] = (choice > 0).mean()
            used[i, b] = menus.mean_hertz[rows, choice].sum() / band_hz
            for m in range(len(fleet.members)):
                mine = menus.member == m
                by_member[i, b, m] = judged[mine].mean() if mine.any() else np.nan
            by_draw = menus.draws(choice)
            if by_draw is not None:
                drawn[i][b] = reached(by_draw, menus.weight, objective)
        auction = answers[names.index("auction")]
        bound[b] = max(answers[-1].bound, worth[-1, b])
        price[b], price_s[b] = auction.price, auction.price_s
    flat = [d for line in drawn for d in line if d is not None]
    draws = np.stack(flat).reshape(*shape, -1) if len(flat) == shape[0] * shape[1] else None
    return _Played(worth, draws, by_member, served, used, bound, price, price_s)


def _knowing(
    menus: Menus, band_hz: float, objective: Objective, answers: Sequence[Answer]
) -> Answer:
    """The oracle: the best of its own answer and everybody's, by the cells that judge it."""
    own, rows = play_rival("oracle", menus, band_hz, objective), np.arange(len(menus))

    def worth(answer: Answer) -> float:
        judged = menus.judged[rows, answer.placed.choice]
        return float(reached(judged, menus.weight, objective))

    best = max((own, *answers), key=worth)
    return Answer(best.placed, own.bound, own.price, own.price_s)
