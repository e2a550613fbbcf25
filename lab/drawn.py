"""Detections drawn on pictures or a video, beside ``detections.json``."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from endedge.data.coco import Frame, read_image
from endedge.data.errors import BadInput
from endedge.data.frames import stack_frames
from endedge.data.importing.bare import VIDEO_SUFFIXES, frames_of_video
from endedge.data.importing.found import SUFFIXES, PictureIndex
from endedge.distill.model import DetectionModel
from endedge.end.inference import Detections, detect

__all__ = ["Made", "draw", "predict"]

_CHUNK = 16
_FALLBACK_FPS = 25.0
_COLOURS = (
    (230, 25, 75),
    (60, 180, 75),
    (0, 130, 200),
    (245, 130, 48),
    (145, 30, 180),
    (0, 128, 128),
)

Picture = NDArray[np.uint8]


@dataclass
class Made:
    """How much was seen: pictures, boxes on them, and pictures that do not decode."""

    pictures: int = 0
    boxes: int = 0
    broken: int = 0


def predict(
    model: DetectionModel,
    source: Path,
    out: Path,
    *,
    side: int,
    min_score: float,
    device: str,
    say: Callable[[int, int, str], None],
) -> Made:
    """Draw what ``model`` sees in ``source`` into the new folder ``out``.

    Args:
        model: the detector.
        source: a picture, a folder of pictures, or a video (drawn as ``.mp4``).
        out: appears whole: drawn pictures under their own names, and ``detections.json``, a list
            of pictures with ``boxes`` (x, y, width, height in px), ``scores`` and ``classes``.
        side: px of the detector's square input.
        min_score: boxes below it are left out.
        device: PyTorch's.
        say: hears of the progress.

    Raises :class:`BadInput` for a source without a picture that decodes.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    made, listed = Made(), []
    film = source.suffix.lower() in VIDEO_SUFFIXES
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        fresh = Path(scratch) / "drawn"
        fresh.mkdir()
        writer = None
        for names, pictures in _chunks(_pictures(source, film, made)):
            frames = [_frame(i, p) for i, p in enumerate(pictures)]
            batch = stack_frames(frames, side, lambda f: pictures[f.image_id])  # noqa: B023
            seen = detect(model, batch, min_score=min_score, device=device)
            for name, picture, found in zip(names, pictures, seen, strict=True):
                drawn = draw(picture, found, model.names)
                if film:
                    writer = writer or _writer(fresh / f"{source.stem}.mp4", source, drawn)
                    writer.write(drawn[:, :, ::-1].copy())
                else:
                    to = fresh / f"{name}.jpg" if Path(name).suffix == "" else fresh / name
                    to.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(drawn).save(to)
                listed.append(_record(name, found, model.names))
                made.pictures += 1
                made.boxes += len(found.scores)
            say(made.pictures, made.pictures + 1, "pictures seen")
        if writer is not None:
            writer.release()
        if not made.pictures:
            raise BadInput(f"no picture of {source} decodes")
        (fresh / "detections.json").write_text(json.dumps(listed, indent=1), encoding="utf-8")
        if out.is_dir():
            out.rmdir()
        os.replace(fresh, out)
    return made


def draw(picture: Picture, found: Detections, names: dict[int, str]) -> Picture:
    """``picture`` (H, W, 3) with boxes, class names and scores; lines grow with the picture."""
    shown = np.ascontiguousarray(picture)
    if shown is picture:
        shown = picture.copy()
    line = max(1, round(max(picture.shape[:2]) / 400))
    scale = max(0.35, max(picture.shape[:2]) / 1400)
    for (x, y, w, h), score, label in zip(found.boxes, found.scores, found.labels, strict=True):
        colour = _COLOURS[int(label) % len(_COLOURS)]
        left, top = round(float(x)), round(float(y))
        cv2.rectangle(shown, (left, top), (round(float(x + w)), round(float(y + h))), colour, line)
        text = f"{names[int(label)]} {score:.2f}"
        (wide, high), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, line)
        base = max(high + 2, top)
        cv2.rectangle(shown, (left, base - high - 3), (left + wide, base + 1), colour, -1)
        cv2.putText(
            shown, text, (left, base - 2), cv2.FONT_HERSHEY_SIMPLEX, scale, (255,) * 3, line
        )
    return shown


def _pictures(source: Path, film: bool, made: Made) -> Iterator[tuple[str, Picture]]:
    if film:
        if not source.is_file():
            raise BadInput(f"video not found: {source}")
        for second, picture in frames_of_video(source, 0):
            yield f"{second:.3f} s", picture
        return
    if source.is_dir():
        index = PictureIndex(source)
        paths = [(index.name_of(p), p) for p in index.paths]
    elif source.is_file() and source.suffix.lower() in SUFFIXES:
        paths = [(source.name, source)]
    else:
        raise BadInput(f"{source} is no picture, folder of pictures or video")
    if not paths:
        raise BadInput(f"{source} holds no pictures ({', '.join(sorted(SUFFIXES))})")
    for name, path in paths:
        try:
            picture = read_image(path)
        except BadInput:
            made.broken += 1
            continue
        yield name, picture


def _chunks(items: Iterator[tuple[str, Picture]]) -> Iterator[tuple[list[str], list[Picture]]]:
    names: list[str] = []
    pictures: list[Picture] = []
    for name, picture in items:
        names.append(name)
        pictures.append(picture)
        if len(names) == _CHUNK:
            yield names, pictures
            names, pictures = [], []
    if names:
        yield names, pictures


def _frame(number: int, picture: Picture) -> Frame:
    height, width = picture.shape[:2]
    none = np.zeros(0, np.int64)
    return Frame(
        number, Path(), width, height, np.zeros((0, 4), np.float32), none, none.astype(np.bool_)
    )


def _record(name: str, found: Detections, names: dict[int, str]) -> dict[str, Any]:
    return {
        "picture": name,
        "boxes": [[round(float(v), 2) for v in box] for box in found.boxes],
        "scores": [round(float(s), 4) for s in found.scores],
        "classes": [names[int(k)] for k in found.labels],
    }


def _writer(to: Path, source: Path, picture: Picture) -> Any:
    film = cv2.VideoCapture(str(source))
    fps = film.get(cv2.CAP_PROP_FPS)
    film.release()
    size = (picture.shape[1], picture.shape[0])
    code = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(to), code, fps if 0 < fps < 1000 else _FALLBACK_FPS, size)
    if not writer.isOpened():
        raise BadInput(f"OpenCV cannot write {to.name} here; give a folder of pictures instead")
    return writer
