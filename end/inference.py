"""Inference as the device does it: letterboxed frames in, scored boxes out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torchvision  # noqa: F401 (Ultralytics' NMS takes its kernel, 5 times faster, where it is loaded)
from numpy.typing import NDArray
from torch import Tensor
from ultralytics.utils.nms import non_max_suppression

from endedge.data.frames import Batch
from endedge.distill.model import DetectionModel, clone
from endedge.distill.precision import computing

__all__ = ["Detections", "Network", "detect", "detect_square", "suppressed"]

Network = Callable[[Tensor], Tensor]
"""Pictures (n, 3, h, w) float32 in [0, 1] → what the head says of them, (n, 4 + classes, anchors)
or, of heads that suppress doubles themselves, (n, 300, 6)."""

# The settings of COCO evaluation: keep low scores, for mAP integrates over all of them.
_MIN_SCORE, _NMS_IOU, _MAX_DETECTIONS = 0.001, 0.7, 300


@dataclass(frozen=True, eq=False)
class Detections:
    """Detections on one frame, best first: ``boxes`` (n, 4) float64 x, y, width, height in px
    of the frame; ``scores`` (n,) in [0, 1]; ``labels`` (n,) class indices."""

    image_id: int
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]


@torch.inference_mode()
def detect(
    model: DetectionModel,
    frames: Batch,
    *,
    batch_size: int | None = None,
    min_score: float = _MIN_SCORE,
    device: torch.device | str = "cpu",
) -> list[Detections]:
    """Run ``model`` over ``frames`` (letterboxed uint8) and return detections in frame px; in
    fp32, whatever trainings compute in. ``batch_size``: None is 16, for one core is no faster with
    more, and 64 on a GPU.

    Args:
        model: the detector; it is not changed.
        frames: N letterboxed frames.
        batch_size: frames at a time.
        min_score: in [0, 1]; boxes below it are left out.
        device: where it runs.
    """
    batch_size = batch_size or (16 if torch.device(device).type == "cpu" else 64)
    model = clone(model).to(device).eval().fuse(verbose=False)
    model.to(memory_format=torch.channels_last)  # an eighth off the time of a processor
    windows = _by_window(frames, int(model.stride.max()), batch_size)
    with computing("fp32", str(device)):
        return _detected(lambda images: model(images)[0], frames, windows, min_score, device)


@torch.inference_mode()
def detect_square(
    network: Network, frames: Batch, *, min_score: float = _MIN_SCORE
) -> list[Detections]:
    """The same with a network of fixed input, one whole square at a time, as exported models of
    batch 1 take them."""
    side = frames.images.shape[-1]
    windows = (([i], (0, side, 0, side)) for i in range(len(frames)))
    return _detected(network, frames, windows, min_score, "cpu")


def _detected(
    network: Network,
    frames: Batch,
    windows: Iterable[tuple[list[int], tuple[int, int, int, int]]],
    min_score: float,
    device: torch.device | str,
) -> list[Detections]:
    found: dict[int, Detections] = {}
    for at, (top, bottom, left, right) in windows:
        images = frames.images[at, :, top:bottom, left:right].to(device).float() / 255
        kept = suppressed(network(images), min_score)
        fetched = torch.cat(kept).double().cpu()  # one wait for the device, not one a frame
        for i, rows in zip(
            at, map(Tensor.numpy, torch.split(fetched, [len(k) for k in kept])), strict=True
        ):
            corners = rows[:, :4] + (left, top, left, top)
            found[i] = Detections(
                int(frames.image_ids[i]),
                _to_frame(corners, frames, i),
                rows[:, 4],
                rows[:, 5].astype(np.int64),
            )
    return [found[i] for i in range(len(frames))]


def suppressed(raw: Tensor, min_score: float = _MIN_SCORE) -> list[Tensor]:
    """What a network said of each picture of a batch → rows of x1, y1, x2, y2 (px of its input),
    score, class, best first, without the doubles."""
    kept: list[Tensor] = non_max_suppression(
        raw,
        conf_thres=min_score,
        iou_thres=_NMS_IOU,
        max_det=_MAX_DETECTIONS,
        multi_label=True,
        max_time_img=10.0,
    )
    return kept


def _by_window(
    frames: Batch, stride: int, batch_size: int
) -> Iterator[tuple[list[int], tuple[int, int, int, int]]]:
    """Batches of frames whose letterboxed content fits the same window (top, bottom, left,
    right in px): the grey padding beyond the next multiple of ``stride`` is not computed."""
    side = frames.images.shape[-1]
    groups: dict[tuple[int, int, int, int], list[int]] = {}
    for i in range(len(frames)):
        width, height = np.rint(frames.size[i] * frames.scale[i]).astype(int)
        # A strip of less than half a px of the square is one px, as letterboxing drew it.
        w, h = (min(side, math.ceil(max(1, v) / stride) * stride) for v in (width, height))
        top, left = (side - h) // 2, (side - w) // 2
        groups.setdefault((top, top + h, left, left + w), []).append(i)
    for window, members in sorted(groups.items()):
        for start in range(0, len(members), batch_size):
            yield members[start : start + batch_size], window


def _to_frame(corners: NDArray[np.float64], frames: Batch, i: int) -> NDArray[np.float64]:
    """Corners in px of the square → x, y, width, height in px of the frame, clipped to it."""
    corners = (corners - np.tile(frames.offset[i], 2)) / frames.scale[i]
    limit = np.tile(frames.size[i], 2)
    corners = np.clip(corners, 0, limit)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
