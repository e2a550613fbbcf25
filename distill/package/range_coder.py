"""A stream of the range coder: integers in, bytes out, or the other way round."""

from __future__ import annotations

from typing import Any

import numpy as np

from endedge.data.errors import BadInput
from endedge.distill.package.coding_loops import (
    AT,
    DECODES,
    FULL,
    HELD,
    LOW,
    LOWER,
    MOST_WORDS,
    RANGE,
    WINDOW,
    code_pass,
    code_raw,
    flush,
)

__all__ = ["Coder"]


class Coder:
    """A stream that is written or, where ``data`` is given, read; both through the same calls.

    Raises :class:`BadInput` for a stream that no encoder wrote. A stream that is cut short goes
    on with zeros.
    """

    def __init__(self, data: bytes | None = None) -> None:
        self.reads = data is not None
        self._state = np.zeros(7, np.uint64)
        self._state[RANGE] = FULL
        self._written: list[bytes] = []
        self._words = np.zeros(0, np.uint32)
        if data is not None:
            self._words = np.frombuffer(data, "<u4").astype(np.uint32)
            first, second = (int(self._words[i]) if i < len(self._words) else 0 for i in (0, 1))
            self._state[WINDOW] = first << 32 | second
            self._state[AT], self._state[DECODES] = 2, 1

    def expect(self, integers: int) -> None:
        """Make room for so many ``integers`` to be written next."""
        if not self.reads:
            self._drain()
            need = MOST_WORDS * integers + int(self._state[HELD]) + 8
            if len(self._words) < need:
                self._words = np.empty(need, np.uint32)

    def level(self, value: int) -> int:
        """Code a number 0..31."""
        one = np.array([0 if self.reads else value], np.int64)
        if not code_raw(self._state, self._words, np.full(1, 5, np.int64), one):
            raise BadInput("coded integers: the stream is corrupt")
        return int(one[0])

    def integers(self, *arguments: Any) -> float:
        """:func:`code_pass` on this stream."""
        total = float(code_pass(self._state, self._words, *arguments))
        if total < 0:
            raise BadInput("coded integers: the stream is corrupt")
        return total

    def finish(self) -> bytes:
        """What was written, with the words that decide the last interval."""
        self.expect(0)
        lower, span = int(self._state[LOWER]), int(self._state[RANGE])
        if span == FULL:  # nothing was coded
            return b""
        point = (lower + int(LOW)) & FULL
        if self._state[HELD]:
            flush(self._state, self._words, point < lower)
        self._drain()
        last = [point >> 32]
        if ((lower + span) & FULL) >> 32 == last[0]:
            last.append(0)
        return b"".join(self._written) + np.array(last, "<u4").tobytes()

    def _drain(self) -> None:
        self._written.append(self._words[: int(self._state[AT])].astype("<u4").tobytes())
        self._state[AT] = 0
