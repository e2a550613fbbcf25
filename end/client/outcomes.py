"""How rounds end on the device, for whoever waits for them."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from typing import Literal

__all__ = ["HELD_BACK", "Outcome", "Outcomes"]

HELD_BACK = "held back: "  # so the edge begins when an update was made and would not help
_KEPT = 100


@dataclass(frozen=True)
class Outcome:
    """How one round ended on the device."""

    round_index: int
    status: Literal["applied", "missed"]
    reason: str
    seconds: float  # from submission
    map50_95: float  # NaN if not measured

    def __str__(self) -> str:
        """``round 3: held back after 8.1 s, the held-back frames show no improvement``."""
        ended, shown = str(self.status), self.reason
        if self.status == "applied":
            shown = f"mAP {100 * self.map50_95:.1f} %"
        elif self.reason.startswith(HELD_BACK):
            ended, shown = "held back", self.reason.removeprefix(HELD_BACK)
        return f"round {self.round_index}: {ended} after {self.seconds:.1f} s, {shown}"


class Outcomes:
    """Futures of outcomes by round; the last hundred are kept."""

    def __init__(self) -> None:
        self._submitted_s: dict[int, float] = {}
        self._futures: dict[int, asyncio.Future[Outcome]] = {}
        self.ended_round = 0  # by what the edge said; later ones are open

    def submitted(self, round_index: int) -> None:
        """The clock of a round starts."""
        self._submitted_s[round_index] = time.monotonic()
        self.future(round_index)

    def future(self, round_index: int) -> asyncio.Future[Outcome]:
        """The outcome of a round that ended or will."""
        if round_index not in self._futures:
            self._futures[round_index] = asyncio.get_running_loop().create_future()
        return self._futures[round_index]

    def missed_up_to(self, round_index: int, why: str) -> None:
        """What is open up to this round will have no update."""
        self.ended_round = max(self.ended_round, round_index)
        for waiting in list(self._futures):
            if waiting <= round_index:
                self.end(waiting, "missed", why)

    def end(
        self,
        round_index: int,
        status: Literal["applied", "missed"],
        why: str = "",
        value: float = math.nan,
    ) -> None:
        """A round ends; the first word counts."""
        future = self.future(round_index)
        if not future.done():
            now_s = time.monotonic()
            seconds = now_s - self._submitted_s.pop(round_index, now_s)
            future.set_result(Outcome(round_index, status, why, seconds, value))
        self._futures.pop(round_index - _KEPT, None)
