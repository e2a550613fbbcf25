"""Policies of the user's own, from a Python file."""

from __future__ import annotations

import runpy
from pathlib import Path

from endedge.allocator import registry
from endedge.data.errors import BadInput

__all__ = ["own_policies"]


def own_policies(file: Path) -> list[str]:
    """Run a Python file of the user's that registers policies; their names.

    Raises :class:`BadInput` when it is not there, does not run, or registers none.
    """
    before = set(registry())
    try:
        runpy.run_path(str(file))
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{file} does not run: {type(error).__name__}: {error}") from None
    mine = [name for name in registry() if name not in before]
    if not mine:
        raise BadInput(f'{file} registers no policy; decorate one with @register("its-name")')
    return mine
