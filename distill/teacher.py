"""A teacher that is asked once about every picture."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from endedge.distill.dense import keep_anchors
from endedge.distill.feed import Feed, Targets, on_host
from endedge.distill.memory import halving
from endedge.distill.model import DetectionModel, clone, fold_norms
from endedge.distill.precision import autocast
from endedge.distill.predictions import Predictions, scores_and_boxes

__all__ = ["TeacherCache"]

_AT_ONCE = 32  # views, on an accelerator
_MOST_BYTES = 2 * 2**30  # that are kept there: 1,700 views at 320 px, 430 at 640 px


class TeacherCache:
    """The teacher's outputs for (frame, flipped), computed once and kept:
    :func:`~endedge.distill.predictions.scores_and_boxes`, or whatever ``keep`` takes from the raw
    predictions.

    A training on few frames meets each of them many times; the teacher is the larger model,
    so asking it once a view is most of what distillation costs. On an accelerator all views of a
    training are asked before its first step, in large batches; where their outputs would take
    more than 2 GiB the teacher is asked at every step instead and nothing is kept.
    """

    def __init__(
        self,
        teacher: DetectionModel,
        device: str = "cpu",
        keep: Callable[[Predictions], tuple[Tensor, ...]] = scores_and_boxes,
    ) -> None:
        self._keep, self._device = keep, device
        self._teacher = clone(teacher).to(device).eval()
        fold_norms(self._teacher)
        self._teacher.to(memory_format=torch.channels_last)
        if not on_host(device):
            keep_anchors(self._teacher)
        self._kept: dict[tuple[int, bool], list[Tensor]] = {}
        self._feed: Feed | None = None
        self._table: tuple[Tensor, ...] | None = None  # of the feed: a row a view

    @torch.no_grad()
    def __call__(self, targets: Targets) -> tuple[Tensor, ...]:
        if targets.feed is not None and targets.view is not None:
            return self._resident(targets.feed, targets.view, targets.images)
        keys = list(zip(targets.at, targets.flips, strict=True))
        new = [i for i, key in enumerate(keys) if key not in self._kept]
        if new:
            outputs = self._asked(targets.images[new])
            for row, i in enumerate(new):
                self._kept[keys[i]] = [output[row] for output in outputs]
        views = [self._kept[key] for key in keys]
        return tuple(torch.stack(output).float() for output in zip(*views, strict=True))

    def _asked(self, images: Tensor) -> tuple[Tensor, ...]:
        with autocast(self._device):
            return self._keep(self._teacher(images)[1])

    def _resident(self, feed: Feed, view: Tensor, images: Tensor) -> tuple[Tensor, ...]:
        if self._feed is not feed:
            self._feed, self._table = feed, None
            self._table = halving(lambda at_once: self._all_of(feed, at_once), _AT_ONCE)
        if self._table is None:
            return tuple(output.float() for output in self._asked(images))
        return tuple(output.index_select(0, view).float() for output in self._table)

    def _all_of(self, feed: Feed, at_once: int) -> tuple[Tensor, ...] | None:
        """What the teacher says of all views of ``feed``; None where that is too much to keep."""
        n = len(feed.views)
        table: tuple[Tensor, ...] = ()
        for begin in range(0, n, at_once):
            end = min(n, begin + at_once)
            outputs = self._asked(feed.pictures(begin, end))
            if not table:
                each_bytes = sum(o[0].numel() * o.element_size() for o in outputs)
                if n * each_bytes > _MOST_BYTES:
                    return None
                table = tuple(o.new_empty(n, *o.shape[1:]) for o in outputs)
            for rows, output in zip(table, outputs, strict=True):
                rows[begin:end] = output
        return table
