"""Experiments: surface measurement, closed loop, benchmark, report, command line.

From Python: :func:`measure`, :func:`bench`, :func:`run` and :func:`load` (see
:mod:`endedge.lab.api`), imported when first used, for they bring in PyTorch; :func:`score` of
policies on a :class:`Table` needs none.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from endedge.lab.api import bench, load, measure, run
    from endedge.lab.benchmark.score import score
    from endedge.lab.benchmark.table import Table

__all__ = ["Table", "bench", "load", "measure", "run", "score"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "Table":
        from endedge.lab.benchmark.table import Table

        return Table
    if name == "score":
        from endedge.lab.benchmark.score import score

        return score
    from endedge.lab import api

    return getattr(api, name)
