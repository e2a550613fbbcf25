"""What end and edge say to each other: versioned binary messages with bounds on every field.

A frame is ``magic "EE" | version u8 | kind u8 | body length u32`` (big endian) and a body of
at most ``MAX_BODY_BYTES``. A body is the fields of one dataclass below, in order: integers
and floats at fixed width, texts and byte strings as a u16 length and the bytes, each with a
bound of its own. Nothing else can be said: no pickle, no nesting, no compression, and no
length is believed before it is compared with its bound. ``docs/protocol.md`` has the dialogue.
"""

from __future__ import annotations

import dataclasses
import re
import struct
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple, get_type_hints

from endedge.data.errors import BadInput

__all__ = [
    "CHUNK_BYTES",
    "HEADER_BYTES",
    "MAX_BODY_BYTES",
    "PROTOCOL_VERSION",
    "Accept",
    "Applied",
    "Busy",
    "Challenge",
    "Data",
    "Deferred",
    "Enrol",
    "Failed",
    "Fetch",
    "Hello",
    "Message",
    "Missed",
    "Noted",
    "Offer",
    "Ping",
    "Ready",
    "Refused",
    "Stored",
    "Welcome",
    "check_device_id",
    "decode_body",
    "decode_header",
    "encode",
    "hello_statement",
    "printable",
    "update_statement",
]

PROTOCOL_VERSION = 1
CHUNK_BYTES = 16 * 1024
_HEADER = struct.Struct("!2sBBI")
_MAGIC = b"EE"
HEADER_BYTES = _HEADER.size
MAX_BODY_BYTES = CHUNK_BYTES + 64
_DEVICE_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class _Field(NamedTuple):
    code: str  # a struct code, or "text" / "bytes"
    bound: int  # exact bytes for "fixed", most bytes for "text" and "bytes"


U32 = Annotated[int, _Field("I", 4)]
U64 = Annotated[int, _Field("Q", 8)]
F64 = Annotated[float, _Field("d", 8)]
Text = Annotated[str, _Field("text", 200)]
Payload = Annotated[bytes, _Field("bytes", CHUNK_BYTES)]
Digest = Annotated[bytes, _Field("fixed", 32)]  # also nonces and Ed25519 public keys
Signature = Annotated[bytes, _Field("fixed", 64)]


class Message:
    """Base of all messages; ``kind`` is the byte in the frame header."""

    kind: ClassVar[int]


# Edge to device ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Challenge(Message):
    """First word of the edge: a fresh nonce to sign, and the key that signs its packages."""

    kind: ClassVar[int] = 1
    nonce: Digest
    edge_key: Digest


@dataclass(frozen=True)
class Welcome(Message):
    """The device is known. ``stored_round``: the last batch the edge holds whole;
    ``resolved_round``: the last round that was applied or missed; limits of this edge."""

    kind: ClassVar[int] = 2
    stored_round: U64
    resolved_round: U64
    max_upload_bytes: U64
    max_frames: U32
    max_update_bytes: U64


@dataclass(frozen=True)
class Accept(Message):
    """Send the batch of ``round_index`` from byte ``offset`` on."""

    kind: ClassVar[int] = 3
    round_index: U64
    offset: U64


@dataclass(frozen=True)
class Stored(Message):
    """The batch is whole, its hash right, and on disk: the device may forget it."""

    kind: ClassVar[int] = 4
    round_index: U64


@dataclass(frozen=True)
class Busy(Message):
    """Not now (queue or disk full): offer again after ``retry_s``."""

    kind: ClassVar[int] = 5
    round_index: U64
    retry_s: F64
    reason: Text


@dataclass(frozen=True)
class Ready(Message):
    """An update package waits. ``signature`` is Ed25519 over :func:`update_statement`."""

    kind: ClassVar[int] = 6
    round_index: U64
    size: U64
    sha256: Digest
    signature: Signature


@dataclass(frozen=True)
class Missed(Message):
    """There will be no update for this round."""

    kind: ClassVar[int] = 7
    round_index: U64
    reason: Text


@dataclass(frozen=True)
class Noted(Message):
    """How this round ended on the device is on the edge's disk."""

    kind: ClassVar[int] = 8
    round_index: U64


@dataclass(frozen=True)
class Refused(Message):
    """Last word before the edge closes, for good: this device, as it is, will never be taken."""

    kind: ClassVar[int] = 9
    reason: Text


@dataclass(frozen=True)
class Deferred(Message):
    """Last word before the edge closes, for now: come back after ``retry_s``."""

    kind: ClassVar[int] = 10
    retry_s: F64
    reason: Text


# Device to edge ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Enrol(Message):
    """First contact: a one-time token, the device's own public key, and proof that it has the
    private one (Ed25519 over :func:`hello_statement`)."""

    kind: ClassVar[int] = 32
    device_id: Text
    token: Text
    device_key: Digest
    signature: Signature


@dataclass(frozen=True)
class Hello(Message):
    """A known device; ``signature`` is Ed25519 over :func:`hello_statement`."""

    kind: ClassVar[int] = 33
    device_id: Text
    signature: Signature


@dataclass(frozen=True)
class Offer(Message):
    """A batch of ``frames`` frames in ``size`` bytes; the update may have ``budget_bytes``."""

    kind: ClassVar[int] = 34
    round_index: U64
    size: U64
    sha256: Digest
    frames: U32
    budget_bytes: U64


@dataclass(frozen=True)
class Fetch(Message):
    """Send the package of ``round_index`` from byte ``offset`` on."""

    kind: ClassVar[int] = 35
    round_index: U64
    offset: U64


@dataclass(frozen=True)
class Applied(Message):
    """The package is in use; ``map50_95`` as the device measured it, NaN if it did not."""

    kind: ClassVar[int] = 36
    round_index: U64
    model_sha256: Digest
    map50_95: F64


@dataclass(frozen=True)
class Failed(Message):
    """The package was refused or would not apply; the old model stays."""

    kind: ClassVar[int] = 37
    round_index: U64
    reason: Text


# Both ways -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Data(Message):
    """Bytes of a batch (up) or a package (down), at their place."""

    kind: ClassVar[int] = 64
    round_index: U64
    offset: U64
    payload: Payload


@dataclass(frozen=True)
class Ping(Message):
    """Heartbeat, said when nothing else is."""

    kind: ClassVar[int] = 65


def _fields_of(cls: type[Message]) -> tuple[tuple[str, _Field], ...]:
    hints = get_type_hints(cls, include_extras=True)
    return tuple(
        (field.name, hints[field.name].__metadata__[0])
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]
    )


_KINDS: dict[int, type[Message]] = {cls.kind: cls for cls in Message.__subclasses__()}
_FIELDS = {cls: _fields_of(cls) for cls in _KINDS.values()}


def encode(message: Message) -> bytes:
    """The frame of ``message``. Raises :class:`BadInput` if a field is out of its bound."""
    parts = []
    for name, (code, bound) in _FIELDS[type(message)]:
        value: Any = getattr(message, name)
        where = f"{type(message).__name__}.{name}"
        try:
            if code in ("text", "bytes", "fixed"):
                raw = value.encode() if code == "text" else bytes(value)
                if len(raw) > bound or (code == "fixed" and len(raw) != bound):
                    raise BadInput(f"{where} has {len(raw)} bytes; the bound is {bound}")
                parts.append(raw if code == "fixed" else struct.pack("!H", len(raw)) + raw)
            else:
                parts.append(struct.pack("!" + code, value))
        except struct.error:
            raise BadInput(f"{where} is {value!r}, out of range") from None
    body = b"".join(parts)
    return _HEADER.pack(_MAGIC, PROTOCOL_VERSION, message.kind, len(body)) + body


def decode_header(header: bytes) -> tuple[type[Message], int]:
    """Message type and body length from ``HEADER_BYTES`` bytes, before anything is allocated.

    Raises :class:`BadInput` for another protocol or version, an unknown kind, or a length
    above the bound.
    """
    magic, version, kind, length = _HEADER.unpack(header)
    if magic[:1] == b"\x16":  # a TLS record of a handshake
        raise BadInput(
            "peer speaks TLS and this side does not: start the edge with --secure, or the device "
            "without its bundle"
        )
    if magic != _MAGIC:
        raise BadInput(f"peer does not speak this protocol: begins with {header[:8]!r}")
    if version != PROTOCOL_VERSION:
        raise BadInput(f"peer speaks version {version}; this side speaks {PROTOCOL_VERSION}")
    if kind not in _KINDS:
        raise BadInput(f"unknown kind of message {kind}")
    if length > MAX_BODY_BYTES:
        raise BadInput(f"message of {length} bytes; at most {MAX_BODY_BYTES} are taken")
    return _KINDS[kind], length


def decode_body(cls: type[Message], body: bytes) -> Message:
    """The message in ``body``. Raises :class:`BadInput` unless every byte belongs to it.

    Texts are made :func:`printable` here, once, so that none can steer a terminal or a log.
    """
    values: list[Any] = []
    at = 0

    def take(n_bytes: int) -> bytes:
        nonlocal at
        if len(body) - at < n_bytes:
            raise BadInput(f"{cls.__name__} ends early, at byte {len(body)}")
        at += n_bytes
        return body[at - n_bytes : at]

    for name, (code, bound) in _FIELDS[cls]:
        if code in ("text", "bytes"):
            (length,) = struct.unpack("!H", take(2))
            if length > bound:
                raise BadInput(f"{cls.__name__}.{name} has {length} bytes; the bound is {bound}")
            raw = take(length)
            try:
                values.append(printable(raw.decode()) if code == "text" else raw)
            except UnicodeDecodeError:
                raise BadInput(f"{cls.__name__}.{name} is not UTF-8") from None
        elif code == "fixed":
            values.append(take(bound))
        else:
            values.append(struct.unpack("!" + code, take(bound))[0])
    if at != len(body):
        raise BadInput(f"{cls.__name__} has {len(body) - at} bytes too many")
    return cls(*values)


def printable(text: str) -> str:
    """``text`` with "?" for each character that is not one to be seen: controls, escape
    sequences, line ends, and the marks that turn the direction of writing."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def check_device_id(device_id: str) -> str:
    """``device_id`` itself if it can name a folder; else :class:`BadInput`."""
    if not _DEVICE_ID.fullmatch(device_id):
        raise BadInput(
            f"device id {device_id[:80]!r}; use 1 to 64 of a-z, 0-9, '-' and '_', beginning "
            "with a letter or a digit"
        )
    return device_id


def hello_statement(nonce: bytes, edge_key: bytes, device_id: str) -> bytes:
    """What a device signs to prove itself: good for one nonce, one edge and one name."""
    return b"endedge hello 1\0" + nonce + edge_key + device_id.encode()


def update_statement(device_id: str, round_index: int, size: int, sha256: bytes) -> bytes:
    """What the edge signs of a package: good for one device, one round and these bytes."""
    return (
        b"endedge update 1\0" + struct.pack("!QQ", round_index, size) + sha256 + device_id.encode()
    )
