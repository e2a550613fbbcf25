"""What long-running verbs say while they run: time, level, who, what; on stderr."""

from __future__ import annotations

import logging
import sys

from endedge.link.messages import printable

__all__ = ["log_to_stderr"]


class _Printed(logging.Handler):
    """To whatever stderr is just now (a live table replaces it), nothing that steers a terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        print(printable(self.format(record)), file=sys.stderr, flush=True)


def log_to_stderr(verbosity: int) -> None:
    """Show warnings of the project's loggers; from ``verbosity`` 1 on their information, from 2 on
    everything."""
    handler = _Printed()
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")
    )
    log = logging.getLogger("endedge")
    log.handlers = [handler]
    log.propagate = False
    log.setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[min(verbosity, 2)])
