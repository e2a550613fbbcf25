"""Frames as bytes: operating points, hostile frames, framing."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from endedge.data.codec import (
    FORMATS,
    FRAME_OVERHEAD_BYTES,
    HEADER_BYTES,
    Codec,
    EncodedFrame,
    RefusedFrame,
    batch_bytes,
    decode,
    decode_batch,
    encode,
    encoded_size,
    frames_within,
    pack_batch,
    unpack_batch,
)
from endedge.data.errors import BadInput
from endedge.data.image_header import read_header


def picture(height: int = 60, width: int = 90, seed: int = 0) -> NDArray[np.uint8]:
    """A smooth picture (so that codecs behave as on photographs) with a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [128 + 90 * np.sin(x / 9 + k) * np.cos(y / (7 + k)) for k in range(3)]
    noisy = np.stack(waves, axis=-1) + rng.normal(0, 4, (height, width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def bomb(name: str, width: int, height: int) -> bytes:
    """A small valid frame whose header claims ``width`` x ``height``."""
    blob = bytearray(encode(picture(32, 32), Codec(name, 50, 32)))
    if name == "jpeg":
        at = blob.index(b"\xff\xc0")
        struct.pack_into(">HH", blob, at + 5, height, width)
    elif name == "webp":
        assert blob[12:16] == b"VP8 "
        struct.pack_into("<HH", blob, 26, width & 0x3FFF, height & 0x3FFF)
    else:
        struct.pack_into(">II", blob, blob.index(b"ispe") + 8, width, height)
    return bytes(blob)


# Operating points


@pytest.mark.parametrize("name", FORMATS)
def test_round_trip_is_close_and_better_quality_costs_more(name: str) -> None:
    image = picture(120, 200)
    errors, sizes = [], []
    for quality in (10, 50, 90):
        blob = encode(image, Codec(name, quality, 320))
        out = decode(blob)
        assert out.shape == image.shape
        assert out.dtype == np.uint8
        errors.append(float(np.abs(out.astype(float) - image).mean()))
        sizes.append(len(blob))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 5
    assert sizes[0] < sizes[1] < sizes[2]


@pytest.mark.parametrize("name", FORMATS)
def test_encoding_is_deterministic_and_downscales_only(name: str) -> None:
    image = picture(60, 90)
    codec = Codec(name, 40, 45)
    assert encode(image, codec) == encode(image, codec)
    assert read_header(encode(image, codec)) == (name, 45, 30)
    assert read_header(encode(image, Codec(name, 40, 500))) == (name, 90, 60)


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(16, 1024))
def test_encoded_size_keeps_the_aspect_and_the_limit(width: int, height: int, side: int) -> None:
    out = encoded_size(width, height, side)
    assert max(out) == min(side, max(width, height))
    scale = max(out) / max(width, height)
    for after, before in zip(out, (width, height), strict=True):
        assert after >= 1
        assert abs(after - before * scale) <= 0.5 + 1e-9 or after == 1


@pytest.mark.parametrize("name", FORMATS)
@given(quality=st.integers(1, 100), side=st.integers(16, 8192))
def test_codec_text_round_trips(name: str, quality: int, side: int) -> None:
    codec = Codec(name, quality, side)
    assert Codec.parse(str(codec)) == codec


@pytest.mark.parametrize(
    "text", ["", "webp", "webp-30-320", "webp-q30", "gif-q30-320", "webp-q0-320", "webp-q30-9"]
)
def test_codec_refuses_bad_text(text: str) -> None:
    with pytest.raises(BadInput):
        Codec.parse(text)


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)],
)
def test_encode_refuses_what_is_not_a_frame(image: NDArray[np.uint8]) -> None:
    with pytest.raises(BadInput):
        encode(image, Codec())


# Hostile frames


@pytest.mark.parametrize(
    ("name", "width", "height"),
    [("jpeg", 40000, 40000), ("webp", 16383, 16383), ("avif", 40000, 40000)],
)
def test_pixel_bomb_is_refused_from_the_header(name: str, width: int, height: int) -> None:
    blob = bomb(name, width, height)
    assert read_header(blob) == (name, width, height)
    tracemalloc.start()
    with pytest.raises(BadInput, match="pixels are decoded"):
        decode(blob)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("name", FORMATS)
def test_header_that_lies_about_the_size_does_not_decode(name: str) -> None:
    try:
        out = decode(bomb(name, 48, 48))
    except BadInput:
        return
    assert out.shape == (48, 48, 3)  # JPEG fills what is missing; never another size


def test_avif_larger_inside_than_its_header_is_refused() -> None:
    blob = bytearray(encode(picture(300, 400), Codec("avif", 50, 400)))
    struct.pack_into(">II", blob, blob.index(b"ispe") + 8, 64, 64)
    with pytest.raises(BadInput, match="its stream 400 x 300"):
        decode(bytes(blob))


def test_jpeg_of_endless_scans_is_refused() -> None:
    blob = encode(picture(), Codec("jpeg", 50, 90))
    with pytest.raises(BadInput, match="scans"):
        decode(blob[:-2] + b"\xff\xda\x00\x03\x00" * 65)


@pytest.mark.parametrize("name", FORMATS)
@given(st.integers(1, 700), st.integers(1, 700))
@settings(deadline=None, max_examples=15)
def test_header_gives_the_encoded_size(name: str, width: int, height: int) -> None:
    blob = encode(np.zeros((height, width, 3), np.uint8), Codec(name, 30, 1024))
    assert read_header(blob) == (name, width, height)
    assert decode(blob).shape == (height, width, 3)


@pytest.mark.parametrize("name", FORMATS)
def test_every_truncation_is_refused(name: str) -> None:
    blob = encode(picture(), Codec(name, 50, 90))
    for length in range(0, len(blob) - 2, 7):
        with pytest.raises(BadInput):
            decode(blob[:length])


def test_empty_and_foreign_blobs_are_refused() -> None:
    with pytest.raises(BadInput, match="0 bytes"):
        decode(b"")
    png, gif = io.BytesIO(), io.BytesIO()
    Image.fromarray(picture()).save(png, "PNG")
    Image.fromarray(picture()).save(gif, "GIF")
    for blob in (b"hello", b"\0" * 100, png.getvalue(), gif.getvalue(), b"%!PS-Adobe-3.0 EPSF\n"):
        with pytest.raises(BadInput, match="not a JPEG, WebP or AVIF"):
            decode(blob)


@pytest.mark.parametrize("name", ["webp", "avif"])
def test_animations_are_refused(name: str) -> None:
    out = io.BytesIO()
    first, second = (Image.fromarray(picture(seed=k)) for k in (0, 1))
    first.save(out, name.upper(), save_all=True, append_images=[second])
    with pytest.raises(BadInput, match="stills"):
        decode(out.getvalue())


def test_wrong_size_is_refused() -> None:
    blob = encode(picture(60, 90), Codec("jpeg", 50, 90))
    assert decode(blob, size=(90, 60)).shape == (60, 90, 3)
    with pytest.raises(BadInput, match="expected 60 x 90"):
        decode(blob, size=(60, 90))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_jpeg_colour_modes_become_rgb(mode: str) -> None:
    out = io.BytesIO()
    Image.fromarray(picture()).convert(mode).save(out, "JPEG")
    assert decode(out.getvalue()).shape == (60, 90, 3)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(FORMATS), st.data())
def test_damaged_frames_decode_or_are_refused(name: str, data: st.DataObject) -> None:
    blob = bytearray(encode(picture(24, 32), Codec(name, 30, 32)))
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    try:
        out = decode(bytes(blob), max_pixels=2**16)
    except BadInput as error:
        refusal = str(error)
        event("refused")
    else:
        refusal = ""
        assert out.size <= 3 * 2**16
    assert "\n" not in refusal


# Framing

blobs = st.lists(st.binary(min_size=1, max_size=40), max_size=12)


@given(blobs, st.randoms(use_true_random=False))
def test_batch_round_trips_with_exact_bytes(blobs: list[bytes], rng: object) -> None:
    frames = [EncodedFrame(i * 7 - 3, blob) for i, blob in enumerate(blobs)]
    data = pack_batch(frames)
    assert len(data) == batch_bytes([len(b) for b in blobs])
    assert list(unpack_batch(data)) == frames
    assert list(unpack_batch(io.BytesIO(data))) == frames


@given(st.lists(st.integers(1, 500), max_size=20), st.integers(-10, 6000))
@example([], 16)
def test_frames_within_equals_trying_every_prefix(sizes: list[int], budget: int) -> None:
    fitting = [n for n in range(len(sizes) + 1) if batch_bytes(sizes[:n]) <= budget]
    assert frames_within(sizes, budget) == max(fitting, default=0)


def test_one_damaged_payload_costs_one_frame() -> None:
    frames = [EncodedFrame(i, bytes([i]) * 10) for i in range(5)]
    data = bytearray(pack_batch(frames))
    data[HEADER_BYTES + 5 * FRAME_OVERHEAD_BYTES + 25] ^= 1  # inside the third payload
    out = list(unpack_batch(bytes(data)))
    assert out[2] == RefusedFrame(2, "damaged: checksum differs")
    assert [f for f in out if isinstance(f, EncodedFrame)] == frames[:2] + frames[3:]


def test_truncated_batch_keeps_the_whole_frames() -> None:
    frames = [EncodedFrame(i, bytes([i]) * 10) for i in range(4)]
    out = list(unpack_batch(pack_batch(frames)[:-15]))
    assert out[:2] == frames[:2]
    assert [r.reason for r in out[2:] if isinstance(r, RefusedFrame)] == [
        "truncated: 5 of 10 bytes",
        "truncated: 0 of 10 bytes",
    ]


@given(blobs, st.data())
def test_any_damage_to_header_or_index_is_noticed(blobs: list[bytes], data: st.DataObject) -> None:
    packed = bytearray(pack_batch(EncodedFrame(i, b) for i, b in enumerate(blobs)))
    at = data.draw(st.integers(0, HEADER_BYTES + FRAME_OVERHEAD_BYTES * len(blobs) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BadInput):
        list(unpack_batch(bytes(packed)))


@given(st.binary(max_size=200))
@example(b"EEUP\x01\x00\x00\x00\xff\xff\xff\xff\x00\x00\x00\x00")
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(BadInput):
        list(unpack_batch(data))


def forged(entries: list[tuple[int, int, int]], payload: bytes) -> bytes:
    """A batch whose index says anything at all, with a right checksum."""
    index = b"".join(struct.pack("<qII", *entry) for entry in entries)
    head = struct.pack("<4sHHI", b"EEUP", 1, 0, len(entries))
    return head + struct.pack("<I", zlib.crc32(head + index)) + index + payload


def test_forged_lengths_are_refused_without_allocating() -> None:
    good = b"good"
    data = forged(
        [(1, 2**32 - 1, 0), (2, 4, zlib.crc32(good))], b"x" * 50
    )  # announces 4 GiB, sends 50 bytes
    tracemalloc.start()
    out = list(unpack_batch(data))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert all(isinstance(item, RefusedFrame) for item in out)
    assert len(out) == 2
    assert peak < 2**20


def test_oversized_empty_repeated_and_trailing_are_refused_one_by_one() -> None:
    good, big = b"good", b"b" * 100
    entries = [(1, 4, zlib.crc32(good)), (2, 100, zlib.crc32(big)), (3, 0, 0)]
    entries += [(1, 4, zlib.crc32(good)), (4, 4, zlib.crc32(good))]
    data = forged(entries, good + big + good + good + b"tail")
    out = list(unpack_batch(data, max_frame_bytes=50))
    assert out == [
        EncodedFrame(1, good),
        RefusedFrame(2, "100 bytes; at most 50 a frame"),
        RefusedFrame(3, "empty frame (0 bytes)"),
        RefusedFrame(1, "image id is twice in the batch"),
        EncodedFrame(4, good),
        RefusedFrame(None, "bytes after the last frame"),
    ]


@pytest.mark.parametrize("blob", [b"", b"x" * (2**24 + 1)])
def test_pack_refuses_frames_no_edge_would_take(blob: bytes) -> None:
    with pytest.raises(BadInput):
        pack_batch([EncodedFrame(0, blob)])


def test_pack_refuses_repeated_ids() -> None:
    with pytest.raises(BadInput, match="twice"):
        pack_batch([EncodedFrame(0, b"a"), EncodedFrame(0, b"b")])


def test_a_batch_of_good_and_hostile_frames_goes_on() -> None:
    good = encode(picture(60, 90), Codec("webp", 50, 90))
    frames = [
        EncodedFrame(0, good),
        EncodedFrame(1, good[: len(good) // 2]),
        EncodedFrame(2, b"not an image"),
        EncodedFrame(3, bomb("jpeg", 40000, 40000)),
        EncodedFrame(4, encode(picture(90, 60), Codec("webp", 50, 90))),
        EncodedFrame(5, good),
        EncodedFrame(6, good),
    ]
    sizes = dict.fromkeys(range(6), (90, 60))
    out = list(decode_batch(pack_batch(frames), sizes=sizes))
    taken = [item[0] for item in out if not isinstance(item, RefusedFrame)]
    refused = {item.image_id: item.reason for item in out if isinstance(item, RefusedFrame)}
    assert taken == [0, 5]
    assert sorted(refused) == [1, 2, 3, 4, 6]  # type: ignore[type-var]
    assert "expected 90 x 60" in refused[4]
    assert refused[6] == "unknown image id"
