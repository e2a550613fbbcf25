"""Policies: who decides the split. One small protocol, a registry, and the baselines.

A policy is a callable from what is known to a split in bytes::

    from endedge.allocator import Known, Split, register

    @register("half-a-megabyte-up")
    def mine(known: Known) -> Split:
        return known.budget.with_upload(5e5)

Another package registers its own through an entry point of the group ``endedge.policies``. The same
policies play in the benchmark, one period on a measured surface, and in the closed loop, period
after period with a history.
"""

from __future__ import annotations

import math
import re
import runpy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import NoReturn, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from endedge.allocator.fitting.curves import Curves
from endedge.allocator.fitting.surface import Points
from endedge.allocator.problem import Budget, Link, Rules, Split
from endedge.allocator.solve.optimum import best_point
from endedge.allocator.solve.search import best_split, worth
from endedge.data.errors import BadInput

__all__ = [
    "NOT_FITTED",
    "NOT_KNOWN",
    "Known",
    "Observed",
    "Policy",
    "TooEarly",
    "decide",
    "find",
    "from_file",
    "hindsight",
    "register",
    "registry",
    "watches",
]

Floats = NDArray[np.float64]

_ENTRY_POINTS = "endedge.policies"
_STATIC = r"static-(0\.\d+)(?:@(0\.\d+))?"
_BLIND = "equal|data-only|model-only|no-update|random|full-model-first"
NO_UPDATE = Split(0.0, 0.0)
NOT_KNOWN = -1  #: the place of a period whose frames have not come


class TooEarly(BadInput):
    """A policy looked at curves that there are not yet."""


class _NotFitted:
    """In place of curves as long as there is too little to fit."""

    def __getattr__(self, name: str) -> NoReturn:
        raise TooEarly("there are no curves yet; a policy that needs none answers at once")


NOT_FITTED = cast(Curves, _NotFitted())


@dataclass(frozen=True)
class Observed:
    """An earlier period: its number, the bytes that were sent each way (0: nothing), and the
    device's mAP ``before`` and ``after`` it, on frames kept for decisions. ``refused``: the edge
    held the update back. ``learned_in``, ``judged_in``: the places, as the edge recognised them, of
    the frames that went up and of those that the device saw in that period; :data:`NOT_KNOWN`
    until (or unless) such frames came."""

    period: int
    upload_bytes: float
    update_bytes: float
    before: float
    after: float
    refused: bool = False
    learned_in: int = 0
    judged_in: int = 0


@dataclass(frozen=True)
class Known:
    """What a policy may use.

    ``curves`` fitted on the cells that it may see; ``points``: the operating points that can
    be executed, whose ``map`` is NaN unless the policy is registered with hindsight; ``rng``
    seeded by the benchmark; ``bandwidths_hz``: the whole sweep, for choices made once for all
    of it; ``round_down``: how the benchmark rounds a split down to a row of ``points`` (None: no
    update), by default :meth:`Points.fitting`. ``history``: the periods before, oldest first;
    empty where there is only one. ``limits``: the budget, where it does not follow from the link
    alone (several devices share the air, say). ``place``: the last one that the edge recognised by
    the frames that came; ``periods``: how many a package may travel; ``recalls``: whether the
    device keeps models that the edge may name.

    Before the first fit of a loop ``curves`` raise :class:`TooEarly` for whatever is asked.
    """

    link: Link
    curves: Curves
    points: Points
    rng: np.random.Generator
    rules: Rules = field(default_factory=Rules)
    bandwidths_hz: tuple[float, ...] = ()
    round_down: Callable[[Split], int | None] | None = None
    history: tuple[Observed, ...] = ()
    limits: Budget | None = None
    place: int = 0
    periods: int = 1
    recalls: bool = False

    def executes(self, split: Split) -> int | None:
        """The row of ``points`` that a split comes down to when it is executed; None: no update."""
        if self.round_down is not None:
            return self.round_down(split)
        return self.points.fitting(
            split.upload_bytes, split.update_bytes, split.codec, split.student
        )

    @cached_property
    def budget(self) -> Budget:
        """The link as a constraint on bytes."""
        if self.limits is not None:
            return self.limits
        return Budget.of(self.link, self.rules, self.curves)

    def worth(self, split: Split) -> float:
        """The objective that the curves predict for a split."""
        if not split.sends:
            return self.budget.stale
        pair = np.array([split.upload_bytes]), np.array([split.update_bytes])
        return float(worth(self.curves.joint, self.budget, *pair)[0])


Policy: TypeAlias = Callable[[Known], Split]

_BUILT_IN: dict[str, Policy] = {}
_HINDSIGHT: set[str] = set()


def register(name: str, *, hindsight: bool = False) -> Callable[[Policy], Policy]:
    """Add a policy under ``name``; ``hindsight`` lets it see the measured accuracies.

    Raises :class:`BadInput` when the name is taken.
    """

    def add(policy: Policy) -> Policy:
        if name in _BUILT_IN:
            raise BadInput(f"a policy named {name!r} is registered already")
        _BUILT_IN[name] = policy
        if hindsight:
            _HINDSIGHT.add(name)
        return policy

    return add


def registry() -> Mapping[str, Policy]:
    """All policies by name: the built-in ones, then those of installed packages.

    Raises :class:`BadInput` naming the package whose entry point does not load, is not
    callable, or takes a name that exists.
    """
    policies = dict(_BUILT_IN)
    for entry in entry_points(group=_ENTRY_POINTS):
        where = f"entry point {entry.name} = {entry.value} of {_ENTRY_POINTS}"
        try:
            policy = entry.load()
        except Exception as error:
            raise BadInput(f"{where} does not load: {error}") from error
        if not callable(policy):
            raise BadInput(f"{where} is not callable; it must be policy(known) -> Split")
        if policies.setdefault(entry.name, policy) is not policy:
            raise BadInput(f"{where} takes a name that exists; choose another")
    return policies


def find(name: str) -> Policy:
    """The policy called ``name``; ``static-0.8`` gives 80 % to the uplink, and so for any share;
    ``static-0.8@0.5`` does so with half of the room, and leaves the rest idle.

    Raises :class:`BadInput` for one there is not.
    """
    if static := re.fullmatch(_STATIC, name):
        share, air = float(static[1]), float(static[2] or 1.0)
        return lambda known: known.budget.within(air).with_share(share)
    policies = _BUILT_IN if name in _BUILT_IN else registry()  # which asks all installed packages
    if name not in policies:
        raise BadInput(f"no policy {name!r}; there are {', '.join(sorted(policies))}, static-0.8")
    return policies[name]


def hindsight(name: str) -> bool:
    """Whether a policy has to know how every answer ends."""
    return name in _HINDSIGHT


def watches(name: str) -> bool:
    """Whether a policy looks at anything that happens: its history, curves, the places met."""
    return not re.fullmatch(f"{_BLIND}|{_STATIC}", name)


def from_file(file: Path) -> list[str]:
    """Run a Python file that registers policies; their names.

    Raises :class:`BadInput` when it is not there, does not run, or registers none.
    """
    before = set(_BUILT_IN)
    try:
        runpy.run_path(str(file))
    except BadInput:
        raise
    except (Exception, SystemExit) as error:  # sys.exit() would end the benchmark as a success
        raise BadInput(f"{file} does not run: {type(error).__name__}: {error}") from None
    if not (new := [name for name in _BUILT_IN if name not in before]):
        raise BadInput(f'{file} registers no policy; decorate one with @register("its-name")')
    return new


def decide(name: str, known: Known) -> Split:
    """Run one policy and check its answer.

    Raises :class:`BadInput` for an unknown name, an answer that is no split, and a split
    that the link cannot carry; :class:`TooEarly` from one that needs curves before there are some.
    """
    policy = find(name)
    if not hindsight(name):
        blind = np.full(len(known.points), np.nan)
        known = replace(known, points=replace(known.points, map=blind, map_error=blind))
    try:
        split = policy(known)
    except SystemExit as error:
        raise BadInput(f"policy {name!r} ends the program: sys.exit({error})") from None
    if not isinstance(split, Split) or not known.budget.allows(split, known.periods):
        raise BadInput(f"policy {name!r} answered {split}, which the link cannot carry")
    return split


@register("no-update")
def no_update(known: Known) -> Split:
    """Keep the model that is there."""
    return NO_UPDATE


@register("data-only")
def data_only(known: Known) -> Split:
    """All to frames; the model gets the least package that carries an update at all."""
    split, least = known.budget.with_upload(math.inf), known.budget.update.low
    return replace(split, update_bytes=least) if split.sends else split


@register("model-only")
def model_only(known: Known) -> Split:
    """All to the model, made from the least upload that there is."""
    return known.budget.with_upload(0.0)


@register("equal")
def equal(known: Known) -> Split:
    """Half of the bandwidth (pipelined) or of the air time (sequential) each."""
    return known.budget.with_share(0.5)


@register("full-model-first")
def full_model_first(known: Known) -> Split:
    """The largest package that fits, frames with what is left."""
    budget = known.budget
    if budget.reason:
        return NO_UPDATE
    left = (budget.room - budget.down * budget.update.high) / budget.up
    return budget.with_upload(max(left, budget.upload.low))


@register("random")
def random(known: Known) -> Split:
    """A share drawn uniformly."""
    return known.budget.with_share(float(known.rng.random()))


@register("marginal-greedy")
def marginal_greedy(known: Known) -> Split:
    """From the least of both, room goes in 1/100ths to the side that gains more by it."""
    budget, joint = known.budget, known.curves.joint
    if budget.reason:
        return NO_UPDATE
    u, m = budget.upload.low, budget.update.low
    chunk = (budget.room - budget.cost(u, m)) / 100
    for _ in range(100):
        more_u = min(u + chunk / budget.up, budget.upload.high)
        more_m = min(m + chunk / budget.down, budget.update.high)
        here = joint.value(u, m)
        gain_u, gain_m = joint.value(more_u, m) - here, joint.value(u, more_m) - here
        if more_u > u and (gain_u >= gain_m or more_m == m):
            u = more_u
        else:
            m = more_m
    return Split(u, m)


@register("thief")
def thief(known: Known) -> Split:
    """From equal shares, each side in turn steals a tenth of the room from the other for as
    long as the prediction rises (after Ekya's thief scheduler, Bhardwaj et al., NSDI 2022)."""
    share = 0.5
    best = known.budget.with_share(share)
    for steal in (0.1, -0.1):
        while 0 <= share + steal <= 1 + 1e-12:
            trial = known.budget.with_share(min(max(share + steal, 0.0), 1.0))
            if known.worth(trial) <= known.worth(best):
                break
            share, best = share + steal, trial
    return best


@register("fitted")
def fitted(known: Known) -> Split:
    """The best operating point that can be executed, by the accuracy that the curves predict."""
    points = known.points
    return _at(known, known.curves.joint.value(points.upload_bytes, points.update_bytes))


@register("fitted-bytes")
def fitted_bytes(known: Known) -> Split:
    """The optimum of the fitted curves in bytes, whatever of it can be executed."""
    upload, update, _ = best_split(known.curves.joint, known.budget)
    return Split(upload, update)


@register("robust")
def robust(known: Known) -> Split:
    """Like ``fitted``, by the lower decile over the bootstrap curves."""
    if not known.curves.replicates:
        raise BadInput("the robust policy needs curves with bootstrap replicates; fit some")
    points = known.points
    drawn = known.curves.draws(points.upload_bytes, points.update_bytes)
    return _at(known, np.quantile(drawn, 0.1, axis=0))


@register("monotone")
def monotone(known: Known) -> Split:
    """Like ``fitted``, by the monotone reference, which assumes no family."""
    points = known.points
    return _at(known, known.curves.reference.predict(points.upload_bytes, points.update_bytes))


@register("best-static", hindsight=True)
def best_static(known: Known) -> Split:
    """The one share that is best on average over the whole sweep, chosen in hindsight."""
    shares = np.linspace(0.0, 1.0, 41)
    totals = np.zeros(len(shares))
    for bandwidth_hz in known.bandwidths_hz or (known.link.bandwidth_hz,):
        budget = Budget.of(
            replace(known.link, bandwidth_hz=bandwidth_hz), known.rules, known.curves
        )
        for k, share in enumerate(shares):
            split = budget.with_share(float(share))
            row = known.executes(split)
            totals[k] += budget.stale if row is None else _achieved(known, budget, row)
    return known.budget.with_share(float(shares[np.argmax(totals)]))


@register("oracle", hindsight=True)
def oracle(known: Known) -> Split:
    """The best measured operating point that fits: no other measured one beats it."""
    return _at(known, known.points.map)


def _at(known: Known, accuracy: Floats) -> Split:
    row, _ = best_point(known.points, accuracy, known.budget)
    if row is None:
        return NO_UPDATE
    points = known.points
    return Split(
        float(points.upload_bytes[row]), float(points.update_bytes[row]), str(points.codec[row])
    )


def _achieved(known: Known, budget: Budget, row: int) -> float:
    """The measured objective of an executed operating point."""
    upload, update = known.points.upload_bytes[row], known.points.update_bytes[row]
    return float(budget.objective(known.points.map[row], upload, update))
