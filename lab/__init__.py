"""Experiments: surface measurement, closed loop, benchmark, report, command line.

From Python: :func:`measure`, :func:`bench`, :func:`run` and :func:`load` (see
:mod:`endedge.lab.api`), imported when first used, for they bring in PyTorch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from endedge.lab.api import bench, load, measure, run

__all__ = ["bench", "load", "measure", "run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from endedge.lab import api

    return getattr(api, name)
