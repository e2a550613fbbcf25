"""Size of a compressed still from its header alone, for JPEG, WebP and AVIF.

Image decoders allocate what a file's header asks for, some of them already when the file is
opened. An edge that takes frames from the network reads the size itself first, in bounded time
and memory, and is strict: what the device's encoder never writes (animations, several items,
hundreds of scans, a picture larger inside than its header says) is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from endedge.data.errors import BadInput

__all__ = ["read_header"]

_MAX_SCANS = 64  # a progressive JPEG has about ten; each one more is a pass over all pixels


def read_header(blob: bytes) -> tuple[str, int, int]:
    """``(format, width, height)`` from the file header alone: nothing is decoded or allocated.

    Raises :class:`BadInput` for an empty or unknown file, a header that is cut or gives no
    size, and an animation.
    """
    if not blob:
        raise BadInput("empty frame (0 bytes)")
    try:
        if blob[:3] == b"\xff\xd8\xff":
            name, (width, height) = "jpeg", _jpeg_size(blob)
        elif blob[:4] == b"RIFF" and blob[8:12] == b"WEBP":
            name, (width, height) = "webp", _webp_size(blob)
        elif blob[4:8] == b"ftyp" and blob[8:12] in (b"avif", b"avis", b"mif1"):
            name, (width, height) = "avif", _avif_size(blob)
        else:
            raise BadInput("not a JPEG, WebP or AVIF image")
    except (struct.error, IndexError):
        raise BadInput("truncated image header") from None
    if width <= 0 or height <= 0:
        raise BadInput(f"{name} header says {width} x {height} px")
    return name, width, height


def _jpeg_size(blob: bytes) -> tuple[int, int]:
    """Walk the marker segments to the first start-of-frame (ITU-T T.81, B.2.2)."""
    if blob.count(b"\xff\xda") > _MAX_SCANS:
        raise BadInput(f"JPEG with more than {_MAX_SCANS} scans")
    at = 2
    while True:
        if blob[at] != 0xFF:
            raise BadInput("JPEG header is damaged: a marker is missing")
        marker = blob[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", blob, at + 5)
            return width, height
        elif marker in (0xD9, 0xDA):
            raise BadInput("JPEG without a frame header")
        else:
            at += 2 + struct.unpack_from(">H", blob, at + 2)[0]


def _webp_size(blob: bytes) -> tuple[int, int]:
    """The first chunk holds the size (RFC 9649): VP8X canvas, VP8L or VP8 bit stream."""
    chunk = blob[12:16]
    if chunk == b"VP8X":
        if blob[20] & 0x02:
            raise BadInput("animated WebP; send stills")
        width = int.from_bytes(blob[24:27], "little") + 1
        height = int.from_bytes(blob[27:30], "little") + 1
    elif chunk == b"VP8L":
        bits = struct.unpack_from("<I", blob, 21)[0]
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif chunk == b"VP8 ":
        width, height = (v & 0x3FFF for v in struct.unpack_from("<HH", blob, 26))
    else:
        raise BadInput("WebP without a VP8, VP8L or VP8X chunk first")
    if len(blob) < 30:
        raise IndexError
    return width, height


def _avif_size(blob: bytes) -> tuple[int, int]:
    """Largest ``ispe`` (image spatial extents) property in meta/iprp/ipco (ISO/IEC 23008-12)."""
    if blob[8:12] == b"avis":
        raise BadInput("animated AVIF; send stills")
    properties = _box(blob, b"ipco", *_box(blob, b"iprp", *_box(blob, b"meta", 0, len(blob), 4)))
    sizes = [
        struct.unpack_from(">II", blob, start + 4)
        for kind, start, _ in _boxes(blob, *properties)
        if kind == b"ispe"
    ]
    if not sizes:
        raise BadInput("AVIF header gives no size")
    width, height = max(w for w, _ in sizes), max(h for _, h in sizes)
    coded = _av1_size(blob, *_avif_item(blob))
    if coded[0] > width or coded[1] > height:
        raise BadInput(
            f"AVIF header says {width} x {height} px, its stream {coded[0]} x {coded[1]}"
        )
    return width, height


def _box(blob: bytes, kind: bytes, start: int, end: int, skip: int = 0) -> tuple[int, int]:
    """Extent of the contents of the first box ``kind``; ``skip`` bytes of a full box's head."""
    for found, first, last in _boxes(blob, start, end):
        if found == kind:
            return first + skip, last
    raise BadInput(f"AVIF header has no {kind.decode()} box")


def _boxes(blob: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, first and last offset of the contents of each box of an ISO base media file."""
    while start + 8 <= end:
        length, kind = struct.unpack_from(">I4s", blob, start)
        if length == 0:
            length = end - start
        if length < 8 or start + length > end:  # 64-bit lengths (1) have no place in a frame
            raise BadInput("AVIF header is damaged: a box runs past its end")
        yield kind, start + 8, start + length
        start += length


def _avif_item(blob: bytes) -> tuple[int, int]:
    """Extent of the one coded picture, from the item location box (ISO/IEC 14496-12, 8.11.3)."""
    start, end = _box(blob, b"iloc", *_box(blob, b"meta", 0, len(blob), 4))
    reader = _Bits(blob, start, end)
    version = reader.take(8)
    reader.take(24)
    offset_bits, length_bits = 8 * reader.take(4), 8 * reader.take(4)
    base_bits, index_bits = 8 * reader.take(4), 8 * reader.take(4)
    if version > 1 or (version == 1 and index_bits):
        raise BadInput("AVIF item locations of an unknown kind")
    items = reader.take(16)
    reader.take(16)  # item id
    method = reader.take(16) & 15 if version == 1 else 0
    reference = reader.take(16)
    first = reader.take(base_bits)
    extents = reader.take(16)
    if (items, extents, method, reference) != (1, 1, 0, 0):
        raise BadInput("AVIF with more than one picture or extent; send plain stills")
    first += reader.take(offset_bits)
    last = first + reader.take(length_bits)
    if last > len(blob):
        raise BadInput("AVIF picture runs past the end of the frame")
    return first, last


def _av1_size(blob: bytes, start: int, end: int) -> tuple[int, int]:
    """Largest frame size over the sequence headers of an AV1 stream (AV1 specification, 5.5)."""
    width = height = 0
    while start < end:
        head = blob[start]
        start += 2 if head & 4 else 1  # OBU extension
        length = end - start
        if head & 2:
            length = shift = 0
            while True:  # leb128
                byte = blob[start]
                start += 1
                length |= (byte & 127) << shift
                shift += 7
                if byte < 128 or shift > 28:
                    break
        if start + length > end:
            raise BadInput("AVIF stream is cut off")
        if head >> 3 & 15 == 1:
            w, h = _sequence_size(_Bits(blob, start, start + length))
            width, height = max(width, w), max(height, h)
        start += length
    if not width:
        raise BadInput("AVIF stream has no sequence header")
    return width, height


def _sequence_size(reader: _Bits) -> tuple[int, int]:
    """max_frame_width and height of an AV1 sequence header of a still (5.5.1)."""
    reader.take(4)  # profile, still_picture
    if reader.take(1):  # reduced_still_picture_header
        reader.take(5)
    else:
        if reader.take(1):
            raise BadInput("AVIF stream has timing; send stills")
        delays = reader.take(1)
        for _ in range(reader.take(5) + 1):
            reader.take(12)
            if reader.take(5) > 7:
                reader.take(1)
            if delays and reader.take(1):
                reader.take(4)
    width_bits, height_bits = reader.take(4) + 1, reader.take(4) + 1
    return reader.take(width_bits) + 1, reader.take(height_bits) + 1


class _Bits:
    """Bits of ``blob[start:end]``, most significant first; IndexError past the end."""

    def __init__(self, blob: bytes, start: int, end: int) -> None:
        self._blob, self._at, self._end = blob, 8 * start, 8 * end

    def take(self, count: int) -> int:
        last = self._at + count
        if last > self._end:
            raise IndexError
        chunk = int.from_bytes(self._blob[self._at // 8 : -(-last // 8)], "big")
        self._at = last
        return chunk >> (-last % 8) & ((1 << count) - 1)
