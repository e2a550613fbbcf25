"""Choosing between models for one budget by what their decoded packages predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from endedge.data.errors import BadInput
from endedge.distill.losses import divergence
from endedge.distill.model import DetectionModel
from endedge.distill.package.packing import Packed, Prepared, Watch, pack, prepare
from endedge.distill.package.sensitivity import synthetic_frames
from endedge.distill.training import Recipe

__all__ = ["Contest", "pack_best", "pack_for", "prepare_contest"]


@dataclass(frozen=True, eq=False)
class Contest:
    """Prepared models, the whole one first, of which the one that comes through a budget closest to
    the first is sent; ``judges`` (N, 3, S, S) uint8 are the frames on which that is measured."""

    candidates: tuple[Prepared, ...]
    judges: Tensor

    def pack(
        self, budget_bytes: int, *, aware: Recipe | None = None, watch: Watch | None = None
    ) -> Packed:
        """The winner's package in at most ``budget_bytes``. Candidates that do not fit are passed
        over; raises :class:`BadInput` if none fits."""
        found: list[tuple[float, Packed]] = []
        refused = BadInput("no candidate models were given")
        n = len(self.candidates)
        for i, candidate in enumerate(self.candidates):
            part = _part(watch, i, n)
            try:
                packed = candidate.pack(budget_bytes, aware=aware, watch=part)
            except BadInput as error:
                refused = error
                continue
            if n == 1:
                return packed
            nats = divergence(self.candidates[0].model, packed.decoded, self.judges)
            found.append((nats, replace(packed, candidate=i)))
        if not found:
            raise refused
        return min(found, key=lambda x: x[0])[1]


def prepare_contest(
    candidates: Sequence[DetectionModel],
    *,
    frames: Tensor | None,
    unseen: Tensor | None = None,
    base: DetectionModel | None = None,
    seed: int = 0,
    mode: str = "auto",
    watch: Watch | None = None,
) -> Contest:
    """All ``candidates`` prepared with ``frames`` (see :func:`.packing.prepare`): say the whole
    model, and ones pruned and recovered. They are compared on ``unseen`` frames, if given, for a
    recovered model is at home on those it was trained on. Raises :class:`BadInput` as ``prepare``
    does."""
    judges = unseen if unseen is not None else frames
    prepared = tuple(
        prepare(
            model,
            base=base,
            frames=frames,
            seed=seed,
            mode=mode,
            watch=_part(watch, i, len(candidates)),
        )
        for i, model in enumerate(candidates)
    )
    return Contest(prepared, synthetic_frames(seed=seed) if judges is None else judges)


def pack_best(
    candidates: Sequence[DetectionModel],
    budget_bytes: int,
    *,
    frames: Tensor | None,
    unseen: Tensor | None = None,
    base: DetectionModel | None = None,
    seed: int = 0,
    mode: str = "auto",
    aware: Recipe | None = None,
    watch: Watch | None = None,
) -> Packed:
    """The package, among those of all ``candidates``, whose decoded model comes closest to the
    first candidate; the arguments are those of :func:`prepare_contest` and :func:`.packing.pack`.
    For several budgets, prepare once. Raises :class:`BadInput` if no candidate fits."""
    contest = prepare_contest(
        candidates, frames=frames, unseen=unseen, base=base, seed=seed, mode=mode, watch=watch
    )
    return contest.pack(budget_bytes, aware=aware, watch=watch)


def _part(watch: Watch | None, done: int, total: int) -> Watch | None:
    """Reports of the one after ``done`` of ``total``, as reports of them all."""
    if watch is None:
        return None
    return lambda share, message: watch((done + share) / total, message)


def pack_for(
    student: DetectionModel,
    budget_bytes: int,
    base: DetectionModel,
    mode: str,
    *,
    certain: bool,
    frames: Tensor | None = None,
    seed: int = 0,
) -> Packed:
    """A package for a device that holds ``base``. Where that is not ``certain``, a full one,
    which decodes on top of any model; if none fits, a delta that the device refuses should it
    hold something else."""

    def one(mode: str) -> Packed:
        reference = None if mode == "full" else base
        return pack(student, budget_bytes, base=reference, frames=frames, seed=seed, mode=mode)

    if certain or mode == "full":
        return one(mode)
    try:
        return one("full")
    except BadInput:
        return one("delta")
