"""What leaves the device: the batch that fits, and frames without what must not leave.

Redaction works with what the device has: the detections of its own student. What that misses
leaves the device unblurred; :func:`covered` says against truth how much it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from endedge.data.codec import (
    FRAME_OVERHEAD_BYTES,
    HEADER_BYTES,
    Codec,
    EncodedFrame,
    encode,
    pack_batch,
)
from endedge.end.metric import iou

__all__ = ["covered", "encode_batch", "redact"]

Picture = NDArray[np.uint8]
Boxes = NDArray[np.float64]

_MARGIN = 0.1  # of a box's size, added on every side: a box may be tight or a little off
_CELLS = 4  # a blurred box keeps so many grey levels along its long side, whatever its size


def encode_batch(
    pictures: Iterable[tuple[int, Picture]], codec: Codec, upload_bytes: float = math.inf
) -> tuple[bytes, int]:
    """The framed batch of the first ``(image id, picture)`` s that fit into ``upload_bytes``, and
    how many they are. Nothing is encoded beyond the first that does not fit, so a smaller budget
    sends a prefix of a larger one's frames."""
    frames = list(_fitting(pictures, codec, upload_bytes))
    return pack_batch(frames), len(frames)


def _fitting(
    pictures: Iterable[tuple[int, Picture]], codec: Codec, upload_bytes: float
) -> Iterator[EncodedFrame]:
    left = upload_bytes - HEADER_BYTES
    for image_id, picture in pictures:
        blob = encode(picture, codec)
        left -= len(blob) + FRAME_OVERHEAD_BYTES
        if left < 0:
            return
        yield EncodedFrame(image_id, blob)


def redact(picture: Picture, boxes: Boxes) -> Picture:
    """``picture`` (H, W, 3) with each of ``boxes`` (n, 4; x, y, width, height in px) reduced to
    a few patches of its mean colours: there is nothing to sharpen again."""
    out = picture.copy()
    height, width = picture.shape[:2]
    for x, y, w, h in boxes:
        left, right = (
            max(0, math.floor(x - _MARGIN * w)),
            min(width, math.ceil(x + w * (1 + _MARGIN))),
        )
        top, bottom = (
            max(0, math.floor(y - _MARGIN * h)),
            min(height, math.ceil(y + h * (1 + _MARGIN))),
        )
        if left >= right or top >= bottom:
            continue
        size = np.array([right - left, bottom - top])
        cells = np.maximum(1, np.rint(size * min(1.0, _CELLS / size.max()))).astype(int)
        few = cv2.resize(out[top:bottom, left:right], cells.tolist(), interpolation=cv2.INTER_AREA)
        out[top:bottom, left:right] = cv2.resize(few, size.tolist(), interpolation=cv2.INTER_LINEAR)
    return out


def covered(truth: Boxes, blurred: Boxes) -> int:
    """How many of the boxes ``truth`` (n, 4) have at least half of their area inside a single
    one of the boxes ``blurred`` (m, 4)."""
    if not len(truth) or not len(blurred):
        return 0
    inside = iou(truth, blurred, np.ones(len(blurred), bool))  # the share of each that is
    return int((inside.max(1) >= 0.5).sum())
