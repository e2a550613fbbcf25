"""Non-maximum suppression for accelerators: what Ultralytics' gives, without a wait a frame.

Whether a box stays depends on those with higher scores that stay. So the boxes of a batch are
compared pair by pair, and "a box stays that none of those that stay before it covers" is repeated
until nothing changes: each round settles at least one link more of every chain, and chains are
short. The best candidates of each frame take part; where they do not decide the frame (few boxes
stay and more candidates follow, or a chain is long) it says so, and the frame is done again on the
host.
"""

from __future__ import annotations

import torch
from torch import Tensor
from ultralytics.utils.ops import xywh2xyxy

__all__ = ["suppressed_there"]

_CANDIDATES = 2048  # of a frame
_ROUNDS = 32
_FRAMES = 8  # compared at a time: half a gigabyte
_APART = 7680  # px between the boxes of two classes


def suppressed_there(
    raw: Tensor, *, min_score: float, most_iou: float, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """From predictions (n, 4 + classes, anchors): rows (n, ``most``, 6) of x1, y1, x2, y2, score,
    class, best first; how many of them there are, (n,); and whether that is surely what
    Ultralytics would have kept, (n,) bool. Nothing waits for the device."""
    parts = [_some(part, min_score, most_iou, most) for part in torch.split(raw, _FRAMES)]
    rows, counts, sure = (torch.cat(x) for x in zip(*parts, strict=True))
    return rows, counts, sure


def _some(raw: Tensor, min_score: float, most_iou: float, most: int) -> tuple[Tensor, ...]:
    n, classes = raw.shape[0], raw.shape[1] - 4
    scores = raw[:, 4:].transpose(1, 2).reshape(n, -1)
    top, at = scores.topk(min(_CANDIDATES, scores.shape[1]), sorted=False)
    at, order = at.sort(1)  # equal scores in the order in which Ultralytics lists them
    top, order = top.gather(1, order).sort(dim=1, descending=True, stable=True)
    at = at.gather(1, order)
    label = at % classes
    anchor = (at // classes)[..., None].expand(-1, -1, 4)
    boxes = xywh2xyxy(raw[:, :4].transpose(1, 2)).gather(1, anchor)
    live = top > min_score
    covers = _covers(boxes + (label * _APART)[..., None], most_iou)
    stays, before = live, live
    for _ in range(_ROUNDS):
        before, stays = stays, live & ~(covers & stays[:, :, None]).any(1)
    settled = (before == stays).all(1)
    rank = stays.cumsum(1)
    last = rank[:, -1]
    place = torch.where(stays & (rank <= most), rank - 1, most)
    rows = torch.cat([boxes, top[..., None], label[..., None].to(top.dtype)], 2)
    out = rows.new_zeros(n, most + 1, 6)
    out.scatter_(1, place[..., None].expand(-1, -1, 6), rows)
    all_seen = (scores > min_score).sum(1) <= top.shape[1]
    return out[:, :most], last.clamp(max=most), settled & (all_seen | (last >= most))


def _covers(boxes: Tensor, most_iou: float) -> Tensor:
    """Which of k boxes (n, k, 4), best first, covers which one after it: (n, k, k) bool."""
    x1, y1, x2, y2 = boxes.unbind(2)
    area = (x2 - x1) * (y2 - y1)
    wide = torch.minimum(x2[:, :, None], x2[:, None]) - torch.maximum(x1[:, :, None], x1[:, None])
    tall = torch.minimum(y2[:, :, None], y2[:, None]) - torch.maximum(y1[:, :, None], y1[:, None])
    both = wide.clamp_(min=0) * tall.clamp_(min=0)
    return (both / (area[:, :, None] + area[:, None] - both) > most_iou).triu_(1)
