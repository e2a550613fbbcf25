"""Run the lies: ``python -m tests.lies [NAME …] [--lanes N] [--markdown FILE]``.

Every lie is put alone into a copy of the tree, where its tests run. A lie is *killed* when one of
them fails, and *survives* when all pass: then the tests would not notice if the project lied so.
Exits with 1 where one survives or can no longer be told (its text is gone from the code).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lies.table import LIES, Lie

ROOT = Path(__file__).parents[2]
_LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "__pycache__", "runs", "site", ".*_cache")
_LIMIT_S = 900.0


@dataclass(frozen=True)
class Verdict:
    """What became of a lie: ``killed`` by the test ``by``, or why not."""

    lie: Lie
    killed: bool
    by: str
    seconds: float


def main(argv: list[str] | None = None) -> int:
    """Parse, run, print a line a lie and the sum."""
    parser = argparse.ArgumentParser(prog="python -m tests.lies", description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of names of lies; default: all")
    parser.add_argument("--lanes", type=int, default=2, help="lies tried at the same time")
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    arguments = parser.parse_args(argv)
    names = arguments.names
    chosen = [lie for lie in LIES if not names or any(name in lie.name for name in names)]
    verdicts = []
    with ThreadPoolExecutor(arguments.lanes) as lanes:
        for verdict in lanes.map(tried, chosen):
            word = "killed  " if verdict.killed else "SURVIVED"
            print(f"{word} {verdict.seconds:5.0f} s  {verdict.lie.name}: {verdict.by}", flush=True)
            verdicts.append(verdict)
    alive = [v.lie.name for v in verdicts if not v.killed]
    print(
        f"{len(verdicts)} lies, {len(alive)} survived" + (": " if alive else "") + ", ".join(alive)
    )
    if arguments.markdown is not None:
        arguments.markdown.write_text(markdown(verdicts), encoding="utf-8")
    return 1 if alive else 0


def tried(lie: Lie) -> Verdict:
    """Put ``lie`` into a copy of the tree and run its tests there."""
    began = time.monotonic()
    with copy_of_the_tree() as tree:
        file = tree / lie.file
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        if text.count(lie.true) != 1:
            reason = f"its text is {text.count(lie.true)} times in {lie.file}, not once"
            return Verdict(lie, False, reason, 0.0)
        file.write_text(text.replace(lie.true, lie.told), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        around = os.environ | {
            "PYTHONPATH": str(tree / ".types"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
        }
        try:
            run = subprocess.run(
                [*command, "-m", "not slow", *lie.tests],
                cwd=tree,
                env=around,
                capture_output=True,
                text=True,
                timeout=_LIMIT_S,
            )
        except subprocess.TimeoutExpired:
            return Verdict(lie, True, f"no end within {_LIMIT_S:.0f} s", time.monotonic() - began)
    seconds = time.monotonic() - began
    failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if run.returncode == 1 and failed:
        return Verdict(lie, True, failed[0].split(" ")[1], seconds)
    last = run.stdout.strip().splitlines()[-1:] or run.stderr.strip().splitlines()[-1:]
    return Verdict(lie, False, " ".join(last), seconds)


@contextmanager
def copy_of_the_tree() -> Iterator[Path]:
    """The tree in a folder of its own, links kept."""
    with tempfile.TemporaryDirectory(prefix="lie-") as place:
        tree = Path(place) / "tree"
        shutil.copytree(ROOT, tree, symlinks=True, ignore=_LEFT_OUT)
        yield tree


def markdown(verdicts: list[Verdict]) -> str:
    """The table of docs/results/lies.md."""
    killed = sum(v.killed for v in verdicts)
    lines = [
        "# Lies told to the tests",
        "",
        f"{killed} of {len(verdicts)} deliberate lies make a test fail. Each was put alone into a",
        "copy of the code (`python -m tests.lies`); the table says what it would falsify and the",
        "first test that noticed.",
        "",
        "| lie | what it would falsify | noticed by |",
        "|---|---|---|",
    ]
    lines += [
        f"| {v.lie.name} | {v.lie.falsifies} | {f'`{v.by}`' if v.killed else '**nothing**'} |"
        for v in verdicts
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
