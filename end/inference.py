"""Inference as the device does it: letterboxed frames in, scored boxes out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
import torchvision  # noqa: F401 (Ultralytics' NMS takes its kernel, 5 times faster, where it is loaded)
from numpy.typing import NDArray
from torch import Tensor
from ultralytics.utils.nms import non_max_suppression

from endedge.data.frames import Batch
from endedge.distill.dense import keep_anchors
from endedge.distill.feed import on_host
from endedge.distill.memory import halving
from endedge.distill.model import DetectionModel, clone
from endedge.distill.precision import computing
from endedge.end.suppression import suppressed_there

__all__ = ["Detections", "Network", "computed_order", "detect", "detect_square", "suppressed"]

Network = Callable[[Tensor], Tensor]
"""Pictures (n, 3, h, w) float32 in [0, 1] → what the head says of them, (n, 4 + classes, anchors)
or, of heads that suppress doubles themselves, (n, 300, 6)."""

Window: TypeAlias = tuple[list[int], tuple[int, int, int, int]]
"""Frames by number and the part of their square that is computed: top, bottom, left, right."""

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
    here = on_host(device)
    batch_size = batch_size or (16 if here else 64)
    model = clone(model).to(device).eval().fuse(verbose=False)
    model.to(memory_format=torch.channels_last)  # an eighth off the time of a processor
    stride = _stride(model)
    with computing("fp32", str(device)):
        if here:
            windows = _by_window(frames, stride, batch_size)
            return _detected(lambda images: model(images)[0], frames, windows, min_score)
        keep_anchors(model)
        return halving(
            lambda size: _detected_there(
                lambda images: model(images)[0],
                frames,
                list(_by_window(frames, stride, size)),
                min_score,
                device,
            ),
            batch_size,
        )


def computed_order(model: DetectionModel, frames: Batch) -> list[int]:
    """The numbers of ``frames`` in the order in which :func:`detect` shows them to ``model``."""
    windows = _by_window(frames, _stride(model), max(1, len(frames)))
    return [i for at, _ in windows for i in at]


@torch.inference_mode()
def detect_square(
    network: Network, frames: Batch, *, min_score: float = _MIN_SCORE
) -> list[Detections]:
    """The same with a network of fixed input, one whole square at a time, as exported models of
    batch 1 take them."""
    side = frames.images.shape[-1]
    windows = (([i], (0, side, 0, side)) for i in range(len(frames)))
    return _detected(network, frames, windows, min_score)


def _detected(
    network: Network, frames: Batch, windows: Iterable[Window], min_score: float
) -> list[Detections]:
    detections: dict[int, Detections] = {}
    for at, (top, bottom, left, right) in windows:
        images = frames.images[at, :, top:bottom, left:right].float() / 255
        for i, rows in zip(at, suppressed(network(images), min_score), strict=True):
            detections[i] = _told(rows, frames, i, left, top)
    return [detections[i] for i in range(len(frames))]


def _detected_there(
    network: Network,
    frames: Batch,
    windows: Sequence[Window],
    min_score: float,
    device: torch.device | str,
) -> list[Detections]:
    """The same on an accelerator: the frames go there before the first batch, and the program
    waits once a batch, for its detections."""
    detections: dict[int, Detections] = {}
    pictures = frames.images.to(device)
    order = torch.tensor([i for at, _ in windows for i in at], dtype=torch.int64).to(device)
    begin = 0
    for at, (top, bottom, left, right) in windows:
        here = order[begin : begin + len(at)]
        begin += len(at)
        images = pictures.index_select(0, here)[:, :, top:bottom, left:right].float() / 255
        raw = network(images)
        for i, rows in zip(at, _kept_there(raw, min_score), strict=True):
            detections[i] = _told(rows, frames, i, left, top)
    return [detections[i] for i in range(len(frames))]


def _kept_there(raw: Tensor, min_score: float) -> list[Tensor]:
    """:func:`suppressed` of what lies on an accelerator, fetched at once."""
    if raw.shape[-1] == 6:  # heads that suppress doubles themselves
        return suppressed(raw.cpu(), min_score)
    rows, counts, sure = suppressed_there(
        raw, min_score=min_score, most_iou=_NMS_IOU, most=_MAX_DETECTIONS
    )
    told = torch.stack([counts, sure.to(counts.dtype)], 1).to(rows.dtype)
    fetched = torch.cat([rows.flatten(1), told], 1).cpu()
    kept = []
    for i, (flat, (count, certain)) in enumerate(
        zip(fetched[:, :-2], fetched[:, -2:].tolist(), strict=True)
    ):
        if certain:
            kept.append(flat.view(-1, 6)[: int(count)])
        else:
            kept += suppressed(raw[i : i + 1].cpu(), min_score)
    return kept


def _told(rows: Tensor, frames: Batch, i: int, left: int, top: int) -> Detections:
    """``rows`` of a window that begins at ``left``, ``top`` px, in px of frame ``i``."""
    values = rows.double().numpy()
    corners = values[:, :4] + (left, top, left, top)
    return Detections(
        int(frames.image_ids[i]),
        _to_frame(corners, frames, i),
        values[:, 4],
        values[:, 5].astype(np.int64),
    )


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


def _stride(model: DetectionModel) -> int:
    return int(model.stride.max())


def _by_window(frames: Batch, stride: int, batch_size: int) -> Iterator[Window]:
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
