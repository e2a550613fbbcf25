"""The devices of a fleet as they are named: ``hituav*3``, ``runs/mine*2@0.5``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from endedge.data.errors import BadInput

__all__ = ["MOST", "Linked", "Member", "are_several", "read_members", "same_period", "total"]

MOST = 1_000_000  # devices
_WORD = r"(?P<place>.+?)(\*(?P<count>[^*@]*))?(@(?P<weight>[^*@]*))?"


@dataclass(frozen=True)
class Member:
    """``count`` devices of one kind: ``place`` is a results folder or a table, ``weight`` what a
    point of mAP of each of them counts."""

    place: str
    count: int = 1
    weight: float = 1.0

    def __str__(self) -> str:
        count = f"*{self.count}" if self.count > 1 else ""
        return f"{self.place}{count}" + (f"@{self.weight:g}" if self.weight != 1 else "")


class Linked(Protocol):
    """What a link says of time."""

    @property
    def period_s(self) -> float: ...

    @property
    def schedule(self) -> str: ...


L = TypeVar("L")


def read_members(words: Sequence[str]) -> tuple[Member, ...]:
    """From ``PLACE``, ``PLACE*COUNT``, ``PLACE@WEIGHT`` or ``PLACE*COUNT@WEIGHT``.

    Raises :class:`BadInput` for a count that is no whole number from 1 on, a weight that is not
    finite and > 0, and more than a million devices.
    """
    found = []
    for word in words:
        parts = None if Path(word).exists() else re.fullmatch(_WORD, word)
        if parts is None:
            found.append(Member(word))
            continue
        count, weight = parts["count"], parts["weight"]
        if count is not None and not re.fullmatch(r"0*[1-9][0-9]{0,8}", count):
            raise BadInput(f"{word!r}: {count!r} devices; give a whole number from 1 on, as NAME*3")
        found.append(Member(parts["place"], int(count or 1), _weight(word, weight)))
    if total(found) > MOST:
        raise BadInput(f"{total(found)} devices; at most {MOST}")
    return tuple(found)


def _weight(word: str, text: str | None) -> float:
    try:
        weight = 1.0 if text is None else float(text)
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight > 0):
        raise BadInput(f"{word!r}: weight {text!r}; give a number above 0, as NAME*3@0.5")
    return weight


def total(members: Sequence[Member]) -> int:
    """Devices of all members."""
    return sum(m.count for m in members)


def are_several(words: Sequence[str]) -> bool:
    """Whether words name more than one device or give a weight."""
    if len(words) != 1:
        return True
    return not Path(words[0]).exists() and re.search(r"[*@]", words[0]) is not None


def same_period(members: Sequence[Member], found: Sequence[L], link: Callable[[L], Linked]) -> None:
    """Raises :class:`BadInput` where the links of ``found`` cannot share a band."""
    first = link(found[0])
    for member, one in zip(members, found, strict=True):
        mine = link(one)
        if mine.schedule != "pipelined":
            raise BadInput(
                f"{member.place}: link.schedule is {mine.schedule}; devices that share a band send "
                "all through the period: link.schedule=pipelined"
            )
        if mine.period_s != first.period_s:
            raise BadInput(
                f"{members[0].place} has a period of {first.period_s:g} s, {member.place} of "
                f"{mine.period_s:g} s; devices that share a band share it: link.period_s=60"
            )
