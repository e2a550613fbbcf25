"""A lie: a substitution in the code that falsifies a figure without an error."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Lie"]


@dataclass(frozen=True)
class Lie:
    """``told`` in place of ``true``, which must stand exactly once in ``file``. ``falsifies``: one
    sentence of what would be wrong then; ``tests``: the files (or folders) whose tests are to
    notice, those that notice first named first."""

    name: str
    file: str
    true: str
    told: str
    falsifies: str
    tests: tuple[str, ...]
