"""Run the lies: ``python -m tests.lies [NAME …] [--jobs N] [--list] [--markdown FILE]``.

Every lie is put alone into a copy of the tree, where its tests run until one fails. A lie is
*killed* when one does, and *survives* when all pass: then the tests would not notice if the project
lied so. The tests run without a lie first, for one that fails anyway would kill every lie. Exits
with 1 where one survives or can no longer be told (its text is gone from the code).
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.lies.lane import Lane, Verdict
from tests.lies.lie import Lie
from tests.lies.table import LIES


def main(argv: list[str] | None = None) -> int:
    """Parse, run, print a line a lie and the sum."""
    parser = argparse.ArgumentParser(prog="python -m tests.lies", description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of what --list says; default: all")
    parser.add_argument("--jobs", type=int, default=2, help="lies tried at the same time")
    parser.add_argument("--list", action="store_true", help="only say which there are")
    parser.add_argument("--trust", action="store_true", help="do not run the tests without a lie")
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    arguments = parser.parse_args(argv)
    names = arguments.names
    chosen = [lie for lie in LIES if not names or any(name in _about(lie) for name in names)]
    if arguments.list:
        print(*map(_about, chosen), sep="\n")
        return 0
    began = time.monotonic()
    if not arguments.trust:
        with Lane() as lane:
            if wrong := lane.truth(chosen):
                print(f"{wrong} fails without any lie; mend it first")
                return 2
    verdicts = _all_tried(chosen, arguments.jobs)
    alive = [v.lie.name for v in verdicts if not v.killed]
    minutes = (time.monotonic() - began) / 60
    says = f"{len(verdicts)} lies in {minutes:.0f} min, {len(alive)} survived"
    print(": ".join([says, ", ".join(alive)]) if alive else says)
    if arguments.markdown is not None:
        arguments.markdown.write_text(markdown(verdicts), encoding="utf-8")
    return 1 if alive else 0


def _about(lie: Lie) -> str:
    return f"{lie.file}: {lie.name}: {lie.falsifies} ({' '.join(lie.tests)})"


def _all_tried(lies: Sequence[Lie], jobs: int) -> list[Verdict]:
    """In ``jobs`` lanes, a line printed for each; in the order of ``lies``."""
    waiting = list(enumerate(lies))[::-1]
    found: dict[int, Verdict] = {}
    lock = threading.Lock()

    def work() -> None:
        with Lane() as lane:
            while True:
                with lock:
                    if not waiting:
                        return
                    at, lie = waiting.pop()
                verdict = found[at] = lane.tried(lie)
                word = "killed  " if verdict.killed else "SURVIVED"
                print(f"{word} {verdict.seconds:5.0f} s  {lie.name}: {verdict.by}", flush=True)

    with ThreadPoolExecutor(jobs) as lanes:
        for done in [lanes.submit(work) for _ in range(jobs)]:
            done.result()
    return [found[at] for at in sorted(found)]


def markdown(verdicts: Sequence[Verdict]) -> str:
    """The text of docs/results/lies.md."""
    killed = sum(v.killed for v in verdicts)
    lines = [
        "# Lies told to the tests",
        "",
        f"{killed} of {len(verdicts)} deliberate lies make a test fail. Each was put alone into a",
        "copy of the code (`python -m tests.lies`, [how](../contributing.md#tell-a-lie)); the",
        "table says what it would falsify and the first test that noticed.",
    ]
    room = ""
    for v in verdicts:
        if v.lie.file.split("/")[0] != room:
            room = v.lie.file.split("/")[0]
            head = ["| lie | what it would falsify | noticed by |", "|---|---|---|"]
            lines += ["", f"## {room}", "", *head]
        by = f"`{v.by.removeprefix('tests/')}`" if v.killed else "**nothing**"
        lines.append(f"| {v.lie.name} | {v.lie.falsifies} | {by} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
