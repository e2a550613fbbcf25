"""What a worker sees of GPUs. Apart from the tests, for a worker imports the module of its task."""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["mask_here"]


def mask_here(folder: Path, workers: int) -> str:
    """This worker's mask, once as many ``workers`` are at it: each gets one task then."""
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < workers:
        time.sleep(0.02)
    return os.environ.get("CUDA_VISIBLE_DEVICES", "")
