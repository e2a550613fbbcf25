"""Choosing between models for one budget by what their decoded packages predict."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from endedge.data.units import BadInput
from endedge.distill.losses import divergence_nats, heads
from endedge.distill.model import DetectionModel
from endedge.distill.package import Packed, Watch, pack, unpack
from endedge.distill.sensitivity import synthetic_frames

__all__ = ["divergence", "pack_best"]

_BATCH = 8


@torch.no_grad()
def divergence(reference: DetectionModel, model: DetectionModel, frames: Tensor) -> float:
    """How far the predictions of ``model`` are from those of ``reference``, in nats a frame:
    :func:`~endedge.distill.losses.divergence_nats`, mean over ``frames`` (N, 3, S, S) uint8."""
    total = 0.0
    for start in range(0, len(frames), _BATCH):
        images = frames[start : start + _BATCH].float() / 255
        want, got = (heads(m.eval()(images)[1])[0] for m in (reference, model))
        nats = divergence_nats(want["scores"], want["boxes"], got["scores"], got["boxes"])
        total += float(nats.sum())
    return total / len(frames)


def pack_best(
    candidates: Sequence[DetectionModel],
    budget_bytes: int,
    *,
    frames: Tensor | None,
    unseen: Tensor | None = None,
    base: DetectionModel | None = None,
    seed: int = 0,
    mode: str = "auto",
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
            candidates[0], budget_bytes, base=base, frames=frames, seed=seed, mode=mode, watch=watch
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
                model, budget_bytes, base=base, frames=frames, seed=seed, mode=mode, watch=part
            )
        except BadInput as error:
            refused = error
            continue
        decoded = unpack(packed.data, base=base)
        found.append((divergence(candidates[0], decoded, judges), packed))
    if not found:
        raise refused
    return min(found, key=lambda x: x[0])[1]
