"""Progress of long work: a live line on a terminal, plain lines (at most one in 10 s) elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

__all__ = ["Progress"]

_PLAIN_EVERY_S = 10.0


class Progress:
    """Call with ``(done, total, message)``; use as a context manager."""

    def __init__(self) -> None:
        self._began = self._said = time.monotonic()
        self._first = self._last = -1
        self._bar: Bar | None = None
        self._message = ""

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            self._bar = Bar(
                BarColumn(24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]} {task.description}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("starting", total=None, left="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int, message: str) -> None:
        now = time.monotonic()
        if self._first < 0:
            self._first, self._began = done, now
        self._message = message = message or self._message  # who has nothing to say is still at it
        made = done - self._first
        seconds = (now - self._began) / made * (total - done) if made > 0 else None
        left = f"~{seconds / 60:.0f} min left" if seconds is not None else ""
        if self._bar is not None:
            self._bar.update(
                self._task, completed=done, total=total, description=message, left=left
            )
        elif message and (done != self._last or now - self._said > _PLAIN_EVERY_S):
            print(f"[{done}/{total}] {message} {left}".rstrip(), file=sys.stderr, flush=True)
            self._said, self._last = now, done
