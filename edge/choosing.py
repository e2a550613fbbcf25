"""How to adapt, decided by the uploaded frames themselves: which input adapter, which layers, how
strongly, how far.

No depth is right everywhere: a shift of tone wants an adapter and nothing more, a dim camera the
first layers, an unknown sensor all of them. So a few candidates that differ much train on two
thirds of the frames and are judged on the rest, by groups (flight, scene) that lie on one side or
the other; where that is too few frames to judge by, the thirds take turns. All of this takes at
most as many steps as the training of the winner, which then has all the frames.

How deep to train is a question of the budget too: a model that differs from the device's in its
first layers alone travels whole in a package that cannot carry one that differs everywhere. So
where all layers win, the best of the shallower ways is trained as well, and the two compete for
every budget.

Few and long trainings, not many short ones: after a handful of steps the careful candidate is
ahead of the one that wins in the end, so halving a large field (K. Jamieson, A. Talwalkar,
*Non-stochastic Best Arm Identification and Hyperparameter Optimization*, AISTATS 2016) threw out
the winners first (docs/log.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from endedge.data.errors import BadInput
from endedge.data.frames import Batch
from endedge.data.groups import LEAST_FRAMES, folds_of, groups_of
from endedge.distill.adapter import STARTS, adapter_of, attach, kind_of, start_adapter
from endedge.distill.adapter_training import learn_adapter
from endedge.distill.loss import Make
from endedge.distill.losses import labels
from endedge.distill.model import DetectionModel, clone
from endedge.distill.recipe import Diverged
from endedge.distill.training import Recipe, interpolate, train
from endedge.edge.adapt import Adapted, OnStep, held_back_losses
from endedge.edge.evidence import (
    FIRST_ROUND,
    MOST_JUDGED,
    Evidence,
    Floats,
    Prior,
    error_of,
    log_gains,
)

__all__ = [
    "CANDIDATES",
    "VERSION",
    "Candidate",
    "Chosen",
    "choose_adapter",
    "choose_and_train",
]

OnOther: TypeAlias = Callable[[str, int], OnStep | None]

VERSION = 4  #: to be raised when what is chosen changes: results that rest on it get other names

_FOLDS = 3
_MOST_TURNS = 2  # folds that judge: more would leave each training too short
_ENOUGH_JUDGED = 20  # frames; with fewer in a fold another one judges too
_LEAST_STEPS = 4  # of a candidate's training
_FULL_RATE_FRAMES = 128  # below, the rate of a candidate falls with the root of their number
_SHARES = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Candidate:
    """A way to adapt: ``layers`` trained (None: all; 0: the input adapter alone) at the rate
    ``lr``; ``train_norm``: batch-norm statistics follow the frames."""

    name: str
    layers: int | None
    lr: float
    train_norm: bool

    @property
    def deep(self) -> bool:
        """Whether it changes the whole network."""
        return self.layers is None

    def recipe(self, like: Recipe, steps: int, n_frames: int) -> Recipe:
        """The recipe of ``steps`` on ``n_frames``, in all else ``like`` the one given."""
        few = 1.0 if self.layers == 0 else math.sqrt(min(1.0, n_frames / _FULL_RATE_FRAMES))
        return replace(
            like,
            steps=steps,
            batch=min(like.batch, n_frames),
            lr=self.lr * few,
            layers=self.layers,
            train_norm=self.train_norm,
        )


#: From the most careful on: where steps are short, the last ones are left out. A tone that is off
#: wants the first, a dim camera the second, an unknown sensor the third; what lies between them
#: (all layers gently, the first ones with statistics that follow) won nowhere by much.
CANDIDATES: tuple[Candidate, ...] = (
    Candidate("adapter", 0, 1e-2, False),
    Candidate("front", 5, 5e-4, False),
    Candidate("all", None, 1e-3, True),
)


@dataclass(frozen=True, eq=False)
class Chosen(Adapted):
    """The adapted detector and why: ``candidate`` (``none``: nothing was trained), the ``kind``
    of its input adapter, the ``evidence``, training steps spent on choosing and on the winner,
    whether a teacher ``taught`` beside the labels, and the mean gain of everything tried
    (``trials``: fold, candidate, share, gain). ``shallow``: where all layers won, the best of the
    ways that change the first ones only, trained as well; None: nothing of it would help."""

    candidate: str = "none"
    kind: str = "none"
    evidence: Evidence = field(default_factory=lambda: Evidence(0.0, 0.0, 0.0, 0, 0))
    choosing_steps: int = 0
    training_steps: int = 0
    taught: bool = False
    trials: tuple[tuple[str, str, float, float], ...] = ()
    shallow: Chosen | None = None

    def record(self) -> dict[str, Any]:
        """What is kept of the choice beside the detector, JSON-able."""
        return {
            "candidate": self.candidate,
            "adapter": self.kind,
            "evidence": asdict(self.evidence),
            "choosing_steps": self.choosing_steps,
            "training_steps": self.training_steps,
            "taught": self.taught,
            "trials": [list(trial) for trial in self.trials],
        }


def choose_adapter(
    start: DetectionModel,
    frames: Batch,
    *,
    groups: Sequence[str] | None = None,
    device: str = "cpu",
    sure: float = 1.0,
) -> tuple[DetectionModel, dict[str, float]]:
    """``start`` behind the input adapter under which it finds the labels of ``frames`` best, and
    the mean loss of each one tried.

    Every curve of :data:`~endedge.distill.adapter.STARTS` with and without the stretch of each
    frame. No adapter, or the one that ``start`` has, is kept unless another is better by more
    than ``sure`` standard errors (paired by frame, over ``groups`` (n,) where there are at least
    three of them). Nothing is trained.
    """
    judges = frames.take(range(min(len(frames), MOST_JUDGED)))
    named = groups_of(None if groups is None else groups[: len(judges)], len(judges), _FOLDS)
    before = held_back_losses(start, judges, device)
    best, best_gain, losses = start, 0.0, {"as it is": float(before.mean())}
    for per_frame in (False, True):
        for curve in STARTS:
            trial = clone(start)
            attach(trial, start_adapter(curve, per_frame=per_frame))
            if kind_of(trial) == "none":
                continue
            after = held_back_losses(trial, judges, device)
            losses[curve + "+stretch" * per_frame] = float(after.mean())
            gains = log_gains(before, after)
            gain = float(gains.mean())
            if gain > sure * error_of(gains, named) and gain > best_gain:
                best, best_gain = trial, gain
    return best, losses


def choose_and_train(
    start: DetectionModel,
    frames: Batch,
    recipe: Recipe,
    *,
    held: DetectionModel | None = None,
    objective: Callable[[float], Make] = lambda gain: labels,
    groups: Sequence[str] | None = None,
    candidates: Sequence[Candidate] = CANDIDATES,
    prior: Prior = FIRST_ROUND,
    device: str = "cpu",
    on_step: OnStep | None = None,
    on_other: OnOther = lambda training, steps: None,
) -> Chosen:
    """The student for ``frames``, adapted in the way that they themselves show to be best.

    Args:
        start: What is adapted; untouched.
        frames: Labelled frames, all of them: they are trained on and judge in turn.
        recipe: The winner's steps, the batch, average and seed.
        held: What the device has, over which gains are counted; None: the start.
        objective: The loss of the winner's training, told what its short training on labels alone
            had gained (of :class:`Evidence`): a teacher must be better than that to teach.
        groups: (n,) Frames of one group are trained on or judged together. None, or fewer than
            three of them: each frame is its own.
        candidates: Among which depth, rate and statistics are chosen.
        prior: What earlier rounds gained.
        device: Where it computes.
        on_step: Told of the steps of the winner's training.
        on_other: Gives, for any other training (``try front 2``: on the second fold; ``shallow``)
            and its number of steps, who is told of them.

    Raises:
        BadInput: for fewer than :data:`~endedge.data.groups.LEAST_FRAMES` frames.
    """
    n = len(frames)
    if n < LEAST_FRAMES:
        raise BadInput(f"{n} frames cannot judge an adaptation; upload at least {LEAST_FRAMES}")
    if not candidates:
        raise BadInput("no candidates to choose an adaptation from")
    named = groups_of(groups, n, _FOLDS)
    first, _ = choose_adapter(start, frames, groups=groups, device=device)
    search = _Search(held or start, first, frames, named, recipe, device, on_other)
    tried = list(candidates)[: max(1, recipe.steps // _LEAST_STEPS)]
    turns = search.turns(recipe.steps // (len(tried) * _LEAST_STEPS))
    for fold in turns:
        search.turn(tried, fold, recipe.steps // (len(tried) * len(turns)))

    def learned(winner: Candidate | None, share: float, told: OnStep | None) -> Chosen:
        evidence = search.evidence(winner, share, prior)
        towards = objective(evidence.gain) if winner is not None and winner.layers != 0 else labels
        if winner is None:
            model = first
        else:
            model = search.trained(winner, range(n), recipe.steps, towards, told)
            model = interpolate(search.begin(winner), model, share)
        return Chosen(
            model,
            share,
            {0.0: evidence.before, share: evidence.before * math.exp(-evidence.gain)},
            candidate="none" if winner is None else winner.name,
            kind=kind_of(model),
            evidence=evidence,
            choosing_steps=search.steps,
            training_steps=0 if winner is None else recipe.steps,
            taught=towards is not labels,
            trials=tuple(search.trials),
        )

    winner, share = search.winner(tried)
    chosen = learned(winner, share, on_step)
    shallower = [c for c in tried if not c.deep]
    if winner is None or not winner.deep or not shallower:
        return chosen
    second, share = search.winner(shallower)
    if second is None:
        return chosen
    told = on_other("shallow", recipe.steps)
    return replace(chosen, shallow=learned(second, share, told))


class _Search:
    """What was tried: trained on all folds but one, and what each frame of that then gained."""

    def __init__(
        self,
        base: DetectionModel,
        first: DetectionModel,
        frames: Batch,
        groups: Sequence[str],
        recipe: Recipe,
        device: str,
        on_other: OnOther,
    ) -> None:
        self._base, self._first, self._frames = base, first, frames
        self._groups, self._recipe = groups, recipe
        self._device, self._on_other = device, on_other
        self._folds = folds_of(groups, _FOLDS, recipe.seed)
        self._gains: dict[tuple[str, float], dict[int, Floats]] = {}
        self._judges: dict[int, list[int]] = {}
        self._before: dict[int, Floats] = {}
        self.trials: list[tuple[str, str, float, float]] = []
        self.steps = 0

    def begin(self, candidate: Candidate) -> DetectionModel:
        """What ``candidate`` starts from: with an adapter where one is to be learned."""
        model = self._first
        if candidate.layers == 0 and adapter_of(model) is None:
            model = clone(model)
            attach(model, start_adapter())
        return model

    def trained(
        self,
        candidate: Candidate,
        at: Sequence[int],
        steps: int,
        objective: Make = labels,
        on_step: OnStep | None = None,
    ) -> DetectionModel:
        recipe = candidate.recipe(self._recipe, steps, len(at))
        frames, start = self._frames.take(at), self.begin(candidate)
        if candidate.layers == 0:
            return learn_adapter(start, frames, recipe, device=self._device, on_step=on_step)
        return train(start, frames, objective, recipe, device=self._device, on_step=on_step)

    def turns(self, most: int) -> list[int]:
        """The folds that judge: those of many groups first, until there are enough frames of two
        groups or more; at most ``most`` of them."""
        groups = [set[str]() for _ in range(_FOLDS)]
        for group, fold in zip(self._groups, self._folds, strict=True):
            groups[fold].add(group)
        order = sorted(range(_FOLDS), key=lambda fold: -len(groups[fold]))
        chosen = order[:1]
        for fold in order[1 : max(1, min(most, _MOST_TURNS))]:
            judges = sum(self._folds.count(f) for f in chosen)
            if judges < _ENOUGH_JUDGED or sum(len(groups[f]) for f in chosen) < 2:
                chosen.append(fold)
        return chosen

    def turn(self, candidates: Sequence[Candidate], fold: int, steps: int) -> None:
        """Train each for ``steps`` on all but ``fold``, judge it on that."""
        inside = [i for i, f in enumerate(self._folds) if f == fold]
        training = [i for i, f in enumerate(self._folds) if f != fold]
        judges = self._judges[fold] = inside[:MOST_JUDGED]
        unseen = self._frames.take(judges)
        before = self._before[fold] = held_back_losses(self._base, unseen, self._device)
        gained = log_gains(before, held_back_losses(self._first, unseen, self._device))
        self._note(fold, "none", 0.0, gained)
        for candidate in candidates:
            self.steps += steps
            try:
                told = self._on_other(f"try {candidate.name} {fold + 1}", steps)
                end = self.trained(candidate, training, steps, on_step=told)
            except Diverged:
                for share in _SHARES:
                    self._note(fold, candidate.name, share, np.full(len(before), -np.inf))
                continue
            for share in _SHARES:
                mixed = interpolate(self.begin(candidate), end, share)
                losses = held_back_losses(mixed, unseen, self._device)
                self._note(fold, candidate.name, share, log_gains(before, losses))

    def _note(self, fold: int, name: str, share: float, gains: Floats) -> None:
        self._gains.setdefault((name, share), {})[fold] = gains
        self.trials.append((f"fold {fold + 1}", name, share, max(-99.0, float(gains.mean()))))

    def _all(self, name: str, share: float) -> Floats:
        """Gains of all frames that judged, fold after fold."""
        folds = self._gains[name, share]
        return np.concatenate([folds[f] for f in sorted(folds)])

    def _judging(self) -> list[str]:
        """The groups of those frames."""
        return [self._groups[i] for f in sorted(self._judges) for i in self._judges[f]]

    def winner(self, candidates: Sequence[Candidate]) -> tuple[Candidate | None, float]:
        """The best candidate at its best share; None where that is not surely better, by one
        standard error, than the first adapter and nothing trained."""
        every = [(c, s) for c in candidates for s in _SHARES]
        best, share = max(every, key=lambda at: float(self._all(at[0].name, at[1]).mean()))
        ahead = self._all(best.name, share) - self._all("none", 0.0)
        if not float(ahead.mean()) > error_of(ahead, self._judging()):
            return None, 0.0
        return best, share

    def evidence(self, winner: Candidate | None, share: float, prior: Prior) -> Evidence:
        name = "none" if winner is None else winner.name
        before = float(np.exp(np.log(np.concatenate(list(self._before.values()))).mean()))
        gains, groups = self._all(name, share), self._judging()
        gain, error = prior.posterior(gains, groups)
        return Evidence(gain, error, before, len(gains), len(set(groups)))
