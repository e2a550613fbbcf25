"""One policy through one simulated day, period after period, as the loop plays it.

In period k the frames of period k - 1 go up. ``sequential``: the update made of them is applied
within the period. ``pipelined``: both directions are busy all through; the edge works on an upload
while the next one comes, and the package travels in the period after that, so that it serves from
the third period on.
"""

from __future__ import annotations

import math
import zlib
from collections import deque
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from endedge.allocator import Budget, Curves, Known, Link, Observed, Split
from endedge.allocator.online.adaptive import REUSE_BYTES
from endedge.allocator.policies import NOT_KNOWN, decide, watches
from endedge.edge.places import Places
from endedge.lab.replays.days import ReplayedDay
from endedge.lab.replays.worlds import Ground, World

__all__ = ["NO_UPDATE", "ORACLE", "Played", "Setting", "play"]

Floats = NDArray[np.float64]

NO_UPDATE, ORACLE = "no-update", "oracle"
MONITOR = 0.008  # mAP: of what is measured on the frames kept for decisions
_FRAME = 0.5  # nats: deviation of one frame's log loss
_PER_MAP = 4.0  # nats that the log loss of a model falls when its mAP rises by 1
_REMEMBERED = 4  # models that the edge runs on every upload, beside the first
_RECALL_NOISE = 0.02  # mAP: of a kept model against the running one, on an upload
_KEPT = 6  # models that a device keeps


@dataclass(frozen=True)
class Setting:
    """``periods`` that a package may travel; ``recalls``: the device keeps models; ``told``: the
    policy hears which place it is, instead of recognising it."""

    periods: int = 1
    recalls: bool = False
    told: bool = False


@dataclass
class Played:
    """``map``: average over the day; ``choices``: the row of the ground's points of each round, or
    -1; of each change of place the rounds until it was noticed (``delays``; those never noticed
    count as long as the visit was), and how many were said that were none (``false_alarms``)."""

    map: float
    choices: list[int]
    delays: list[int] = field(default_factory=list)
    false_alarms: int = 0
    updates: int = 0
    refused: int = 0
    seen: int = 0
    rightly_named: int = 0


@dataclass(frozen=True)
class _Sent:
    """An upload on its way to become an update."""

    split: Split
    place: int
    recognised: int


class _Game:
    """What happens in a day, whoever decides."""

    def __init__(
        self, name: str, ground: Ground, world: World, day: ReplayedDay, seed: int
    ) -> None:
        self.name, self.ground, self.world, self.day = name, ground, world, day
        self.rng = np.random.default_rng([seed, 1])
        self.accuracy = world.start.copy()
        self.models: list[Floats] = [world.start.copy()]
        self.places = Places()
        self.offset = self.rng.normal(0, 0.3, len(world))  # of the log loss, by place
        self.heard: list[int | None] = []  # the place recognised by each round's upload
        self.history: list[Observed] = []

    def listen(self, place: int, frames: float) -> int:
        """Run the remembered models on an upload."""
        n = max(int(frames), 1)
        kept = [(0, self.models[0])]
        kept += list(enumerate(self.models))[1:][-_REMEMBERED:]
        hard = self.rng.normal(0, _FRAME, n)  # of these frames, for all models alike
        losses = {
            str(i): np.exp(
                1.0
                + self.offset[place]
                - _PER_MAP * model[place]
                + hard
                + self.rng.normal(0, _FRAME / 2, n)
            ).tolist()
            for i, model in kept
        }
        return self.places.heard(losses)

    def recall(self, place: int) -> None:
        """Go back to the kept model that seems best on these frames, if one surely is."""
        kept = self.models[-_KEPT:]
        seems = [m[place] - self.accuracy[place] + self.rng.normal(0, _RECALL_NOISE) for m in kept]
        if max(seems) > _RECALL_NOISE:
            self.accuracy = kept[int(np.argmax(seems))].copy()

    def told(self) -> tuple[Observed, ...]:
        """The history as it is known now: the place of a period is known when its frames came."""
        judged = [NOT_KNOWN if place is None else place for place in (*self.heard[1:], None)]
        return tuple(
            replace(seen, judged_in=place)
            for seen, place in zip(self.history, judged, strict=False)
        )


def play(
    name: str,
    ground: Ground,
    world: World,
    day: ReplayedDay,
    number: int,
    seed: int,
    setting: Setting,
) -> Played:
    """One day of one policy.

    Args:
        name: a registered policy, or ``oracle``
        ground: the measured tables
        world: of this day alone, for it keeps what happened
        day: places and bandwidths
        number: of the day: seeds whatever is random but the world's own
        seed: of the table; the policy's curves did not see it
        setting: what is allowed
    """
    game = _Game(name, ground, world, day, number)
    curves = ground.curves_for(seed)
    rng = np.random.default_rng([zlib.crc32(name.encode()), number])
    blind = name == ORACLE or not watches(name)
    pipelined = ground.rules.schedule == "pipelined"
    waiting: deque[_Sent | None] = deque([None, None] if pipelined else [])
    total, busy, ends = 0.0, 0, 0.0
    played = Played(0.0, [])
    travelling: tuple[Split, int, int] | None = None
    for k in range(day.rounds):
        here, before_place = int(day.place[k + 1]), int(day.place[k])
        link = ground.link.at(float(day.bandwidth_hz[k]))
        budget = Budget.of(link, ground.rules, curves)
        stale = float(game.accuracy[here])
        split, recognised = Split(0.0, 0.0), None
        arrives = False
        if busy:
            busy -= 1
            arrives = busy == 0
        elif name == ORACLE:
            split = _best(game, k, budget)
        elif not budget.reason:
            split = _asked(game, link, curves, rng, budget, setting)
        if split.sends:
            recognised = before_place if blind else _hear(game, before_place, split, setting)
            need = budget.cost(split.upload_bytes, split.update_bytes)
            periods = max(1, math.ceil(need / budget.room * (1 - 1e-9)))
            left = need - (periods - 1) * budget.room
            ends = 1 - budget.fresh * (1 - left / budget.room)
            if budget.fresh_up == 0:  # both directions all through
                ends = 1 - budget.fresh
            travelling, busy = (split, before_place, recognised), periods - 1
            arrives = periods == 1
        game.heard.append(recognised)

        refused, row, source, named = False, None, before_place, recognised
        done, made = 0.0, Split(0.0, 0.0)
        if pipelined and setting.periods == 1:
            ready = waiting.popleft()
            now = None if recognised is None else _Sent(split, before_place, recognised)
            waiting.append(now)
            if ready is not None and split.sends:
                made = Split(ready.split.upload_bytes, split.update_bytes)
                source, named, done = ready.place, ready.recognised, 1.0
        elif arrives and travelling is not None:
            made, source, named = travelling
            done = ends
        if made.sends:
            if setting.recalls:
                game.recall(source)
            asks = made.update_bytes <= REUSE_BYTES
            row = None if asks else _executed(ground, made)
            if row is not None:
                game.accuracy, refused = world.update(game.accuracy, source, row)
                played.updates += 1
                played.refused += refused
                if not refused:
                    game.models.append(game.accuracy.copy())
        played.choices.append(-1 if row is None else row)
        after = float(game.accuracy[here])
        total += stale * done + after * (1 - done) if made.sends else stale
        up, down = (0.0, 0.0) if row is None else _bytes(ground, row)
        if made.sends and row is None and made.update_bytes <= REUSE_BYTES:
            up = made.upload_bytes
        noise = game.rng.normal(0, MONITOR, 2)
        game.history.append(
            Observed(
                k,
                up,
                down,
                stale + noise[0],
                after + (noise[1] if made.sends else noise[0]),
                refused,
                NOT_KNOWN if named is None else named,
            )
        )
        world.pass_period()
    if not blind:
        _alarms(game, played)
    return replace(played, map=total / day.rounds)


def _asked(
    game: _Game,
    link: Link,
    curves: Curves,
    rng: np.random.Generator,
    budget: Budget,
    setting: Setting,
) -> Split:
    known = Known(
        link,
        curves,
        game.ground.points,
        rng,
        game.ground.rules,
        history=game.told(),
        limits=budget,
        place=next((p for p in reversed(game.heard) if p is not None), 0),
        periods=setting.periods,
        recalls=setting.recalls,
    )
    return decide(game.name, known)


def _hear(game: _Game, place: int, split: Split, setting: Setting) -> int:
    fits = game.ground.points.upload_bytes <= split.upload_bytes * (1 + 1e-9)
    frames = game.ground.points.frames[fits]
    named = game.listen(place, float(frames.max()) if len(frames) else 4.0)
    return place if setting.told else named


def _executed(ground: Ground, split: Split) -> int | None:
    return ground.points.fitting(split.upload_bytes, split.update_bytes, split.codec, split.student)


def _bytes(ground: Ground, row: int) -> tuple[float, float]:
    return float(ground.points.upload_bytes[row]), float(ground.points.update_bytes[row])


def _best(game: _Game, k: int, budget: Budget) -> Split:
    """What is best for the rest of this visit, for one who knows the world, the bandwidth of this
    period and when the place changes; noise apart. It looks one action ahead: what later updates
    close anyway is taken at the best rate of this period."""
    world, points, place = game.world, game.ground.points, int(game.day.place[k])
    here = int(game.day.place[k + 1])
    cost = budget.up * points.upload_bytes + budget.down * points.update_bytes
    fits = np.flatnonzero(cost <= budget.room * (1 + 1e-9))
    if budget.reason or not len(fits):
        return Split(0.0, 0.0)
    left = 0
    while k + 2 + left < len(game.day.place) and game.day.place[k + 2 + left] == here:
        left += 1
    fresh = budget.fresh - budget.fresh_up * points.upload_bytes
    fresh = fresh - budget.fresh_down * points.update_bytes
    if game.ground.rules.schedule == "pipelined":  # all the same when: the best rate
        fresh = np.zeros(len(points))
    now = game.accuracy
    after = np.array([world.expected(now, place, int(i)) for i in fits])
    gain = np.where(after[:, place] > now[place], after[:, here] - now[here], 0.0)
    gap = max(float(world.ceiling[here] - now[here]), 1e-9)
    closing = float(np.clip(gain.max() / gap, 0.0, 0.95))
    later = sum((1 - closing) ** i for i in range(1, left + 1))
    worth = gain * (fresh[fits] + max(later, 1e-3))
    if worth.max() <= 0:
        return Split(0.0, 0.0)
    i = int(fits[worth.argmax()])
    return Split(*_bytes(game.ground, i), str(points.codec[i]), str(points.student[i]))


def _alarms(game: _Game, played: Played) -> None:
    """Compare what was recognised with where the device was, upload by upload."""
    heard = zip(game.day.place.tolist(), game.heard, strict=False)
    seen = [(place, said, k) for k, (place, said) in enumerate(heard) if said is not None]
    names: dict[int, int] = {}
    waiting: int | None = None
    for (before, said_before, _), (now, said, k) in pairwise(seen):
        names.setdefault(before, said_before)
        if now != before:
            if waiting is not None:
                played.delays.append(k - waiting)
            waiting = k
        if said != said_before:
            if waiting is not None:
                played.delays.append(k - waiting)
                waiting = None
            elif now == before:
                played.false_alarms += 1
        played.seen += 1
        played.rightly_named += names.setdefault(now, said) == said
