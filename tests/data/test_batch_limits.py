"""What a small upload may cost: pictures, memory, time."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from endedge.data import codec
from endedge.data.coco import Frame
from endedge.data.codec import (
    Codec,
    DecodeLimits,
    EncodedFrame,
    RefusedFrame,
    decode_batch,
    encode,
    pack_batch,
)
from endedge.data.errors import BadInput
from endedge.edge.edge import EdgeEnd


def test_what_is_not_known_or_too_large_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes can stand for 48 MiB of picture: ids and sizes are compared first."""
    out = io.BytesIO()
    Image.new("RGB", (4096, 4096)).save(out, "WEBP", lossless=True, quality=0, method=0)
    bomb = out.getvalue()
    assert len(bomb) < 100
    small = encode(np.zeros((30, 40, 3), np.uint8), Codec("webp", 50, 40))
    batch = pack_batch([EncodedFrame(k, bomb) for k in range(40)] + [EncodedFrame(99, small)])
    decoded: list[int] = []
    real = codec.decode

    def counted(blob: bytes, **how: Any) -> Any:
        decoded.append(len(blob))
        return real(blob, **how)

    monkeypatch.setattr(codec, "decode", counted)
    known = dict.fromkeys(range(20), (640, 480)) | {99: (30, 40)}  # upright or not
    items = list(decode_batch(batch, largest=known))
    reasons = [item.reason for item in items if isinstance(item, RefusedFrame)]
    assert decoded == [len(small)]
    assert sum("unknown image id" in r for r in reasons) == 20
    assert sum("was captured with 640 x 480" in r for r in reasons) == 20


def test_a_batch_has_so_many_pixels_and_seconds() -> None:
    frame = encode(np.zeros((30, 40, 3), np.uint8), Codec("jpeg", 50, 40))
    batch = pack_batch([EncodedFrame(k, frame) for k in range(5)])
    items = list(decode_batch(batch, limits=DecodeLimits(pixels=3 * 1200 + 5)))
    assert [isinstance(item, RefusedFrame) for item in items] == [False] * 3 + [True] * 2
    with pytest.raises(BadInput, match="took more than 1e-09 s"):
        list(decode_batch(batch, limits=DecodeLimits(seconds=1e-9)))


def test_memory_follows_the_frames_that_are_kept_not_their_headers() -> None:
    """Sixty frames of 12 MiB each become squares of 12 kB, one at a time."""
    frame = encode(np.zeros((2048, 2048, 3), np.uint8), Codec("webp", 1, 2048))
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
    annotated = {k: Frame(k, Path("x"), 2048, 2048, *nothing) for k in range(60)}
    batch = pack_batch([EncodedFrame(k, frame) for k in annotated])

    class Plan:
        side = 64

    tracemalloc.start()
    received = EdgeEnd(Plan(), 0).receive(batch, annotated)  # type: ignore[arg-type]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(received.frames) == len(received.pictures) == 60
    assert peak < 5 * 2048 * 2048 * 3  # a picture and its copies, not sixty
