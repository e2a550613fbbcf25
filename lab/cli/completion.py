"""Completion scripts for shells, made from the parser of the command line by shtab."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from endedge.data.errors import BadInput

__all__ = ["script"]

_FOLDERS = ("DIR",)
_FILES = ("FILE", "FILE.eeu", "FILE.py", "JSON")
_FILE_NAMES = ("config", "checkpoint", "package", "model", "base", "where", "bundle")


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script for ``bash``, ``zsh`` or ``fish``. Raises :class:`BadInput` without shtab."""
    try:
        import shtab
    except ImportError:
        raise BadInput("completion needs shtab: pip install 'endedge[completion]'") from None
    for action in _actions(parser):
        if action.metavar in _FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.metavar in _FILES or action.dest in _FILE_NAMES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in set(action.choices.values()):
                yield from _actions(sub)
        else:
            yield action
