"""The fixed part of an update package (docs/eeu.md): what it is, what it is of, what it needs.

Without PyTorch, so that whoever only passes packages on or stores models can read it.
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass

from endedge.data.errors import BadInput

__all__ = ["HEADER_BYTES", "Envelope", "builds_on", "opened", "result_of", "reuse", "seal"]

_MAGIC = b"EEU1"
_HEADER = struct.Struct("<4sB16s16s16sfI")  # magic, mode, checksum, result, base, step, spec bytes
_CHECKED_FROM = 4 + 1 + 16  # the checksum covers the mode byte and all that follows it
_MODES = ("full", "delta", "reuse")
HEADER_BYTES = _HEADER.size  #: of every package


@dataclass(frozen=True)
class Envelope:
    """An opened package. ``mode``: ``full``, a ``delta`` upon ``base``, or ``reuse``: the device
    goes back to a model that it keeps. ``result``: the model that comes of it; hashes are the
    first 16 bytes of :func:`~endedge.distill.model.model_hash`, hexadecimal."""

    mode: str
    result: str
    base: str
    step: float
    spec: bytes
    stream: bytes


def seal(result: str, base: str | None, step: float, spec: bytes, stream: bytes) -> bytes:
    """A package of its parts: the hash (hex) of the decoded model, that of the ``base`` of a delta,
    the step, the description and the coded integers."""
    return _sealed("full" if base is None else "delta", result, base, step, spec + stream, spec)


def reuse(result: str) -> bytes:
    """The package that tells a device to run the model of that hash (hex), which it keeps."""
    return _sealed("reuse", result, None, 1.0, b"", b"")


def _sealed(
    mode: str, result: str, base: str | None, step: float, body: bytes, spec: bytes
) -> bytes:
    held = bytes(16) if base is None else bytes.fromhex(base)[:16]
    rest = bytes.fromhex(result)[:16] + held + struct.pack("<fI", step, len(spec)) + body
    kind = bytes([_MODES.index(mode)])
    return _MAGIC + kind + hashlib.sha256(_MAGIC + kind + rest).digest()[:16] + rest


def opened(data: bytes) -> Envelope:
    """The parts of a package. Raises :class:`BadInput` for bytes that are none, and for a corrupt
    one."""
    if len(data) < HEADER_BYTES or data[:4] != _MAGIC:
        raise BadInput(
            f"not an update package: expected {_MAGIC!r} and at least {HEADER_BYTES} bytes"
        )
    magic, mode, checksum, result, base, step, n_spec = _HEADER.unpack_from(data)
    if hashlib.sha256(magic + data[4:5] + data[_CHECKED_FROM:]).digest()[:16] != checksum:
        raise BadInput("corrupt package: the checksum does not match; send it again")
    if mode >= len(_MODES):
        raise BadInput(
            f"package of an unknown mode {mode}; this version reads full, delta and reuse"
        )
    if _MODES[mode] != "delta" and base != bytes(16):
        raise BadInput(f"corrupt package: a {_MODES[mode]} package names a base model")
    if _MODES[mode] == "reuse" and len(data) > HEADER_BYTES:
        raise BadInput("corrupt package: one that reuses a model holds nothing else")
    if HEADER_BYTES + n_spec > len(data):
        raise BadInput("corrupt package: the model description is cut short")
    if not (math.isfinite(step) and 0 < step < 2.0**60):
        raise BadInput("corrupt package: the quantization step is out of range")
    spec, stream = data[HEADER_BYTES : HEADER_BYTES + n_spec], data[HEADER_BYTES + n_spec :]
    return Envelope(_MODES[mode], result.hex(), base.hex(), step, spec, stream)


def builds_on(data: bytes) -> str | None:
    """The hash of the model that a device must have to use a package; None for a full one, and
    for what is no package."""
    try:
        envelope = opened(data)
    except BadInput:
        return None
    return {"delta": envelope.base, "reuse": envelope.result}.get(envelope.mode)


def result_of(data: bytes) -> str:
    """The hash of the model that a package gives; nothing for what is none."""
    try:
        return opened(data).result
    except BadInput:
        return ""
