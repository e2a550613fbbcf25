"""Choosing between models for one budget by what their decoded packages predict."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from endedge.data.units import BadInput
from endedge.distill.model import DetectionModel
from endedge.distill.package import Packed, Watch, pack, unpack
from endedge.distill.sensitivity import synthetic_frames

__all__ = ["divergence", "pack_best"]

_BATCH = 8


@torch.no_grad()
def divergence(reference: DetectionModel, model: DetectionModel, frames: Tensor) -> float:
    """How far the predictions of ``model`` are from those of ``reference``: nats a frame.

    Kullback-Leibler divergence of the class probabilities, and of the box distributions
    weighted by the best class probability, summed over positions; ``frames`` (N, 3, S, S) uint8.
    """
    total = 0.0
    for start in range(0, len(frames), _BATCH):
        images = frames[start : start + _BATCH].float() / 255
        want, got = (_head(m.eval()(images)[1]) for m in (reference, model))
        p, q = want["scores"], got["scores"]
        probability = p.sigmoid()
        classes = F.binary_cross_entropy_with_logits(q, probability, reduction="none")
        classes -= F.binary_cross_entropy_with_logits(p, probability, reduction="none")
        a, b = (x["boxes"].reshape(len(images), 4, -1, p.shape[2]) for x in (want, got))
        if a.shape[2] == 1:  # plain regression in cells: unit variance
            sides = (a - b).square().sum((1, 2)) / 2
        else:
            log_a, log_b = a.log_softmax(2), b.log_softmax(2)
            sides = (log_a.exp() * (log_a - log_b)).sum((1, 2))
        total += float(classes.clamp(min=0).sum())
        total += float((sides.clamp(min=0) * probability.amax(1)).sum())
    return total / len(frames)


def _head(raw: dict[str, Tensor]) -> dict[str, Tensor]:
    """The predictions that count: of the end-to-end head, if there is one."""
    one2one = raw.get("one2one")
    return one2one if isinstance(one2one, dict) else raw


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
