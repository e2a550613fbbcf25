"""Every message survives its frame; nothing else gets through."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endedge.data.errors import BadInput
from endedge.link import messages as m

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "I": st.integers(0, 2**32 - 1),
    "Q": st.integers(0, 2**64 - 1),
    "d": st.floats(allow_nan=False),
    "text": st.text(max_size=50).map(m.printable),
    "bytes": st.binary(max_size=500),
}


def field_values(field: Any) -> st.SearchStrategy[Any]:
    if field.code == "fixed":
        return st.binary(min_size=field.bound, max_size=field.bound)
    return VALUES[field.code]


MESSAGES = st.one_of(
    *(
        st.builds(cls, *(field_values(field) for _, field in fields))
        for cls, fields in m._FIELDS.items()
    )
)


def decode(frame: bytes) -> m.Message:
    cls, length = m.decode_header(frame[: m.HEADER_BYTES])
    body = frame[m.HEADER_BYTES :]
    assert length == len(body)
    return m.decode_body(cls, body)


@given(MESSAGES)
def test_round_trip(message: m.Message) -> None:
    assert decode(m.encode(message)) == message


@given(MESSAGES, st.data())
def test_cut_or_longer_bodies_are_refused(message: m.Message, data: st.DataObject) -> None:
    body = m.encode(message)[m.HEADER_BYTES :]
    with pytest.raises(BadInput):
        m.decode_body(type(message), body + b"x")
    if body:
        with pytest.raises(BadInput):
            m.decode_body(type(message), body[: data.draw(st.integers(0, len(body) - 1))])


@given(st.binary(min_size=8, max_size=8), st.binary(max_size=300))
def test_garbage_is_bad_input_or_a_message(header: bytes, body: bytes) -> None:
    with pytest.raises(BadInput):
        m.decode_header(header)  # 1 in 2^24 would not be
    for cls in m._FIELDS:
        try:
            message = m.decode_body(cls, body)
        except BadInput:
            continue
        assert m.encode(message)[m.HEADER_BYTES :] == body  # one meaning, one spelling


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (b"GET / HT", "does not speak"),
        (struct.pack("!2sBBI", b"EE", 2, 65, 0), "version 2"),
        (struct.pack("!2sBBI", b"EE", 1, 99, 0), "unknown kind"),
        (struct.pack("!2sBBI", b"EE", 1, 64, 2**32 - 1), "at most"),
    ],
)
def test_bad_headers_say_why(header: bytes, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        m.decode_header(header)


@pytest.mark.parametrize(
    "message",
    [
        m.Data(1, 0, bytes(m.CHUNK_BYTES + 1)),
        m.Data(-1, 0, b""),
        m.Stored(2**64),
        m.Refused("x" * 201),
        m.Challenge(bytes(31), bytes(32)),
    ],
)
def test_out_of_bound_fields_are_not_sent(message: m.Message) -> None:
    with pytest.raises(BadInput):
        m.encode(message)


def test_the_largest_chunk_fits_a_frame() -> None:
    frame = m.encode(m.Data(2**64 - 1, 2**64 - 1, bytes(m.CHUNK_BYTES)))
    assert decode(frame)
    assert len(frame) - m.CHUNK_BYTES < 32


@pytest.mark.parametrize("name", ["", "..", "../a", "a/b", "A", "a" * 65, "-a", "a.b", "a\n", "ä"])
def test_device_ids_cannot_leave_their_folder(name: str) -> None:
    with pytest.raises(BadInput):
        m.check_device_id(name)


def test_statements_tell_every_part_apart() -> None:
    base = m.update_statement("cam", 1, 2, bytes(32))
    others = [
        m.update_statement("cam2", 1, 2, bytes(32)),
        m.update_statement("cam", 2, 2, bytes(32)),
        m.update_statement("cam", 1, 3, bytes(32)),
        m.update_statement("cam", 1, 2, b"x" * 32),
        m.hello_statement(bytes(32), bytes(32), "cam"),
    ]
    assert base not in others


@given(st.text(max_size=60))
def test_texts_steer_no_terminal(text: str) -> None:
    said = decode(m.encode(m.Deferred(1.0, text[:50])))
    assert isinstance(said, m.Deferred)
    assert said.reason.isprintable()
    assert m.printable(said.reason) == said.reason
    assert len(said.reason) == len(text[:50])


def test_a_peer_that_begins_with_tls_is_named() -> None:
    with pytest.raises(BadInput, match="--secure"):
        m.decode_header(b"\x16\x03\x01\x02\x00\x01\x00\x01")
