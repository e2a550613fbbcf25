"""The loss of labels: how far a detector is from the boxes that were drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from endedge.distill.dense import DenseLoss
from endedge.distill.feed import Targets, on_host
from endedge.distill.model import DetectionModel
from endedge.distill.predictions import Objective, Predictions

__all__ = ["labels", "labels_by_frame"]


def labels(model: DetectionModel) -> Objective:
    """Ultralytics' detection loss (task-aligned assignment, CIoU, DFL) per picture."""
    if not _on_host(model):
        dense = DenseLoss(model)
        return lambda predictions, targets: dense(predictions, targets, together=True).mean()
    criterion = model.init_criterion()

    def loss(predictions: Predictions, targets: Targets) -> Tensor:
        batch = {
            "batch_idx": targets.rows[:, 0],
            "cls": targets.rows[:, 1],
            "bboxes": targets.rows[:, 2:],
        }
        total: Tensor = criterion(predictions, batch)[0].sum()
        return total / len(targets.images)

    return loss


def labels_by_frame(model: DetectionModel) -> Callable[[Predictions, Targets], Tensor]:
    """:func:`labels` of each of n pictures as if it were alone, (n,), by one call for all."""
    if not _on_host(model):
        dense = DenseLoss(model)
        return lambda predictions, targets: dense(predictions, targets, together=False)
    criterion = model.init_criterion()
    parts = [_ByFrame(c) for c in (getattr(criterion, n, None) for n in _HEADS) if c is not None]
    parts = parts or [_ByFrame(criterion)]

    def loss(predictions: Predictions, targets: Targets) -> Tensor:
        rows = targets.rows
        criterion(predictions, {"batch_idx": rows[:, 0], "cls": rows[:, 1], "bboxes": rows[:, 2:]})
        if len(parts) == 1:
            return parts[0].losses
        many, one = float(criterion.o2m), float(criterion.o2o)
        return parts[0].losses * many + parts[1].losses * one

    return loss


_HEADS = ("one2many", "one2one")  # of the criterion of an end-to-end detector


class _ByFrame:
    """Listens to one of Ultralytics' criteria: the same three terms, apart by picture.

    The criterion divides sums over a batch by the batch's target scores. What costs (decoding,
    assigning boxes to anchors, the scores of all classes) is done once for all pictures; then
    its parts are given the pictures one by one, each with its own divisor.
    """

    def __init__(self, criterion: Any) -> None:
        self._gains = criterion.hyp
        self._score_loss, self._box_loss = criterion.bce, criterion.bbox_loss
        criterion.bce, criterion.bbox_loss = self._scores, self._boxes
        self.losses = torch.zeros(0)

    def _scores(self, scores: Tensor, wanted: Tensor) -> Tensor:
        each: Tensor = self._score_loss(scores, wanted)
        self._divisors = wanted.sum((1, 2)).clamp(min=1)
        self.losses = self._gains.cls * each.sum((1, 2)) / self._divisors
        return each

    def _boxes(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        distances, boxes, anchors, wanted, weights, _, inside, *rest = given
        for i, divisor in enumerate(self._divisors):
            at = slice(i, i + 1)
            box, spread = self._box_loss(
                *(distances[at], boxes[at], anchors, wanted[at], weights[at], divisor),
                *(inside[at], *rest),
            )
            self.losses[i] += self._gains.box * box + self._gains.dfl * spread
        return torch.zeros(()), torch.zeros(())


def _on_host(model: DetectionModel) -> bool:
    return on_host(next(model.parameters()).device)
