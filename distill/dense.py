"""Ultralytics' detection loss for accelerators: the same numbers, and nothing that waits.

Ultralytics picks out the anchors inside a box and those that were assigned. How many there are
only the device knows, so the program waits for it, some twenty times a step. Here every anchor is
computed against every box, and what does not count is masked out: more arithmetic, which an
accelerator has, and no wait. On a processor the picking is faster and stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F
from ultralytics.utils.metrics import bbox_iou
from ultralytics.utils.ops import xywh2xyxy, xyxy2xywh
from ultralytics.utils.tal import TaskAlignedAssigner, bbox2dist

from endedge.distill.feed import Targets, padded
from endedge.distill.model import DetectionModel
from endedge.distill.predictions import Predictions

__all__ = ["DenseLoss", "anchors_of", "keep_anchors"]

Shapes: TypeAlias = tuple[tuple[int, int], ...]


_HEADS = ("one2many", "one2one")  # of an end-to-end detector, and of its criterion


class DenseLoss:
    """The criterion of ``model``, of both its heads where it has two."""

    def __init__(self, model: DetectionModel) -> None:
        own = model.init_criterion()
        self._names: tuple[str, ...] = tuple(n for n in _HEADS if hasattr(own, n))
        self._gains = (float(own.o2m), float(own.o2o)) if self._names else (1.0,)
        self._parts = [_Head(getattr(own, n)) for n in self._names] or [_Head(own)]

    def __call__(self, predictions: Predictions, targets: Targets, *, together: bool) -> Tensor:
        """The loss of each of n pictures, (n,): as if each were alone, or ``together``: so that
        their mean is that of the batch."""
        boxes = targets.padded
        if boxes is None:
            boxes = padded(targets.rows.cpu(), len(targets.images)).to(targets.images.device)
        heads = [predictions[name] for name in self._names] or [predictions]
        total = torch.zeros(len(boxes), device=boxes.device)
        for head, gain, part in zip(heads, self._gains, self._parts, strict=True):
            losses, scores = part(head, boxes)
            if together:
                losses = losses * len(boxes) / scores.sum().clamp(min=1)
            else:
                losses = losses / scores.clamp(min=1)
            total = total + gain * losses
        return total


class _Head:
    """The criterion of one head: ``criterion`` is Ultralytics' own, whose gains, strides and
    assignment it takes."""

    def __init__(self, criterion: Any) -> None:
        self._own, assigner = criterion, criterion.assigner
        self._strides = [float(s) for s in criterion.stride.tolist()]
        self._assigner = _DenseAssigner(
            topk=assigner.topk,
            num_classes=assigner.num_classes,
            alpha=assigner.alpha,
            beta=assigner.beta,
            stride=assigner.stride,
            eps=assigner.eps,
            topk2=assigner.topk2,
        )
        self._gains = tuple(float(getattr(criterion.hyp, n)) for n in ("box", "cls", "dfl"))
        self._grids: dict[Shapes, tuple[Tensor, Tensor]] = {}

    def __call__(self, head: Predictions, truth: Tensor) -> tuple[Tensor, Tensor]:
        """For each of n pictures its loss before it is divided, and the sum of the scores that
        were assigned, by which it is (at least 1): (n,) and (n,).

        ``head`` are raw predictions (see :mod:`endedge.distill.losses`); ``truth`` (n, m, 5) the
        boxes of :class:`~endedge.distill.feed.Targets`."""
        own = self._own
        distances = head["boxes"].permute(0, 2, 1).contiguous()
        scores = head["scores"].permute(0, 2, 1).contiguous()
        shapes = _shapes(head["feats"])
        if shapes not in self._grids:
            self._grids[shapes] = anchors_of(shapes, self._strides, scores)
        points, strides = self._grids[shapes]
        height, width = (n * self._strides[0] for n in shapes[0])
        labels, x, y, w, h = torch.split(truth, 1, 2)
        boxes = xywh2xyxy(torch.cat([x * width, y * height, w * width, h * height], 2))
        real = (boxes.sum(2, keepdim=True) > 0).to(boxes.dtype)
        predicted = own.bbox_decode(points, distances)
        _, wanted, assigned, inside, _ = self._assigner(
            scores.detach().sigmoid(),
            (predicted.detach() * strides).type(boxes.dtype),
            points * strides,
            labels,
            boxes,
            real,
        )
        terms = own.bce(scores, assigned.to(scores.dtype))
        if own.class_weights is not None:
            terms = terms * own.class_weights
        box_gain, score_gain, spread_gain = self._gains
        total = score_gain * terms.sum((1, 2))
        weight = assigned.sum(-1)
        chosen = inside[..., None]
        unit = F.pad(points.new_ones(2), (2, 0))  # 0, 0, 1, 1: fits itself, with a gradient of 0
        wanted = torch.where(chosen, wanted / strides, unit)
        fit = bbox_iou(torch.where(chosen, predicted, unit), wanted, xywh=False, CIoU=True)
        total = total + box_gain * ((1 - fit.squeeze(-1)) * weight).sum(1)
        spread = self._spread(distances, points, wanted, strides, chosen, (height, width))
        total = total + spread_gain * (spread * weight).sum(1)
        return total, assigned.sum((1, 2))

    def _spread(
        self,
        distances: Tensor,
        points: Tensor,
        wanted: Tensor,
        strides: Tensor,
        chosen: Tensor,
        size: tuple[float, float],
    ) -> Tensor:
        """The distribution focal loss of every anchor, (n, a); of heads that tell plain distances
        their error, as a share of the picture."""
        bins = int(self._own.reg_max)
        if bins > 1:
            sides = bbox2dist(points, wanted, bins - 1)
            sides = torch.where(chosen, sides, 0.0).clamp(0, bins - 1 - 0.01)
            left = sides.long()
            share = left + 1 - sides
            each = distances.view(*distances.shape[:2], 4, bins).log_softmax(-1)
            low = each.gather(-1, left[..., None]).squeeze(-1)
            high = each.gather(-1, left[..., None] + 1).squeeze(-1)
            return -(low * share + high * (1 - share)).mean(-1)
        height, width = size
        sides = torch.where(chosen, bbox2dist(points, wanted), 0.0) * strides
        ours = torch.where(chosen, distances, 0.0) * strides
        error = F.l1_loss(ours, sides, reduction="none")
        return (error[..., 0::2] / width + error[..., 1::2] / height).sum(-1) / 4


class _DenseAssigner(TaskAlignedAssigner):  # type: ignore[misc]
    """Ultralytics' assigner with every anchor against every box."""

    def get_box_metrics(
        self,
        pd_scores: Tensor,
        pd_bboxes: Tensor,
        gt_labels: Tensor,
        gt_bboxes: Tensor,
        mask_gt: Tensor,
        **extra: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """How well each of a anchors fits each of m boxes, and their overlap: (n, m, a) each."""
        mask = mask_gt.bool()
        overlaps = bbox_iou(gt_bboxes[:, :, None], pd_bboxes[:, None], xywh=False, CIoU=True)
        overlaps = torch.where(mask, overlaps.squeeze(-1).clamp(0), 0.0)
        at = gt_labels.long().clamp(0).expand(-1, -1, mask.shape[2])
        scores = pd_scores.permute(0, 2, 1).gather(1, at)
        align = scores.pow(self.alpha) * overlaps.pow(self.beta)
        return torch.where(mask, align, 0.0), overlaps

    def select_candidates_in_gts(
        self, xy_centers: Tensor, gt_bboxes: Tensor, mask_gt: Tensor, eps: float = 1e-9
    ) -> Tensor:
        """Which anchors lie in which box, (n, m, a); small boxes count as one stride wide."""
        middle, size = xyxy2xywh(gt_bboxes).split((2, 2), -1)
        small = (size < self.stride_val) & mask_gt.bool()
        size = size.masked_fill(small, float(self.stride_val))
        corners = xywh2xyxy(torch.cat([middle, size], -1)).unsqueeze(2)
        low, high = corners.chunk(2, 3)
        return torch.cat([xy_centers - low, high - xy_centers], 3).amin(3) > eps


def anchors_of(shapes: Shapes, strides: Sequence[float], like: Tensor) -> tuple[Tensor, Tensor]:
    """Centres (a, 2) of the cells of maps of ``shapes`` (rows, columns), in cells, and the stride
    of each in px (a, 1), made where ``like`` lies: Ultralytics' brings them there from outside."""
    points, each = [], []
    for (height, width), stride in zip(shapes, strides, strict=True):
        down = torch.arange(height, dtype=like.dtype, device=like.device) + 0.5
        right = torch.arange(width, dtype=like.dtype, device=like.device) + 0.5
        y, x = torch.meshgrid(down, right, indexing="ij")
        points.append(torch.stack([x, y], -1).view(-1, 2))
        each.append(like.new_full((height * width, 1), stride))
    return torch.cat(points), torch.cat(each)


def keep_anchors(model: DetectionModel) -> None:
    """Let the head of ``model`` make its anchors where it lies, for every shape of a picture."""
    head = model.model[-1]
    strides = [float(s) for s in head.stride.tolist()]

    def before(head: Any, inputs: tuple[Any, ...]) -> None:
        maps = inputs[0]
        if head.shape != maps[0].shape:
            points, each = anchors_of(_shapes(maps), strides, maps[0])
            head.anchors, head.strides = points.T, each.T
            head.shape = maps[0].shape

    head.register_forward_pre_hook(before)


def _shapes(maps: Sequence[Tensor]) -> Shapes:
    return tuple((int(m.shape[2]), int(m.shape[3])) for m in maps)
