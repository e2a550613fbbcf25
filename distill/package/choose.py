"""Choosing between models for one budget by what their decoded packages predict."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from endedge.data.errors import BadInput
from endedge.distill.losses import divergence
from endedge.distill.model import DetectionModel
from endedge.distill.package.format import Packed, Watch, pack, unpack
from endedge.distill.package.sensitivity import synthetic_frames
from endedge.distill.training import Recipe

__all__ = ["pack_best"]


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
    first candidate: say the whole model, and ones pruned and recovered.

    All are packed with ``frames`` (see :func:`pack`); they are compared on ``unseen`` ones, if
    given, for a recovered model is at home on those it was trained on. Candidates that do not
    fit the budget are passed over; :class:`BadInput` if none fits.
    """
    if len(candidates) == 1:
        return pack(
            candidates[0],
            budget_bytes,
            base=base,
            frames=frames,
            seed=seed,
            mode=mode,
            aware=aware,
            watch=watch,
        )
    judges = unseen if unseen is not None else frames
    if judges is None:
        judges = synthetic_frames(seed=seed)
    found: list[tuple[float, Packed]] = []
    refused = BadInput("no candidate models were given")
    for i, model in enumerate(candidates):

        def part(share: float, message: str, done: int = i) -> None:
            if watch is not None:
                watch((done + share) / len(candidates), message)

        try:
            packed = pack(
                model,
                budget_bytes,
                base=base,
                frames=frames,
                seed=seed,
                mode=mode,
                aware=aware,
                watch=part,
            )
        except BadInput as error:
            refused = error
            continue
        decoded = unpack(packed.data, base=base)
        found.append((divergence(candidates[0], decoded, judges), packed))
    if not found:
        raise refused
    return min(found, key=lambda x: x[0])[1]
