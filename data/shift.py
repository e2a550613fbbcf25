"""Domain shift: the camera of the device differs from the one the training set came from.

Pretrained detectors have nothing to learn from the set they were trained on, so a field
camera is simulated: a documented, seeded change of the same frames at severities 1–5. The
kinds and the idea of five severities follow D. Hendrycks, T. Dietterich, *Benchmarking
Neural Network Robustness to Common Corruptions and Perturbations*, ICLR 2019 (constants are
our own). Noise is drawn from the seed and the image id, so a frame always looks the same.

All kinds but one change tones and sharpness and leave every object where it was. ``viewpoint``
moves the content: what is learned about tones alone does not help there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from endedge.data.coco import Dataset, Frame
from endedge.data.errors import BadInput

__all__ = ["KINDS", "Kind", "Shift"]

Kind = Literal["none", "infrared", "night", "fog", "motion", "lowres", "viewpoint"]
KINDS: tuple[str, ...] = get_args(Kind)

# One column a severity, 1 to 5.
_NOISE_SIGMA = (2.0, 4.0, 6.0, 10.0, 16.0)  # grey levels of 255
_CONTRAST = (0.9, 0.85, 0.8, 0.65, 0.5)
_GAMMA = (1.3, 1.6, 2.0, 2.4, 2.8)
_GAIN = (0.7, 0.5, 0.35, 0.28, 0.22)
_NIGHT_BLUR_PX = (0.5, 0.8, 1.2, 1.5, 1.8)  # Gaussian sigma
_NIGHT_NOISE_SIGMA = (2.0, 4.0, 8.0, 12.0, 18.0)
_FOG_DENSITY = (0.3, 0.45, 0.6, 0.7, 0.8)  # share of the picture that is veil
_MOTION_PX = (3, 5, 9, 13, 17)  # length of the smear, at a long side of 416 px
_LOWRES = (0.6, 0.45, 0.33, 0.25, 0.18)  # scale before enlarging again
_DISTANCE = (0.85, 0.7, 0.55, 0.45, 0.35)  # size of things, against the frame as it was taken
_TURN_DEG = (4.0, 8.0, 12.0, 20.0, 30.0)  # at most, to either side
_TILT = (0.06, 0.12, 0.18, 0.24, 0.30)  # share by which the far edge is narrower
_GREY = 114  # of what the moved camera sees and the frame does not hold
_LEAST_SEEN = 0.4  # share of a box that is still in the picture, or it is none


@dataclass(frozen=True)
class Shift:
    """A camera: ``kind`` of :data:`KINDS`, ``severity`` 1–5, ``seed`` of its noise."""

    kind: Kind = "none"
    severity: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadInput(f"unknown shift {self.kind!r}; one of {', '.join(KINDS)}")
        if not 1 <= self.severity <= 5:
            raise BadInput(f"shift severity {self.severity} is not 1 to 5")

    def apply(self, image: NDArray[np.uint8], image_id: int) -> NDArray[np.uint8]:
        """The frame as this camera sees it, (H, W, 3) uint8 RGB in and out. Boxes stay, unless the
        camera :attr:`moves`: then they are those of :meth:`annotated`."""
        if self.kind == "none":
            return image
        if self.moves:
            return self._moved(image, image_id)
        rng = np.random.default_rng([self.seed, image_id, KINDS.index(self.kind), self.severity])
        level = self.severity - 1
        pixels = image.astype(np.float32)
        seen: NDArray[np.float32] = _APPLY[self.kind](pixels, level, rng)
        return np.clip(np.rint(seen), 0, 255).astype(np.uint8)

    @property
    def moves(self) -> bool:
        """Whether objects are elsewhere in the picture than in the frame as it was taken."""
        return self.kind == "viewpoint"

    def annotated(self, dataset: Dataset) -> Dataset:
        """``dataset`` with its boxes where this camera sees them: upright around the moved corners,
        cut at the border of the picture; without those of which too little is left."""
        if not self.moves:
            return dataset
        return replace(dataset, frames=tuple(self._annotated(f) for f in dataset.frames))

    def _annotated(self, frame: Frame) -> Frame:
        if not len(frame.boxes):
            return frame
        x, y, w, h = frame.boxes.T.astype(np.float64)
        corners = np.stack([x, y, x + w, y, x + w, y + h, x, y + h], 1).reshape(-1, 1, 2)
        place = self._place(frame.width, frame.height, frame.image_id)
        seen = cv2.perspectiveTransform(corners, place).reshape(-1, 4, 2)
        low, high = seen.min(1), seen.max(1)
        border = np.array([frame.width, frame.height], np.float64)
        inside_low, inside_high = np.clip(low, 0, border), np.clip(high, 0, border)
        whole, left = (high - low).prod(1), (inside_high - inside_low).prod(1)
        kept = left >= _LEAST_SEEN * np.maximum(whole, 1e-9)
        boxes = np.concatenate([inside_low, inside_high - inside_low], 1).astype(np.float32)
        return replace(frame, boxes=boxes[kept], labels=frame.labels[kept], crowd=frame.crowd[kept])

    def _moved(self, image: NDArray[np.uint8], image_id: int) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        blur = 0.4 * (1 / _DISTANCE[self.severity - 1] - 1)  # px: smaller without aliases
        smooth = cv2.GaussianBlur(image, (0, 0), max(blur, 0.1))
        seen = cv2.warpPerspective(
            smooth,
            self._place(width, height, image_id),
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderValue=(_GREY, _GREY, _GREY),
        )
        return np.asarray(seen, np.uint8)

    def _place(self, width: int, height: int, image_id: int) -> NDArray[np.float64]:
        """(3, 3) From px of the frame to px of the picture: further away, turned about the middle,
        the upper edge further than the lower one, somewhere in the picture."""
        draw = np.random.default_rng([self.seed, image_id, KINDS.index(self.kind), self.severity])
        level = self.severity - 1
        size = _DISTANCE[level]
        angle = np.deg2rad(_TURN_DEG[level] * draw.uniform(-1, 1))
        free = (1 - size) / 2 * np.array([width, height])
        middle = np.array([width, height]) / 2 + free * draw.uniform(-1, 1, 2)
        half = size / 2 * np.array([width, height])
        far = 1 - _TILT[level]
        corners = np.array([[-far, -1], [far, -1], [1, 1], [-1, 1]]) * half
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        there = (corners @ turn + middle).astype(np.float32)
        here = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        return np.asarray(cv2.getPerspectiveTransform(here, there), np.float64)


def _noise(
    pixels: NDArray[np.float32], sigma: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    return pixels + sigma * rng.standard_normal(pixels.shape, dtype=np.float32)


def _infrared(x: NDArray[np.float32], level: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Inverted grey, lower contrast, sensor noise: all information kept, all cues relearned."""
    grey = 255.0 - x @ np.array([0.299, 0.587, 0.114], np.float32)
    grey = 127.5 + _CONTRAST[level] * (grey - 127.5)
    return np.repeat(_noise(grey, _NOISE_SIGMA[level], rng)[..., None], 3, axis=2)


def _night(x: NDArray[np.float32], level: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Gamma, dimming, blue cast, soft focus, noise."""
    dark = 255.0 * (x / 255.0) ** _GAMMA[level] * _GAIN[level]
    dark = dark * np.array([0.75, 0.85, 1.15], np.float32)
    dark = cv2.GaussianBlur(dark, (0, 0), _NIGHT_BLUR_PX[level]).astype(np.float32)
    return _noise(dark, _NIGHT_NOISE_SIGMA[level], rng)


def _fog(x: NDArray[np.float32], level: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A bright veil, uneven over the picture and thicker towards the top (further away)."""
    height, width = x.shape[:2]
    cloud = cv2.resize(
        rng.random((5, 5), dtype=np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    depth = np.linspace(1.15, 0.85, height, dtype=np.float32)[:, None]
    veil = np.clip(_FOG_DENSITY[level] * depth * (0.8 + 0.4 * cloud), 0, 0.95)[..., None]
    return np.asarray(x * (1 - veil) + 225.0 * veil, np.float32)


def _motion(x: NDArray[np.float32], level: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A straight smear in a random direction, scaled with the picture."""
    length = max(3, round(_MOTION_PX[level] * max(x.shape[:2]) / 416))
    kernel = np.zeros((length, length), np.float32)
    angle = rng.uniform(0, np.pi)
    reach = (length - 1) / 2
    for t in np.linspace(-reach, reach, 4 * length):
        kernel[round(reach + t * np.sin(angle)), round(reach + t * np.cos(angle))] = 1
    smeared = cv2.filter2D(x, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)
    return np.asarray(smeared, np.float32)


def _lowres(x: NDArray[np.float32], level: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A coarse sensor: scaled down by area, enlarged again."""
    height, width = x.shape[:2]
    small = (max(1, round(width * _LOWRES[level])), max(1, round(height * _LOWRES[level])))
    coarse = cv2.resize(x, small, interpolation=cv2.INTER_AREA)
    enlarged = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(enlarged, np.float32)


_APPLY = {
    "infrared": _infrared,
    "night": _night,
    "fog": _fog,
    "motion": _motion,
    "lowres": _lowres,
}
