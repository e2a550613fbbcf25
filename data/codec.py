"""Frames as bytes: operating points of the image codec, and the framing of one upload.

An operating point is a format, a quality and a resolution (:class:`Codec`). A device encodes
its frames, packs them into one *batch* whose length is exactly the uplink's U, and the edge
trains on what it decoded. What arrives is hostile until shown otherwise: sizes are read from
headers before anything is allocated, and one bad frame never costs the batch.

Layout of a batch (little-endian; also in docs/uplink.md)::

    header   16 bytes   magic "EEUP" | version u16 = 1 | reserved u16 = 0 | count u32 | crc32 u32
    index    16 * count image id i64 | length u32 | crc32 of the payload u32
    payloads            the encoded frames, one after the other, in the order of the index

The header's crc32 covers the 12 bytes before it and the whole index, so a damaged length is
found before it is believed, and a damaged payload never shifts the ones after it.
"""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from endedge.data.errors import BadInput
from endedge.data.image_header import read_header

__all__ = [
    "FRAME_OVERHEAD_BYTES",
    "HEADER_BYTES",
    "Codec",
    "DecodeLimits",
    "EncodedFrame",
    "RefusedFrame",
    "batch_bytes",
    "decode",
    "decode_batch",
    "encode",
    "encoded_size",
    "frames_within",
    "pack_batch",
    "unpack_batch",
]

MAX_SIDE = 8192
MAX_PIXELS = 2**24  # 4096 x 4096: 48 MiB decoded
MAX_FRAME_BYTES = 2**24
MAX_FRAMES = 2**16  # bounds the index to 1 MiB

_HEADER = struct.Struct("<4sHHII")
_ENTRY = struct.Struct("<qII")
HEADER_BYTES = _HEADER.size
FRAME_OVERHEAD_BYTES = _ENTRY.size
_MAGIC, _VERSION = b"EEUP", 1

_SAVE_OPTIONS: dict[str, dict[str, object]] = {
    "jpeg": {"optimize": True},  # Huffman tables fitted to the frame: a few % for a few ms
    "webp": {"method": 4},
    "avif": {"speed": 8, "max_threads": 1},
}
FORMATS = tuple(_SAVE_OPTIONS)  # each also has a branch in image_header.py


@dataclass(frozen=True)
class Codec:
    """One operating point: ``format`` jpeg, webp or avif; ``quality`` 1..100 (the encoder's own
    scale: equal numbers are not equal accuracy across formats); ``long_side`` in px, 16..8192,
    the longest side after downscaling (frames are never enlarged). Raises :class:`BadInput`."""

    format: str = "jpeg"
    quality: int = 75
    long_side: int = 320

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise BadInput(f"codec format {self.format!r}; one of {', '.join(FORMATS)}")
        if not 1 <= self.quality <= 100:
            raise BadInput(f"codec quality {self.quality}; 1 to 100")
        if not 16 <= self.long_side <= MAX_SIDE:
            raise BadInput(f"codec long_side {self.long_side} px; 16 to {MAX_SIDE}")

    def __str__(self) -> str:
        return f"{self.format}-q{self.quality}-{self.long_side}"

    @staticmethod
    def parse(text: str) -> Codec:
        """The inverse of ``str``: ``Codec.parse("webp-q30-320")``. Raises :class:`BadInput`."""
        try:
            name, quality, side = text.split("-")
            if not quality.startswith("q"):
                raise ValueError
            return Codec(name, int(quality[1:]), int(side))
        except BadInput:
            raise
        except ValueError:
            raise BadInput(f"cannot read codec {text!r}; write e.g. 'webp-q30-320'") from None


@dataclass(frozen=True)
class DecodeLimits:
    """Limits of one batch: ``pixels`` decoded over all frames, processor ``seconds`` spent on
    decoding. 40 WebP frames of 38 bytes each can decode to 2 GB and take 14 s."""

    pixels: int = 2**32  # 14,000 frames of 640 x 480
    seconds: float = 600.0


@dataclass(frozen=True)
class EncodedFrame:
    """One frame as it crosses the link: ``image_id`` (64-bit signed) and the codec's bytes."""

    image_id: int
    blob: bytes


@dataclass(frozen=True)
class RefusedFrame:
    """A frame that was not taken: ``image_id`` (None when unknown) and one line why."""

    image_id: int | None
    reason: str


# One frame --------------------------------------------------------------------------------


def encoded_size(width: int, height: int, long_side: int) -> tuple[int, int]:
    """Width and height in px after downscaling so that the longest side is ``long_side``."""
    longest = max(width, height)
    if longest <= long_side:
        return width, height
    return (
        max(1, round(width * long_side / longest)),
        max(1, round(height * long_side / longest)),
    )


def encode(image: NDArray[np.uint8], codec: Codec) -> bytes:
    """Encode ``image`` (H, W, 3) uint8 RGB at an operating point, without metadata.

    Raises :class:`BadInput` for another shape or type, or an empty or larger-than-8192 image.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise BadInput(f"frame is {image.shape} {image.dtype}; give (H, W, 3) uint8 RGB")
    height, width = image.shape[:2]
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise BadInput(f"frame is {width} x {height} px; each side 1 to {MAX_SIDE}")
    picture = Image.fromarray(np.ascontiguousarray(image))
    size = encoded_size(width, height, codec.long_side)
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, codec.format.upper(), quality=codec.quality, **_SAVE_OPTIONS[codec.format])
    return out.getvalue()


def decode(
    blob: bytes, *, max_pixels: int = MAX_PIXELS, size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Decode one JPEG, WebP or AVIF still to (H, W, 3) uint8 RGB.

    The size is read from the header first (:func:`read_header`); more than ``max_pixels``, or
    another size than ``size`` (width, height in px) where that is given, is refused before the
    decoder allocates anything. Raises :class:`BadInput` for these and for an empty, truncated,
    animated or non-image blob.
    """
    name, width, height = read_header(blob)
    if width * height > max_pixels:
        raise BadInput(f"{name} of {width} x {height} px; at most {max_pixels} pixels are decoded")
    if size is not None and (width, height) != size:
        raise BadInput(f"{name} of {width} x {height} px; expected {size[0]} x {size[1]}")
    try:
        with Image.open(io.BytesIO(blob), formats=(name.upper(),)) as picture:
            frames = getattr(picture, "n_frames", 1)
            if frames == 1 and picture.size == (width, height):
                return np.array(picture.convert("RGB"), dtype=np.uint8)
    except Exception as error:  # decoders fail in many ways; none of them is ours
        text = str(error).splitlines()
        raise BadInput(f"{name} cannot be decoded: {text[0] if text else 'damaged'}") from None
    if frames != 1:
        raise BadInput(f"{name} with {frames} pictures; send stills")
    raise BadInput(f"{name} header says {width} x {height} px, the decoder another size")


# Many frames ------------------------------------------------------------------------------


def batch_bytes(frame_bytes: Sequence[int]) -> int:
    """Exact length in bytes of the batch of frames whose encoded sizes are ``frame_bytes``."""
    return HEADER_BYTES + sum(frame_bytes) + FRAME_OVERHEAD_BYTES * len(frame_bytes)


def frames_within(frame_bytes: Iterable[int], upload_bytes: float) -> int:
    """How many frames of a nested ordered list fit: the largest n for which the batch of the
    first n has at most ``upload_bytes``. Stops at the first that does not fit (a later smaller
    one is not pulled forward), so a smaller budget always takes a prefix of a larger one's."""
    left = upload_bytes - HEADER_BYTES
    count = 0
    for size in frame_bytes:
        left -= size + FRAME_OVERHEAD_BYTES
        if left < 0:
            break
        count += 1
    return count


def pack_batch(frames: Iterable[EncodedFrame]) -> bytes:
    """One upload: its length is the uplink's bytes. Raises :class:`BadInput` for more than
    65,536 frames, a frame over 16 MiB or empty, or an image id that occurs twice."""
    frames = list(frames)
    if len(frames) > MAX_FRAMES:
        raise BadInput(f"{len(frames)} frames in one batch; at most {MAX_FRAMES}")
    seen: set[int] = set()
    for frame in frames:
        if not 0 < len(frame.blob) <= MAX_FRAME_BYTES:
            raise BadInput(
                f"frame {frame.image_id} has {len(frame.blob)} bytes; 1 to {MAX_FRAME_BYTES}"
            )
        if frame.image_id in seen:
            raise BadInput(f"frame {frame.image_id} is twice in the batch")
        seen.add(frame.image_id)
    index = b"".join(
        _ENTRY.pack(frame.image_id, len(frame.blob), zlib.crc32(frame.blob)) for frame in frames
    )
    head = _HEADER.pack(_MAGIC, _VERSION, 0, len(frames), 0)[:12]
    crc = struct.pack("<I", zlib.crc32(index, zlib.crc32(head)))
    return b"".join([head, crc, index, *(frame.blob for frame in frames)])


def unpack_batch(
    data: bytes | BinaryIO, *, max_frames: int = MAX_FRAMES, max_frame_bytes: int = MAX_FRAME_BYTES
) -> Iterator[EncodedFrame | RefusedFrame]:
    """Yield each frame of a batch in order, or why it was refused; then go on with the next.

    ``data`` is the whole batch or a binary stream. Memory stays below the index
    (16 bytes a frame) plus one frame. Refused one by one: a damaged payload, one cut off by the
    end of the data, an empty one, one of more than ``max_frame_bytes``, a repeated image id,
    and bytes after the last frame (``image_id`` None). Raises :class:`BadInput` at the first
    step when the header or index itself is damaged, since then no length can be believed.
    """
    stream = io.BytesIO(data) if isinstance(data, bytes | bytearray | memoryview) else data
    seen: set[int] = set()
    for image_id, length, crc in _read_index(stream, max_frames):
        if length > max_frame_bytes:
            reason = f"{length} bytes; at most {max_frame_bytes} a frame"
            if not _skip(stream, length):
                reason += ", and truncated"
            yield RefusedFrame(image_id, reason)
            continue
        blob = stream.read(length)
        if len(blob) < length:
            yield RefusedFrame(image_id, f"truncated: {len(blob)} of {length} bytes")
        elif not blob:
            yield RefusedFrame(image_id, "empty frame (0 bytes)")
        elif zlib.crc32(blob) != crc:
            yield RefusedFrame(image_id, "damaged: checksum differs")
        elif image_id in seen:
            yield RefusedFrame(image_id, "image id is twice in the batch")
        else:
            seen.add(image_id)
            yield EncodedFrame(image_id, blob)
    if stream.read(1):
        yield RefusedFrame(None, "bytes after the last frame")


def decode_batch(
    data: bytes | BinaryIO,
    *,
    sizes: Mapping[int, tuple[int, int]] | None = None,
    largest: Mapping[int, tuple[int, int]] | None = None,
    limits: DecodeLimits | None = None,
    max_pixels: int = MAX_PIXELS,
    max_frames: int = MAX_FRAMES,
    max_frame_bytes: int = MAX_FRAME_BYTES,
) -> Iterator[tuple[int, NDArray[np.uint8]] | RefusedFrame]:
    """:func:`unpack_batch` and :func:`decode` in one pass: ``(image id, (H, W, 3) uint8)`` or
    :class:`RefusedFrame`.

    One picture at a time is decoded, and only after its id and the size in its header were found
    right: whoever keeps pictures should keep them small.

    Args:
        data: the batch, or a binary stream.
        sizes: image id -> width, height in px as encoded; another id or size is refused.
        largest: image id -> width, height in px of the frame as it was captured; another id, and
            a picture that is larger either way round, are refused (frames are never enlarged).
        limits: of the whole batch; frames beyond ``pixels`` are refused.
        max_pixels: of one frame.
        max_frames: in the batch.
        max_frame_bytes: of one frame as encoded.

    Raises:
        BadInput: at the first step for a damaged header or index or too many frames; later when
            decoding has taken ``limits.seconds`` of processor time.
    """
    limits = limits or DecodeLimits()
    left, spent_s = limits.pixels, 0.0
    for item in unpack_batch(data, max_frames=max_frames, max_frame_bytes=max_frame_bytes):
        if isinstance(item, RefusedFrame):
            yield item
            continue
        began_s = time.thread_time()
        answer: tuple[int, NDArray[np.uint8]] | RefusedFrame
        try:
            left -= _check_size(item, sizes, largest, left)
            size = None if sizes is None else sizes[item.image_id]
            answer = item.image_id, decode(item.blob, max_pixels=max_pixels, size=size)
        except BadInput as error:
            answer = RefusedFrame(item.image_id, str(error))
        spent_s += time.thread_time() - began_s
        if spent_s > limits.seconds:
            raise BadInput(f"decoding the batch took more than {limits.seconds:g} s")
        yield answer


def _check_size(
    frame: EncodedFrame,
    sizes: Mapping[int, tuple[int, int]] | None,
    largest: Mapping[int, tuple[int, int]] | None,
    left: int,
) -> int:
    """The pixels of a frame by its header. Raises :class:`BadInput` for one not to be decoded."""
    for known in (sizes, largest):
        if known is not None and frame.image_id not in known:
            raise BadInput("unknown image id")
    name, width, height = read_header(frame.blob)
    if largest is not None:
        most = largest[frame.image_id]
        if max(width, height) > max(most) or min(width, height) > min(most):
            raise BadInput(
                f"{name} of {width} x {height} px; the frame was captured with "
                f"{most[0]} x {most[1]}"
            )
    if width * height > left:
        raise BadInput("the batch decodes to more pixels than are taken")
    return width * height


def _read_index(stream: BinaryIO, max_frames: int) -> list[tuple[int, int, int]]:
    head = stream.read(HEADER_BYTES)
    if len(head) < HEADER_BYTES:
        raise BadInput(f"upload of {len(head)} bytes; a batch begins with {HEADER_BYTES}")
    magic, version, reserved, count, crc = _HEADER.unpack(head)
    if magic != _MAGIC or version != _VERSION or reserved != 0:
        raise BadInput("upload is not a frame batch of version 1 (magic EEUP)")
    if count > max_frames:
        raise BadInput(f"upload announces {count} frames; at most {max_frames}")
    index = stream.read(count * FRAME_OVERHEAD_BYTES)
    if len(index) < count * FRAME_OVERHEAD_BYTES:
        raise BadInput("upload is cut off inside its index")
    if zlib.crc32(index, zlib.crc32(head[:12])) != crc:
        raise BadInput("upload index is damaged: checksum differs")
    return list(_ENTRY.iter_unpack(index))


def _skip(stream: BinaryIO, length: int) -> bool:
    """Read past ``length`` bytes in small pieces; False when the stream ends first."""
    while length:
        piece = len(stream.read(min(length, 2**16)))
        if not piece:
            return False
        length -= piece
    return True
