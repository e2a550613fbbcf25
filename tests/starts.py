"""Processes of this project that are forked from one in which it is imported already.

A fresh interpreter imports PyTorch and the like for five seconds of processor time; here that is
paid once a session. For tests of what a process does (signals, limits, its exit status, what stands
on its terminal). What a start imports, and what its environment does to it, needs a fresh one.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

__all__ = ["ENDEDGE", "start"]

ENDEDGE = "from endedge.lab.cli.main import main; raise SystemExit(main())"

_IMPORTED = [
    "endedge.lab.cli.main",
    "endedge.lab.pipeline",
    "endedge.lab.report.page",
    "endedge.lab.sweep.executors",
    "endedge.end.export",
    "hotcoco",
    "matplotlib.figure",
    "numba",
    "pandas",
    "pycocotools.cocoeval",
    "ultralytics.nn.tasks",
]


def start(code: str, *words: object, folder: Path, said: Path) -> BaseProcess:
    """Run ``code`` as ``python -c CODE WORDS`` would, in ``folder`` and in a session of its own;
    standard output goes to the file ``said``, standard error to ``said`` with ``.err`` added."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    process = context.Process(target=_run, args=(code, list(map(str, words)), folder, said))
    process.start()
    return process


def _run(code: str, words: Sequence[str], folder: Path, said: Path) -> None:
    os.setsid()
    for descriptor, file in ((1, said), (2, said.with_name(said.name + ".err"))):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(folder)
    sys.argv = ["-c", *words]
    exec(code, {"__name__": "__main__"})
