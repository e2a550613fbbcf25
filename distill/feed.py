"""Frames in the order in which a network meets them, as batches.

On a processor a batch is gathered when its turn comes. On an accelerator that would make every
step wait for a copy. So all that a training needs goes there before the first step (pictures,
boxes, which frame is where in which batch, which is mirrored), and a batch is put together there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from endedge.data.frames import Batch

__all__ = ["Feed", "Order", "Targets", "gather", "on_host", "padded"]

Order = tuple[list[int], list[bool]]
"""The frames of one batch by number, and which of them are mirrored."""

_PAD_TO = 8  # boxes: trainings of few shapes leave memory in fewer pieces


@dataclass(frozen=True, eq=False)
class Targets:
    """One training batch: ``images`` (n, 3, s, s) in [0, 1]; ``rows`` (k, 6) as picture, class,
    centre x, centre y, width, height (relative); which frame each picture is, and if flipped.

    Batches on an accelerator also have the same boxes ``padded`` (n, m, 5) to one number a picture,
    the same in all batches of a feed
    (class, centre x, centre y, width, height; zeros where there is none), and the number of each
    picture in :attr:`Feed.views` of the ``feed`` that they are of: ``view`` (n,)."""

    images: Tensor
    rows: Tensor
    at: tuple[int, ...]
    flips: tuple[bool, ...]
    padded: Tensor | None = None
    feed: Feed | None = None
    view: Tensor | None = None


class Feed:
    """The batches ``orders`` of ``frames`` on ``device``, one after the other."""

    def __init__(self, frames: Batch, orders: Sequence[Order], device: str) -> None:
        self._frames, self._orders, self.device = frames, orders, device
        if on_host(device):
            return
        met = [view for order in orders for view in zip(*order, strict=True)]
        #: different pictures, in the order in which they come up: frame, mirrored
        self.views: list[tuple[int, bool]] = list(dict.fromkeys(met))
        number = {view: i for i, view in enumerate(self.views)}
        rows = [_rows(frames, *order) for order in orders]
        most = max((len(frames.boxes[i]) for at, _ in orders for i in at), default=0)
        boxes = [padded(r, len(at), most) for r, (at, _) in zip(rows, orders, strict=True)]
        order = [
            (i, f, number[i, f]) for at, flips in orders for i, f in zip(at, flips, strict=True)
        ]
        self._images = frames.images.to(device)
        self._order = torch.tensor(order, dtype=torch.int64).reshape(-1, 3).T.contiguous()
        self._order = self._order.to(device)
        self._views = torch.tensor(self.views, dtype=torch.int64).reshape(-1, 2).T.contiguous()
        self._views = self._views.to(device)
        self._rows = _Pieces(rows, device)
        self._boxes = _Pieces(boxes, device)

    def __len__(self) -> int:
        return len(self._orders)

    def __iter__(self) -> Iterator[Targets]:
        begin = 0
        for step, (at, flips) in enumerate(self._orders):
            if on_host(self.device):
                yield gather(self._frames, at, flips, self.device)
                continue
            here = self._order[:, begin : begin + len(at)]
            begin += len(at)
            yield Targets(
                self._pictures(here[0], here[1]),
                self._rows[step],
                tuple(at),
                tuple(flips),
                self._boxes[step],
                self,
                here[2],
            )

    def pictures(self, begin: int, end: int) -> Tensor:
        """Those of :attr:`views` from ``begin`` to ``end``: (end - begin, 3, s, s) in [0, 1]."""
        at, flips = self._views[:, begin:end]
        return self._pictures(at, flips)

    def _pictures(self, at: Tensor, flips: Tensor) -> Tensor:
        return _mirrored(self._images.index_select(0, at), flips > 0)


class _Pieces:
    """Tensors of a kind that were brought to ``device`` as one."""

    def __init__(self, parts: Sequence[Tensor], device: str) -> None:
        self._shapes = [part.shape for part in parts]
        self._begins = [0]
        for part in parts:
            self._begins.append(self._begins[-1] + part.numel())
        flat = [part.flatten() for part in parts]
        self._all = torch.cat(flat).to(device) if flat else torch.zeros(0, device=device)

    def __getitem__(self, i: int) -> Tensor:
        return self._all[self._begins[i] : self._begins[i + 1]].view(self._shapes[i])


def on_host(device: str | torch.device) -> bool:
    """Whether networks on ``device`` compute on the processor that this program runs on."""
    return torch.device(device).type == "cpu"


def gather(frames: Batch, at: list[int], flips: list[bool], device: str) -> Targets:
    """The frames at ``at``, mirrored where ``flips`` says so, as one batch on ``device``."""
    images = frames.images[at].to(device)
    rows = _rows(frames, at, flips).to(device)
    return Targets(
        _mirrored(images, torch.tensor(flips, device=device)), rows, tuple(at), tuple(flips)
    )


def padded(rows: Tensor, n: int, least: int = 1) -> Tensor:
    """``rows`` (k, 6) of :class:`Targets` with the boxes of each of its ``n`` pictures in a row
    of their own, zeros behind them: (n, m, 5), m a multiple of 8 and at least ``least``."""
    picture = rows[:, 0].long()
    counts = torch.bincount(picture, minlength=n)
    most = max(1, least, int(counts.max()) if n else 1)
    out = torch.zeros(n, -(-most // _PAD_TO) * _PAD_TO, 5)
    order = picture.argsort(stable=True)
    place = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[picture[order]]
    out[picture[order], place] = rows[order, 1:]
    return out


def _mirrored(images: Tensor, flips: Tensor) -> Tensor:
    """Pictures (n, 3, s, s) uint8 in [0, 1], those mirrored that ``flips`` (n,) says."""
    images = images.float() / 255
    images = torch.where(flips[:, None, None, None], images.flip(3), images)
    return images.contiguous(memory_format=torch.channels_last)


def _rows(frames: Batch, at: Sequence[int], flips: Sequence[bool]) -> Tensor:
    rows = []
    for i, (frame, flipped) in enumerate(zip(at, flips, strict=True)):
        boxes = frames.boxes[frame].clone()
        if flipped and len(boxes):
            boxes[:, 0] = 1 - boxes[:, 0]
        index = torch.full((len(boxes), 1), float(i))
        rows.append(torch.cat([index, frames.labels[frame].float()[:, None], boxes], 1))
    return torch.cat(rows)
