"""Picture files as cameras and label tools write them → (H, W, 3) uint8 RGB, or one line why not.

What is read is what the label tool showed: upright, where the file says how the camera was held
and the annotated size agrees. Pictures of more than eight bits a channel, as thermal cameras
write them, hold counts of a sensor and no brightness: each is stretched from its own 0.1 to its
own 99.9 percentile (hot and dead pixels beside), as the automatic gain of such a camera does.
Transparency is left out, the colours under it are kept; of several pictures in a file the first
is read.
"""

from __future__ import annotations

import hashlib
import io
import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from endedge.data.errors import BadInput

__all__ = ["MAX_PIXELS", "PictureFile", "fits", "inspect_picture", "read_image"]

MAX_PIXELS = 50_000_000
_ORIENTATION = 0x112  # EXIF tag: 1 upright, 5 to 8 lie on their side
_LOW, _HIGH = 0.1, 99.9  # percentiles that become 0 and 255
_COUNTED = 2_000_000  # values that tell the percentiles well enough

Size = tuple[int, int]  # width, height in px


@dataclass(frozen=True)
class PictureFile:
    """What one pass over the bytes of a picture file tells: their ``sha256``; ``reading``: what
    is done to the stored pixels beyond decoding (``turned-6``, ``stretched``; mostly nothing);
    ``fault``: one line why the file cannot be used, else empty."""

    sha256: bytes
    reading: str = ""
    fault: str = ""


def read_image(path: Path, size: Size | None = None) -> NDArray[np.uint8]:
    """Decode a picture file to (height, width, 3) uint8 RGB.

    ``size``: the annotated width and height in px. It tells whether boxes were drawn on the
    upright picture or on the stored one, and has to have the shape of the picture. Raises
    :class:`BadInput` for a file that is no picture, is cut off, has more than 50 megapixels, or
    another shape than ``size``.
    """
    try:
        with _quietly(), Image.open(path) as image:
            return _decoded(image, size, path.read_bytes)[0]
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    except Exception as error:  # Pillow raises many kinds for broken files
        raise BadInput(f"image does not decode: {path} ({_line(error)})") from None


def inspect_picture(path: Path, size: Size) -> PictureFile:
    """Read a file once: its hash, and whether :func:`read_image` will take it. JPEG and PNG are
    only walked through and decoded where their end is missing; other formats are decoded."""
    try:
        blob = path.read_bytes()
    except OSError as error:
        return PictureFile(b"", fault=f"cannot be read ({error.strerror})")
    sha256 = hashlib.sha256(blob).digest()
    try:
        with _quietly(), Image.open(io.BytesIO(blob)) as image:
            whole, plain = _complete(blob, image.format), not _is_deep(image)
            if whole and plain and (image.format != "PNG" or not _png_exif(blob)):
                turn = 1 if image.format == "PNG" else _turn(image, size)
                _check(image, turn, size)
            else:
                _, turn = _decoded(image, size, lambda: blob)
            if not whole and not any(blob[-64:]) and image.format in ("JPEG", "MPO"):
                raise BadInput("ends in zeros: only a part of it was copied")
            reading = ("" if turn == 1 else f"turned-{turn}") + ("" if plain else "stretched")
    except BadInput as error:
        return PictureFile(sha256, fault=str(error))
    except Exception as error:
        return PictureFile(sha256, fault=f"does not decode ({_line(error)})")
    return PictureFile(sha256, reading)


def fits(real: Size, annotated: Size) -> bool:
    """Whether a picture of ``real`` size is the annotated one, scaled or not: the same shape up
    to a pixel of rounding on each side."""
    off = abs(real[0] * annotated[1] - real[1] * annotated[0])
    return off <= max(sum(real), sum(annotated))


def _check(image: ImageFile.ImageFile, turn: int, size: Size | None) -> None:
    _check_pixels(image)
    real = image.size if turn < 5 else image.size[::-1]
    if size is not None and not fits(real, size):
        raise BadInput(
            f"is {real[0]} x {real[1]} px, annotated as {size[0]} x {size[1]}: another picture, "
            "or cut or turned after it was annotated"
        )


def _check_pixels(image: ImageFile.ImageFile) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise BadInput(f"image too large: {image.width} x {image.height} px; at most 50 megapixels")


def _decoded(
    image: ImageFile.ImageFile, size: Size | None, blob: Callable[[], bytes]
) -> tuple[NDArray[np.uint8], int]:
    """The pixels, upright, and the EXIF orientation that was undone."""
    _check_pixels(image)
    deep = _is_deep(image)
    image.load()  # what raises here would be lost in a look for metadata behind the pixels
    turn = _turn(image, size)
    _check(image, turn, size)
    if not deep:
        return _turned(np.asarray(image.convert("RGB")), turn), turn
    if image.mode[0] in "IF":
        values: Any = np.asarray(image)
    else:  # Pillow keeps the upper eight bits of a colour, which may be empty
        data = blob()
        whole = image.format != "PNG" or _complete(
            data, "PNG"
        )  # OpenCV believes any chunk's length
        values = (
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if whole else None
        )
        if values is None or values.ndim != 3 or values.dtype == np.uint8:
            raise BadInput(f"{image.format} of 16 bits a channel that cannot be read; save as PNG")
        values = values[..., 2::-1]
    return _turned(_stretched(values), turn), turn


def _stretched(values: NDArray[Any]) -> NDArray[np.uint8]:
    """(H, W) or (H, W, 3) of any number type → (H, W, 3), a block of rows at a time: floats of
    a whole large picture would be a gigabyte."""
    step = math.isqrt(max(1, values.size // _COUNTED))  # of large pictures every so many pixels
    some = values[:: max(1, step), :: max(1, step)].astype(np.float64)
    known = some[np.isfinite(some)]
    if not known.size:
        raise BadInput("holds no finite value")
    low, high = np.percentile(known, (_LOW, _HIGH))
    if high <= low:
        low, high = known.min(), known.max()
    scale = 255 / (high - low) if 0 < high - low < math.inf else 0.0
    grey = np.empty((*values.shape[:2], 3), np.uint8)
    for top in range(0, len(values), 256):
        rows = values[top : top + 256].astype(np.float64)
        rows[~np.isfinite(rows)] = low
        levels = np.rint((np.clip(rows, low, high) - low) * scale)
        grey[top : top + 256] = levels if levels.ndim == 3 else levels[..., None]
    return grey


def _is_deep(image: ImageFile.ImageFile) -> bool:
    """More than eight bits a channel: integers and floats, and colours that are stored so."""
    return image.mode[0] in "IF" or any(";16" in str(tile[3]) for tile in image.tile)


def _turn(image: ImageFile.ImageFile, size: Size | None) -> int:
    """The EXIF orientation to undo, 1 to 8. A tool that ignored it wrote the stored size."""
    if image.format == "TIFF":  # Pillow turns it itself
        return 1
    try:
        turn = int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF says nothing
        return 1
    if not 1 < turn < 9:
        return 1
    if turn > 4 and size is not None and fits(image.size, size):
        return turn if fits(image.size[::-1], size) else 1
    return turn


def _turned(pixels: NDArray[np.uint8], turn: int) -> NDArray[np.uint8]:
    """``pixels`` (H, W, 3) upright: EXIF 2.32, 4.6.4 A, tag Orientation."""
    if turn in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _complete(blob: bytes, kind: str | None) -> bool:
    """Whether the end of a JPEG or PNG is there; others have to be decoded to know."""
    if kind == "JPEG":  # entropy-coded data never hold ff d9, a preview in the header may
        return blob.rfind(b"\xff\xd9") > blob.find(b"\xff\xda", blob.rfind(b"\xff\xc4") + 1) > 0
    return kind == "PNG" and any(name == b"IEND" for name, _ in _png_chunks(blob))


def _png_exif(blob: bytes) -> bool:
    return b"eXIf" in blob or b"Raw profile type exif" in blob


def _png_chunks(blob: bytes) -> Iterator[tuple[bytes, int]]:
    """Name and offset of the chunks of a PNG, up to the first that is cut off or damaged."""
    at, data = 8, memoryview(blob)
    while at + 12 <= len(blob):
        end = at + 8 + int.from_bytes(blob[at : at + 4], "big")
        if (
            end + 4 > len(blob)
            or zlib.crc32(data[at + 4 : end]).to_bytes(4, "big") != data[end : end + 4]
        ):
            return
        yield blob[at + 4 : at + 8], at
        at = end + 4


@contextmanager
def _quietly() -> Iterator[None]:
    """Pillow warns of large pictures and odd metadata; what matters is refused here."""
    with catch_warnings():
        simplefilter("ignore")
        yield


def _line(error: BaseException) -> str:
    text = str(error).splitlines()
    return text[0][:120] if text else type(error).__name__
