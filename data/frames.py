"""Frames as the detectors eat them: square letterboxed uint8 pictures with scaled boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from endedge.data.coco import Frame

__all__ = ["Batch", "join", "letterbox", "stack_frames", "unlabelled"]

_PAD_GREY = 114
_STRIP_PX = 16


@dataclass(frozen=True, eq=False)
class Batch:
    """Pictures of one size with their labels.

    ``images`` (n, 3, s, s) uint8. ``boxes[i]`` (k_i, 4) float32 as centre x, centre y, width,
    height, relative to the square, in [0, 1]; ``labels[i]`` (k_i,) int64. ``scale`` (n,) px of
    the square per px of the frame, ``offset`` (n, 2) px of the square left and above the frame,
    ``size`` (n, 2) width and height of the frame in its own px, ``image_ids`` (n,).
    """

    images: Tensor
    boxes: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]
    scale: NDArray[np.float64]
    offset: NDArray[np.float64]
    size: NDArray[np.int64]
    image_ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Sequence[int]) -> Batch:
        """The pictures at ``indices``, in that order."""
        at = list(indices)
        return Batch(
            self.images[at],
            tuple(self.boxes[i] for i in at),
            tuple(self.labels[i] for i in at),
            self.scale[at],
            self.offset[at],
            self.size[at],
            self.image_ids[at],
        )

    def relabel(self, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> Batch:
        """The same pictures with other labels (pseudo-labels of a teacher, say)."""
        return Batch(
            self.images,
            tuple(boxes),
            tuple(labels),
            self.scale,
            self.offset,
            self.size,
            self.image_ids,
        )


def join(parts: Sequence[Batch]) -> Batch:
    """The pictures of several batches of one size, one after the other. At least one part."""
    return Batch(
        torch.cat([p.images for p in parts]),
        tuple(b for p in parts for b in p.boxes),
        tuple(n for p in parts for n in p.labels),
        np.concatenate([p.scale for p in parts]),
        np.concatenate([p.offset for p in parts]),
        np.concatenate([p.size for p in parts]),
        np.concatenate([p.image_ids for p in parts]),
    )


def unlabelled(images: Tensor) -> Batch:
    """Pictures (n, 3, s, s) uint8 of which nothing else is known, as a batch."""
    n, side = len(images), images.shape[-1]
    return Batch(
        images,
        (torch.zeros(0, 4),) * n,
        (torch.zeros(0, dtype=torch.int64),) * n,
        np.ones(n),
        np.zeros((n, 2)),
        np.full((n, 2), side),
        np.arange(n),
    )


def letterbox(image: NDArray[np.uint8], side: int) -> tuple[NDArray[np.uint8], float, int, int]:
    """Scale the long side to ``side`` px and pad with grey to a square.

    Returns the (side, side, 3) picture, the scale, and the padding left and top in px.
    """
    height, width = image.shape[:2]
    scale = side / max(height, width)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    if (w, h) != (width, height):
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        image = cv2.resize(image, (w, h), interpolation=how).astype(np.uint8)
    left, top = (side - w) // 2, (side - h) // 2
    square = np.full((side, side, 3), _PAD_GREY, np.uint8)
    square[top : top + h, left : left + w] = image
    return square, scale, left, top


def stack_frames(
    frames: Sequence[Frame], side: int, look: Callable[[Frame], NDArray[np.uint8]]
) -> Batch:
    """Decode frames once and keep them: ``look(frame)`` gives the (H, W, 3) uint8 picture as
    it is seen (through the device's camera, or after the uplink's codec). Its size may differ
    from the annotated one (a codec scales down); boxes follow. Crowd boxes are left out."""
    n = len(frames)
    images = np.empty((n, 3, side, side), np.uint8)
    scales, offsets = np.empty(n), np.empty((n, 2))
    sizes, ids = np.empty((n, 2), np.int64), np.empty(n, np.int64)
    all_boxes, all_labels = [], []
    for i, frame in enumerate(frames):
        picture = look(frame)
        square, _, left, top = letterbox(picture, side)
        images[i] = square.transpose(2, 0, 1)
        height, width = picture.shape[:2]
        scale = side / max(height, width)
        # A strip a few px wide was rounded by the codec: its length tells how it was resized.
        scale = scale * width / frame.width if width >= _STRIP_PX else scale * height / frame.height
        x, y, w, h = frame.boxes[~frame.crowd].T.astype(np.float64) * scale
        boxes = np.stack([(x + w / 2 + left), (y + h / 2 + top), w, h], 1) / side
        all_boxes.append(torch.from_numpy(boxes.astype(np.float32)))
        all_labels.append(torch.from_numpy(frame.labels[~frame.crowd]))
        scales[i], offsets[i], sizes[i] = scale, (left, top), (frame.width, frame.height)
        ids[i] = frame.image_id
    return Batch(
        torch.from_numpy(images), tuple(all_boxes), tuple(all_labels), scales, offsets, sizes, ids
    )
