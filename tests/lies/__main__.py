"""Run the lies: ``python -m tests.lies [NAME …] [--new] [--jobs N] [--list]``.

Every lie is put alone into a copy of the tree, where its tests run until one fails. A lie is
*killed* when one does, and *survives* when all pass: then the tests would not notice if the project
lied so. The test that noticed the last time (docs/results/lies.md) is asked first. The tests run
without a lie first, for one that fails anyway would kill every lie. Exits with 1 where one survives
or can no longer be told (its text is gone from the code).
"""

from __future__ import annotations

import argparse
import re
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.lies.lane import ROOT, Lane, Verdict
from tests.lies.lie import Lie
from tests.lies.table import LIES

TABLE = ROOT / "docs/results/lies.md"


def main(argv: list[str] | None = None) -> int:
    """Parse, run, print a line a lie and the sum."""
    parser = argparse.ArgumentParser(prog="python -m tests.lies", description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of what --list says; default: all")
    parser.add_argument("--jobs", type=int, default=2, help="lies tried at the same time")
    parser.add_argument("--list", action="store_true", help="only say which there are")
    parser.add_argument("--new", action="store_true", help="only those that the last table lacks")
    parser.add_argument("--trust", action="store_true", help="do not run the tests without a lie")
    parser.add_argument(
        "--markdown",
        type=Path,
        help="write the table to this file, after each lie; of others it keeps what it says",
    )
    arguments = parser.parse_args(argv)
    names = arguments.names
    last = noticed(TABLE)
    chosen = [lie for lie in LIES if not names or any(name in _about(lie) for name in names)]
    if arguments.new:
        chosen = [lie for lie in chosen if lie.name not in last]
    if arguments.list:
        print(*map(_about, chosen), sep="\n")
        return 0
    began = time.monotonic()
    if not arguments.trust:
        with Lane() as lane:
            if wrong := lane.truth(chosen):
                print(f"{wrong} fails without any lie; mend it first")
                return 2
    verdicts = _all_tried(chosen, last, arguments.jobs, arguments.markdown)
    alive = [v.lie.name for v in verdicts if not v.killed]
    minutes = (time.monotonic() - began) / 60
    says = f"{len(verdicts)} lies in {minutes:.0f} min, {len(alive)} survived"
    print(": ".join([says, ", ".join(alive)]) if alive else says)
    return 1 if alive else 0


def _about(lie: Lie) -> str:
    return f"{lie.file}: {lie.name}: {lie.falsifies} ({' '.join(lie.tests)})"


def noticed(table: Path) -> dict[str, str]:
    """By the name of a lie: the test that noticed it, as the last ``table`` says."""
    text = table.read_text(encoding="utf-8") if table.is_file() else ""
    rows = re.findall(r"^\| (.+?) \| .+ \| `(.+)` \|$", text, re.M)
    return {name: f"tests/{by}" for name, by in rows}


def _all_tried(
    lies: Sequence[Lie], last: Mapping[str, str], jobs: int, table: Path | None
) -> list[Verdict]:
    """In ``jobs`` lanes, each printed and put into the ``table``; in the order of ``lies``."""
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
                verdict = found[at] = lane.tried(lie, last.get(lie.name, ""))
                word = "killed  " if verdict.killed else "SURVIVED"
                print(f"{word} {verdict.seconds:5.0f} s  {lie.name}: {verdict.by}", flush=True)
                if table is not None:
                    with lock:
                        _write(table, list(found.values()))

    with ThreadPoolExecutor(jobs) as lanes:
        for done in [lanes.submit(work) for _ in range(jobs)]:
            done.result()
    return [found[at] for at in sorted(found)]


def _write(table: Path, verdicts: Sequence[Verdict]) -> None:
    alive = [v.lie.name for v in verdicts if not v.killed]
    said = noticed(table) | {v.lie.name: v.by for v in verdicts if v.killed}
    text = markdown({name: by for name, by in said.items() if name not in alive}, alive)
    table.write_text(text, encoding="utf-8")


def markdown(killed: Mapping[str, str], alive: Sequence[str]) -> str:
    """The text of docs/results/lies.md: the test that noticed by the name of the lie, the names of
    those that none noticed; of all others it says that they are not told yet."""
    told = [lie for lie in LIES if lie.name in killed or lie.name in alive]
    some = f"{len(told) - len(alive)} of {len(told)}"
    lines = [
        "# Lies told to the tests",
        "",
        f"{some} deliberate lies make a test fail. Each was put alone into a",
        "copy of the code (`python -m tests.lies`, [how](../contributing.md#tell-a-lie)); the",
        "table says what it would falsify and the first test that noticed.",
    ]
    room = ""
    for lie in told:
        if lie.file.split("/")[0] != room:
            room = lie.file.split("/")[0]
            head = ["| lie | what it would falsify | noticed by |", "|---|---|---|"]
            lines += ["", f"## {room}", "", *head]
        by = "**nothing**" if lie.name in alive else f"`{killed[lie.name].removeprefix('tests/')}`"
        lines.append(f"| {lie.name} | {lie.falsifies} | {by} |")
    if untold := [lie.name for lie in LIES if lie not in told]:
        says = "Written down and not tried in their present form: "
        lines += ["", "## Not told yet", "", says + ", ".join(untold) + "."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
