"""Choosing between models for one budget by what their decoded packages predict."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from endedge.data.errors import BadInput
from endedge.distill.losses import divergence
from endedge.distill.model import DetectionModel
from endedge.distill.package.packing import Packed, Prepared, Watch, pack, prepare
from endedge.distill.package.sensitivity import synthetic_frames
from endedge.distill.training import Recipe

__all__ = ["PreparedMenu", "pack_best", "pack_for", "prepare_menu"]


@dataclass(frozen=True, eq=False)
class PreparedMenu:
    """Those of ``models`` that were ``prepared`` (by their places) compete, and one is sent.
    ``kin`` (a name a model; empty: all of one) tells which may be compared by what they predict,
    being cut from one: of each name, the model that comes through a budget closest to the first of
    that name, the whole one; ``judges`` (N, 3, S, S) uint8 are the frames on which that is
    measured."""

    models: tuple[DetectionModel, ...]
    prepared: Mapping[int, Prepared]
    judges: Tensor
    kin: tuple[str, ...] = ()
    device: str = "cpu"

    def whole(self, candidate: int) -> DetectionModel:
        """The first model of the kin of ``candidate``."""
        return self.models[self._first(candidate)]

    def _first(self, candidate: int) -> int:
        return self.kin.index(self.kin[candidate]) if self.kin else 0

    def pack(
        self,
        budget_bytes: int,
        *,
        params: int | None = None,
        order: Callable[[Packed], tuple[bool, float]] | None = None,
        aware: Recipe | None = None,
        watch: Watch | None = None,
    ) -> Packed:
        """The winner's package in at most ``budget_bytes`` and ``params``. Candidates that do not
        fit are passed over. Between the best of several kin the first by ``order`` wins: what two
        networks predict differs by more than what one of them lost. Raises :class:`BadInput` if
        none fits."""
        found = self.finalists(budget_bytes, params=params, aware=aware, watch=watch)
        if len(found) == 1:
            return found[0]
        if order is None:
            raise BadInput("packages of several students: nothing says which one to send")
        return min(found, key=order)

    def finalists(
        self,
        budget_bytes: int,
        *,
        params: int | None = None,
        aware: Recipe | None = None,
        watch: Watch | None = None,
    ) -> list[Packed]:
        """The best package of each kin that has one in ``budget_bytes``. Raises
        :class:`BadInput` if none has."""
        found: dict[int, list[tuple[float, Packed]]] = {}
        refused = BadInput("no candidate models were given")
        n = len(self.prepared)
        for done, (i, candidate) in enumerate(self.prepared.items()):
            part = _part(watch, done, n)
            try:
                packed = candidate.pack(budget_bytes, params=params, aware=aware, watch=part)
            except BadInput as error:
                refused = error
                continue
            first, nats = self._first(i), 0.0
            if sum(self._first(j) == first for j in self.prepared) > 1:
                nats = divergence(self.whole(i), packed.decoded, self.judges, self.device)
            found.setdefault(first, []).append((nats, replace(packed, candidate=i)))
        if not found:
            raise refused
        return [min(some, key=lambda x: x[0])[1] for some in found.values()]


def prepare_menu(
    candidates: Sequence[DetectionModel],
    *,
    frames: Tensor | None,
    unseen: Tensor | None = None,
    base: DetectionModel | None = None,
    seed: int = 0,
    mode: str = "auto",
    device: str = "cpu",
    watch: Watch | None = None,
    kin: Sequence[str] = (),
    barred: Collection[int] = (),
) -> PreparedMenu:
    """All ``candidates`` prepared for a :class:`PreparedMenu`; one that is there twice, once.

    Args:
        candidates: Say the whole model, and ones pruned and recovered; of several kin the whole
            ones before their pruned ones.
        frames: To prepare with (see :func:`.packing.prepare`).
        unseen: To compare on, for a recovered model is at home on frames it was trained on;
            None: ``frames``.
        base: What the device holds; a candidate of the same layers and widths may be a delta.
        seed: Of the frames that are made up where none are given.
        mode: ``auto``, ``full`` or ``delta``.
        device: Where networks compute.
        watch: Hears of progress.
        kin: The name of each candidate's; empty: all of one.
        barred: Places of those that do not compete.

    Raises:
        BadInput: as ``prepare`` does.
    """
    judges = unseen if unseen is not None else frames
    prepared = {
        i: prepare(
            model,
            base=base,
            frames=frames,
            seed=seed,
            mode=mode,
            device=device,
            watch=_part(watch, i, len(candidates)),
        )
        for i, model in enumerate(candidates)
        if i not in barred and not any(model is other for other in candidates[:i])
    }
    seen = synthetic_frames(seed=seed) if judges is None else judges
    return PreparedMenu(tuple(candidates), prepared, seen, tuple(kin), device)


def pack_best(
    candidates: Sequence[DetectionModel],
    budget_bytes: int,
    *,
    params: int | None = None,
    frames: Tensor | None,
    unseen: Tensor | None = None,
    base: DetectionModel | None = None,
    seed: int = 0,
    mode: str = "auto",
    device: str = "cpu",
    aware: Recipe | None = None,
    watch: Watch | None = None,
) -> Packed:
    """The package, among those of all ``candidates``, whose decoded model comes closest to the
    first candidate; the arguments are those of :func:`prepare_menu` and :func:`.packing.pack`.
    For several budgets, prepare once. Raises :class:`BadInput` if no candidate fits."""
    prepared = prepare_menu(
        candidates,
        frames=frames,
        unseen=unseen,
        base=base,
        seed=seed,
        mode=mode,
        device=device,
        watch=watch,
    )
    return prepared.pack(budget_bytes, params=params, aware=aware, watch=watch)


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
    device: str = "cpu",
) -> Packed:
    """A package for a device that holds ``base``. Where that is not ``certain``, a full one,
    which decodes on top of any model; if none fits, a delta that the device refuses should it
    hold something else."""

    def one(mode: str) -> Packed:
        reference = None if mode == "full" else base
        return pack(
            student,
            budget_bytes,
            base=reference,
            frames=frames,
            seed=seed,
            mode=mode,
            device=device,
        )

    if certain or mode == "full":
        return one(mode)
    try:
        return one("full")
    except BadInput:
        return one("delta")
