"""What to do where an accelerator's memory is too small."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

__all__ = ["halving", "release", "short_of_memory"]

T = TypeVar("T")
_SIGNS = ("out of memory", "alloc_failed")  # of libraries that have no class for it


def halving(run: Callable[[int], T], size: int) -> T:
    """``run(size)``, a batch size that changes no result: with half of it as long as the memory
    is too small. Raises PyTorch's error where one is too much."""
    while True:
        try:
            return run(size)
        except RuntimeError as error:
            if size == 1 or not short_of_memory(error):
                raise
        release()  # here, where the error holds none of it any more
        size //= 2


def short_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that the memory of an accelerator was too small."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(s in str(error).lower() for s in _SIGNS)


def release() -> None:
    """Give back what this process holds of a GPU and does not use, for others that share it."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        gc.collect()
        torch.cuda.empty_cache()
