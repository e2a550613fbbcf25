"""A sweep that is killed again and again, by two commands on one folder, against a calm one.

    python -m benchmarks.kills --out runs/kills [--kills 30] [--seed 0] [key=value …]

Tiny cells of the demo by default (seconds each). Two `endedge measure` commands work on one
folder; every few seconds one of them is killed with SIGKILL, workers too, and started again.
In the end the surface must be that of one undisturbed run in every figure but the seconds, and
no work may have been done twice but what a kill threw away. Prints the figures and writes
kills.json; exit status 1 if the surfaces differ.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from endedge.data.storage import write_atomic

SMALL = [
    "data.pool_frames=48",
    "data.eval_frames=12",
    "uplink.frames=[8,16,32,48]",
    "seeds=[0,1]",
    "teacher.steps=4",
    "student.steps=4",
    "downlink.budgets_bytes=[15000,30000,90000]",
    "workers=2",
]


def surface(folder: Path) -> list[dict[str, str]]:
    """Its rows without the columns of seconds."""
    with (folder / "surface.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in rows]


def start(folder: Path, config: str, overrides: list[str]) -> subprocess.Popen[bytes]:
    code = "from endedge.lab.cli.main import main; raise SystemExit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", code, "measure", config, "--out", str(folder), *overrides],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def kill(job: subprocess.Popen[bytes]) -> bool:
    """SIGKILL to the command and its workers; whether it still ran."""
    alive = job.poll() is None
    try:
        os.killpg(job.pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    job.wait()
    return alive


def nodes(folder: Path) -> int:
    return len(list((folder / "nodes").glob("*/record.json")))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", default="demo")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("overrides", nargs="*")
    arguments, rest = parser.parse_known_args()
    overrides = [*SMALL, *arguments.overrides, *rest]
    calm, killed = arguments.out / "calm", arguments.out / "killed"
    began = time.monotonic()
    if start(calm, arguments.config, overrides).wait():
        raise SystemExit("the undisturbed run failed; run the same command by hand to see why")
    calm_s = time.monotonic() - began
    total = nodes(calm)

    rng = random.Random(arguments.seed)
    began, kills, restarts, early = time.monotonic(), 0, 0, 0
    jobs = [start(killed, arguments.config, overrides) for _ in range(2)]
    while kills < arguments.kills:
        # Mostly long enough to get something done, at times in the middle of starting; all in all
        # about as long as the undisturbed run, and a start takes seconds.
        longest = max(25.0, 2 * calm_s / arguments.kills)
        time.sleep(rng.uniform(0.2, 1.0) if rng.random() < 0.2 else rng.uniform(2.0, longest))
        victim = rng.randrange(2)
        if kill(jobs[victim]):
            kills += 1
        else:
            early += 1
            if early > 2 * arguments.kills:
                break  # there is nothing left to disturb
        jobs[victim] = start(killed, arguments.config, overrides)
        restarts += 1
        print(f"kill {kills}: {nodes(killed)} of {total} nodes", flush=True)
    statuses = [job.wait() for job in jobs]
    if not all(status == 0 for status in statuses):
        raise SystemExit(f"the last two commands ended with {statuses}")
    same = surface(killed) == surface(calm)
    found = {
        "kills": kills,
        "restarts": restarts,
        "cells": len(surface(calm)),
        "nodes": total,
        "nodes_killed_run": nodes(killed),
        "same_surface": same,
        "litter": len([p for p in (killed / "nodes").iterdir() if p.name.startswith(".")]),
        "seconds_calm": round(calm_s, 1),
        "seconds_killed": round(time.monotonic() - began, 1),
    }
    for key, value in found.items():
        print(f"{key:18} {value}")
    write_atomic(arguments.out / "kills.json", json.dumps(found, indent=1).encode())
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
