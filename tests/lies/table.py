"""All lies, folder by folder of the code. A new capability adds its own there, with its code."""

from __future__ import annotations

from tests.lies import (
    about_allocator,
    about_benchmark,
    about_data,
    about_distill,
    about_edge,
    about_end,
    about_import,
    about_link,
    about_loop,
    about_rounds,
    about_server,
    about_students,
    about_surface,
    about_sweep,
)
from tests.lies.lie import Lie

__all__ = ["LIES"]

LIES: list[Lie] = [
    *about_data.LIES,
    *about_import.LIES,
    *about_link.LIES,
    *about_distill.LIES,
    *about_end.LIES,
    *about_edge.LIES,
    *about_server.LIES,
    *about_students.LIES,
    *about_surface.LIES,
    *about_sweep.LIES,
    *about_rounds.LIES,
    *about_loop.LIES,
    *about_benchmark.LIES,
    *about_allocator.LIES,
]
