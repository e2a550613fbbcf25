"""What the readers of frames must stand (see fuzz.py).

``coco``: COCO JSON, as text and by its fields; what is read must have boxes inside their images
and labels of its classes. ``batch``: uploads of JPEG, WebP and AVIF frames, three quarters of the
mutants under right checksums, so that they reach the decoders. ``picture``: files of eight
formats, as stored sets have them.
"""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from endedge.data.coco import load_coco
from endedge.data.codec import (
    Codec,
    EncodedFrame,
    RefusedFrame,
    decode_batch,
    encode,
    pack_batch,
    unpack_batch,
)
from endedge.data.pictures import inspect_picture, read_image

_ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 0.5, -0.0, 1e308, 1e-300, 2**31, 2**53, 2**64, 10**40),
    *(float("nan"), float("inf"), float("-inf"), "", "0", "1", "a.png", "../a.png", "/a", "\0"),
    *("\ud800", "a" * 5000, [], {}, [1], [[]], [0, 0, 1, 1], {"id": 1}, [None] * 4, ["1"] * 4),
)
_DOCUMENT = {
    "info": {"description": "fuzz"},
    "images": [
        {"id": 7, "file_name": "a.png", "width": 40, "height": 30, "license": 1},
        {"id": 8, "file_name": "b.png", "width": 40, "height": 30},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 5, "bbox": [1, 2.5, 10, 20], "area": 200.0},
        {"id": 2, "image_id": 8, "category_id": 3, "bbox": [0, 0, 40, 30], "iscrowd": 1},
    ],
    "categories": [{"id": 3, "name": "ant"}, {"id": 5, "name": "cat", "supercategory": "pet"}],
}

Try = Callable[[np.random.Generator], str]


def mutated(blob: bytes, rng: np.random.Generator) -> bytes:
    """``blob`` with some bytes changed, lost, repeated, or cut off; sometimes noise."""
    kind = rng.integers(6)
    if kind == 0:
        return rng.bytes(int(rng.integers(0, 400)))
    if kind == 1:
        return blob[: int(rng.integers(len(blob)))]
    body = bytearray(blob)
    for _ in range(int(rng.integers(1, 8))):
        at = int(rng.integers(max(1, len(body) if rng.random() < 0.5 else min(len(body), 200))))
        if kind == 2:
            del body[at : at + int(rng.integers(1, 9))]
        elif kind == 3:
            body[at:at] = body[at : at + int(rng.integers(1, 40))]
        elif body:
            body[at % len(body)] = int(rng.integers(256))
    return bytes(body)


def coco(folder: Path) -> Try:
    """COCO files over two pictures."""
    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 30)).save(folder / name)
    path, text = folder / "set.json", json.dumps(_DOCUMENT)

    def attempt(rng: np.random.Generator) -> str:
        if rng.random() < 0.4:
            encoding = ("utf-8", "utf-8-sig", "utf-16", "utf-32")[rng.integers(4)]
            path.write_bytes(mutated(text.encode(encoding), rng))
        else:
            document = json.loads(text)
            for _ in range(int(rng.integers(1, 4))):
                _disturb(document, rng)
            path.write_text(json.dumps(document), encoding="utf-8")
        data = load_coco(path, folder)
        for frame in data.frames:
            x, y, w, h = frame.boxes.T
            assert frame.boxes.shape == (len(frame.labels), 4)
            assert np.isfinite(frame.boxes).all()
            assert ((frame.labels >= 0) & (frame.labels < len(data.names))).all()
            assert ((w > 0) & (h > 0) & (x >= -1) & (y >= -1)).all()
            assert ((x + w <= frame.width + 1.01) & (y + h <= frame.height + 1.01)).all()
        assert len({f.image_id for f in data.frames}) == len(data.frames)
        assert len(set(data.names)) == len(data.names)
        return "read"

    return attempt


def _disturb(document: Any, rng: np.random.Generator) -> None:
    """Walk down to some place and change, drop, double or move what is there."""
    at = document
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            return
        key = keys[rng.integers(len(keys))]
        if isinstance(at[key], dict | list) and rng.random() < 0.9:
            at = at[key]
            continue
        kind = rng.integers(4)
        if kind == 0:
            del at[key]
        elif kind == 1 and isinstance(at, list):
            at.append(copy.deepcopy(at[key]))
        elif kind == 2 and type(at[key]) is int:
            at[key] += int(rng.integers(-2, 3))
        else:
            at[key] = copy.deepcopy(_ODD[rng.integers(len(_ODD))])
        return


def batch(folder: Path) -> Try:
    """Uploads of three frames in each codec."""
    frames = [
        EncodedFrame(i, encode(_picture(i, 48, 32), Codec(kind, 60, 48)))
        for i, kind in enumerate(("jpeg", "webp", "avif"))
    ]
    good = pack_batch(frames)

    def attempt(rng: np.random.Generator) -> str:
        if rng.random() < 0.25:
            data = mutated(good, rng)
        else:
            data = pack_batch(
                EncodedFrame(f.image_id, mutated(f.blob, rng) or b"\0") for f in frames
            )
        stream = io.BytesIO(data) if rng.random() < 0.5 else data
        pixels = refused = 0
        for item in decode_batch(stream, max_pixels=2**20):
            if isinstance(item, RefusedFrame):
                assert "\n" not in item.reason
                refused += 1
            else:
                assert item[1].dtype == np.uint8
                assert item[1].ndim == 3
                assert item[1].shape[2] == 3
                pixels += item[1].size
        assert pixels <= 3 * 2**20 * 3
        list(unpack_batch(data, max_frame_bytes=100))
        return "whole" if not refused else "in part" if pixels else "no frame of it"

    return attempt


def picture(folder: Path) -> Try:
    """Files of eight formats."""
    scene = _picture(0, 48, 32)
    images = {kind: Image.fromarray(scene) for kind in ("JPEG", "PNG", "WEBP", "AVIF", "BMP")}
    images |= {"TIFF": Image.fromarray(scene[..., 0].astype(np.uint16) * 16)}
    images |= {"GIF": Image.fromarray(scene), "PPM": Image.fromarray(scene)}
    exif = Image.Exif()
    exif[0x112] = 3
    blobs = []
    for kind, image in images.items():
        out = io.BytesIO()
        image.save(out, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}))
        blobs.append(out.getvalue())
    blobs.append(bytes(cv2.imencode(".png", scene.astype(np.uint16) * 16)[1]))
    path = folder / "a.img"

    def attempt(rng: np.random.Generator) -> str:
        path.write_bytes(mutated(blobs[rng.integers(len(blobs))], rng))
        found = inspect_picture(path, (48, 32))
        assert "\n" not in found.fault
        seen = read_image(path, (48, 32))
        assert seen.dtype == np.uint8
        assert seen.ndim == 3
        return "read, though held for faulty" if found.fault else "read"

    return attempt


def _picture(seed: int, width: int, height: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height)), np.uint8)


READERS: dict[str, Callable[[Path], Try]] = {"coco": coco, "batch": batch, "picture": picture}
