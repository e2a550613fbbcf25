"""The two errors that every folder shares."""

from __future__ import annotations

__all__ = ["BadInput", "Unfinished"]


class BadInput(ValueError):  # noqa: N818  (it names what the user gave, not a state of ours)
    """Input from outside (config, file, package, argument) that cannot be used.

    The message is one line: what is wrong, where, and what would be right. The command line
    prints it without a traceback and exits with status 2.
    """


class Unfinished(RuntimeError):  # noqa: N818
    """A part of the work failed and the rest is done and kept; the message says which and why.

    The command line prints it without a traceback and exits with status 1.
    """
