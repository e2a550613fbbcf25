"""Loops that NumPy cannot vectorize, compiled when first used and kept on disk from then on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

__all__ = ["compiled"]

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """``function`` as machine code (Numba; no fast-math, so that +, -, *, / and sqrt stay correctly
    rounded IEEE operations and are never contracted).

    The code is kept beside the source or, where that cannot be written, in the user's cache
    folder; a machine that lets us write nowhere compiles once a process (some seconds).
    """
    try:
        result: F = numba.njit(cache=True, error_model="numpy")(function)
    except RuntimeError:  # no folder for the cache
        result = numba.njit(error_model="numpy")(function)
    return result
