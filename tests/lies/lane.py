"""A lane: a copy of the tree in which lies are told one after the other.

PyTorch and the like are imported once, in a process from which every run of pytest is forked: half
of what most runs would cost.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path

from tests.lies.lie import Lie

__all__ = ["ROOT", "Lane", "Verdict"]

ROOT = Path(__file__).parents[2]
_NEEDED = ("README.md", "CHANGELOG.md", "pyproject.toml", "mkdocs.yml", ".types")
_FOLDERS = (
    "allocator",
    "configs",
    "data",
    "distill",
    "docs",
    "edge",
    "end",
    "lab",
    "link",
    "tests",
)
_LIMIT_S = 3600.0  # also on a machine that is busy with something else
_BEFORE_THE_LIE = [  # what most tests import that is not ours
    "torch",
    "torchvision",
    "ultralytics.nn.tasks",
    "ultralytics.utils.nms",
    "pycocotools.cocoeval",
    "scipy.optimize",
    "scipy.special",
    "numba",
    "pydantic",
    "hypothesis.core",
    "hypothesis.extra.numpy",
    "hypothesis.strategies",
    "pytest",
    "PIL.Image",
    "cv2",
    "yaml",
    "safetensors.torch",
    "hotcoco",
    "cryptography.x509",
    "matplotlib.figure",
    "rich.progress",
]


@dataclass(frozen=True)
class Verdict:
    """What became of a lie: ``killed``, and ``by`` which test, or why it was not."""

    lie: Lie
    killed: bool
    by: str
    seconds: float


class Lane:
    """A copy of the tree; ``with Lane() as lane: lane.tried(lie)``."""

    def __enter__(self) -> Lane:
        self._place = Path(tempfile.mkdtemp(prefix="lie-"))
        self._tree = self._place / "tree"
        self._tree.mkdir()
        for name in _NEEDED:
            _copy(ROOT / name, self._tree / name)
        for name in _FOLDERS:  # compiled files too: what no lie touches need not be compiled again
            _copy(ROOT / name, self._tree / name)
        self._told = 0
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._place, ignore_errors=True)

    def truth(self, lies: Sequence[Lie]) -> str:
        """The first test that fails without any lie, or why none could run; empty if all pass."""
        tests = tuple(dict.fromkeys(test for lie in lies for test in lie.tests))
        failed, said = self._run(tests, limit_s=None)
        return said if failed or " passed" not in said else ""

    def tried(self, lie: Lie, first: str = "") -> Verdict:
        """Put ``lie`` into the copy, run the test ``first`` and then its tests there, and take it
        out again."""
        began, file = time.monotonic(), self._tree / lie.file
        true = file.read_text(encoding="utf-8") if file.is_file() else ""
        if true.count(lie.true) != 1:
            found = f"its text is {true.count(lie.true)} times in {lie.file}, not once"
            return Verdict(lie, False, found, 0.0)
        was = file.stat()
        try:
            file.write_text(true.replace(lie.true, lie.told), encoding="utf-8")
            self._told += 1  # a time of its own, or what was compiled from another lie is taken
            os.utime(file, (self._told, self._told))
            killed, by = self._run((first,)) if first else (False, "")
            if not killed:  # or that test is no longer there
                killed, by = self._run(lie.tests)
        finally:
            file.write_text(true, encoding="utf-8")
            os.utime(file, (was.st_atime, was.st_mtime))
        return Verdict(lie, killed, by, time.monotonic() - began)

    def _run(self, tests: tuple[str, ...], limit_s: float | None = _LIMIT_S) -> tuple[bool, str]:
        said = self._place / "said.txt"
        process = _context().Process(target=_pytest, args=(self._tree, tests, said))
        process.start()
        process.join(limit_s)
        if process.exitcode is None:
            assert process.pid is not None
            os.killpg(process.pid, signal.SIGKILL)
            process.join()
            return True, f"no end within {limit_s:.0f} s"
        lines = said.read_text(encoding="utf-8", errors="replace").splitlines()
        failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
        if process.exitcode == 1 and failed:
            return True, failed[0].split(" ")[1]
        return False, lines[-1] if lines else f"pytest ended with {process.exitcode}"


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target)


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_BEFORE_THE_LIE)
    return context


def _pytest(tree: Path, tests: tuple[str, ...], said: Path) -> None:
    """In a process of its own: the tests of ``tree``, until one fails."""
    os.setsid()
    out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.chdir(tree)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False  # what pytest rewrites is kept for the next run
    os.environ |= {"PYTHONPATH": str(tree / ".types"), "OMP_NUM_THREADS": "1"}
    sys.path[:] = [
        str(tree / ".types"),
        str(tree),
        *(p for p in sys.path if p not in ("", str(ROOT))),
    ]
    for name in [n for n in sys.modules if n.split(".")[0] == "tests"]:
        del sys.modules[name]
    import pytest

    import endedge.data

    assert Path(endedge.data.__file__).is_relative_to(tree), "these are not the tests of the copy"
    rewritten = "ignore::pytest.PytestAssertRewriteWarning"  # of what was imported before
    quiet = [
        "-W",
        rewritten,
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
        "-m",
        "not slow",
    ]
    sys.exit(int(pytest.main([*quiet, *tests])))
