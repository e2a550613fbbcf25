"""Raw predictions of a detector in training, and what a loss is made of them."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from endedge.distill.feed import Targets

__all__ = ["Objective", "Predictions", "heads", "scores_and_boxes", "single"]

Predictions: TypeAlias = dict[str, Any]
"""Ultralytics' own: ``boxes``, ``scores``, ``feats`` (see :mod:`endedge.distill.losses`)."""


class Objective(Protocol):
    """Loss of one batch: a scalar tensor to minimise."""

    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor: ...


def heads(raw: Predictions) -> list[Predictions]:
    """The parts of ``raw`` that hold scores and boxes, the one that counts at inference first: one
    for most detectors, one-to-many and one-to-one for end-to-end ones (YOLOv10, YOLO26), which
    Ultralytics, and so the device here, reads through the first and non-maximum suppression."""
    return [raw[name] for name in ("one2many", "one2one") if raw.get(name)] or [raw]


def scores_and_boxes(raw: Predictions) -> tuple[Tensor, ...]:
    """``(scores, boxes)`` of every head of ``raw`` in fp16, in the order of :func:`heads`."""
    return tuple(t.half() for head in heads(raw) for t in (head["scores"], head["boxes"]))


def single(predictions: Any) -> Any:
    """Nested predictions in fp32; what is fp32 already is not copied."""
    if isinstance(predictions, torch.Tensor):
        return predictions.float()
    if isinstance(predictions, dict):
        return {name: single(value) for name, value in predictions.items()}
    return [single(value) for value in predictions]
