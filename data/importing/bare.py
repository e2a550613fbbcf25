"""Pictures without labels: a folder of them, or videos of which a frame now and then is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from endedge.data.errors import BadInput
from endedge.data.importing.found import Found, Picture, PictureIndex, upright_size

__all__ = ["VIDEO_SUFFIXES", "frames_of_video", "read_pictures", "read_videos"]

VIDEO_SUFFIXES = frozenset((".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"))
_QUALITY = 95  # of the JPEG that a kept frame becomes: the video lost more
_FALLBACK_FPS = 25.0  # of files that do not say


def read_pictures(index: PictureIndex) -> Found:
    """Every picture of the folder, unlabelled."""
    found = Found("pictures without labels")
    for path in index.paths:
        if (sizes := upright_size(path)) is None:
            found.left_out["pictures that do not decode"] += 1
        else:
            found.pictures.append(Picture(path, index.name_of(path), sizes[0]))
    return found


def read_videos(
    videos: Sequence[Path], scratch: Path, every_s: float, say: Callable[[int, int, str], None]
) -> Found:
    """A frame every ``every_s`` seconds of each video, written as JPEG into ``scratch``."""
    found = Found("video")
    for number, video in enumerate(videos):
        folder = scratch / f"{video.stem}-{number:03d}" if len(videos) > 1 else scratch / video.stem
        folder.mkdir(parents=True, exist_ok=True)
        start = number * 1e6  # videos lie far apart in time
        for time_s, frame in frames_of_video(video, every_s):
            path = folder / f"{round(time_s * 1000):09d}ms.jpg"
            Image.fromarray(frame).save(path, quality=_QUALITY)
            size = (frame.shape[1], frame.shape[0])
            name = path.relative_to(scratch).as_posix()
            found.pictures.append(Picture(path, name, size, time_s=start + time_s))
            say(number, len(videos), f"{len(found.pictures)} frames of {video.name}")
    return found


def frames_of_video(video: Path, every_s: float) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Second and (H, W, 3) uint8 RGB of a frame every ``every_s`` seconds (0: of every frame).

    Raises :class:`BadInput` for a file that OpenCV cannot decode a single frame of.
    """
    with _quiet():
        source = cv2.VideoCapture(str(video))
    try:
        fps = source.get(cv2.CAP_PROP_FPS)
        fps = fps if 0 < fps < 1000 else _FALLBACK_FPS
        number, due = 0, 0.0
        while source.grab():
            if number / fps >= due - 1e-9:
                good, frame = source.retrieve()
                if good:
                    yield number / fps, np.asarray(frame[:, :, ::-1], np.uint8).copy()
                due += max(every_s, 1 / fps)
            number += 1
        if number == 0:
            raise BadInput(f"video does not decode: {video}; is it complete, and its codec common?")
    finally:
        source.release()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """OpenCV prints to stderr what a BadInput says better."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
