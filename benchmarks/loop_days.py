"""Real days of the closed loop, one a seed, and chains of updates in one place.

    python -m benchmarks.loop_days days --out runs/days --seeds 20
    python -m benchmarks.loop_days chain --out runs/chain --updates 30
    python -m benchmarks.loop_days days --out runs/tiny --seeds 1 --tiny

``days``: every policy through the same day of `demo-day`, with another seed of frames and trainings
each time; the differences from the first policy, paired by day. ``chain``: one place, one split, an
update on top of the one before; does what an update gains follow the share of what is left (the
law of the adaptive policy and of the replay's world ``shared``), or does it stop at a level
(``levels``)? Both are fitted to the first half of the chain and judged on the second.

Hours of CPU on one core. Every round is kept in DIR, so a killed command goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from endedge.data.errors import BadInput
from endedge.lab.benchmark.headroom import Contrast
from endedge.lab.config import Config, load_config
from endedge.lab.loop.loop import run

POLICIES = ("static-0.7@0.4", "adaptive", "no-update")
TINY = [
    "data.pool_frames=48",
    "data.eval_frames=24",
    "loop.eval_frames=12",
    "loop.monitor_frames=12",
    "loop.frames_per_period=12",
    "teacher.steps=2",
    "student.steps=2",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("what", choices=("days", "chain"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--policies", default=",".join(POLICIES), help="the first is compared with")
    parser.add_argument("--tiny", action="store_true", help="a dry run: two rounds, two steps")
    parser.add_argument("changes", nargs="*", metavar="key=value")
    a = parser.parse_intermixed_args()
    found = days(a) if a.what == "days" else chain(a)
    a.out.mkdir(parents=True, exist_ok=True)
    (a.out / f"{a.what}.json").write_text(json.dumps(found, indent=1))
    print(json.dumps(found, indent=1))


def config_of(a: argparse.Namespace, names: Sequence[str], extra: Sequence[str]) -> Config:
    tiny = [*TINY, "loop.days=[[{domain: dusk, periods: 3}]]"] if a.tiny else []
    named = f"loop.policies=[{', '.join(names)}]"
    return load_config("demo-day", ["workers=1", named, *extra, *tiny, *a.changes])


def played(a: argparse.Namespace, config: Config) -> list[dict[str, Any]]:
    def say(done: int, total: int, message: str) -> None:
        print(f"[{done}/{total}] {message}", flush=True)

    rows = run(config, a.out, say, None)
    with (a.out / "rounds.csv").open("a", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        writer.writerows(rows)
    return rows


def days(a: argparse.Namespace) -> dict[str, Any]:
    """By policy: the mean of the days, and how far it is ahead of the first one."""
    names = a.policies.split(",")
    a.out.mkdir(parents=True, exist_ok=True)
    (a.out / "rounds.csv").unlink(missing_ok=True)
    score: dict[str, list[float]] = {name: [] for name in names}
    for seed in range(a.seeds):
        rows = played(a, config_of(a, names, [f"seeds=[{seed}]", f"data.seed={seed}"]))
        for name in names:
            score[name].append(float(np.mean([r["map"] for r in rows if r["policy"] == name])))
    first, found = np.array(score[names[0]]), {}
    for name, values in score.items():
        over = Contrast.of(np.array(values) - first)
        found[name] = {
            "map": float(np.mean(values)),
            "over_first": over.mean,
            "half_95": None if a.seeds < 2 or name == names[0] else over.half(0.95),
            "days": len(values),
        }
    return found


def chain(a: argparse.Namespace) -> dict[str, Any]:
    """An update after the other in one place, on a band that does not vary."""
    a.out.mkdir(parents=True, exist_ok=True)
    (a.out / "rounds.csv").unlink(missing_ok=True)
    periods = a.updates + 1
    place = [
        f"loop.days=[[{{domain: dusk, periods: {periods}}}]]",
        f"data.pool_frames={24 * periods}",
        "loop.trace=null",
    ]
    rows = played(a, config_of(a, ["static-0.6"], place))
    return {"rows": len(rows), **laws([(r["map_before"], r["map_after"]) for r in rows])}


def laws(pairs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Fit both laws to the first half of a chain of (before, after), mAP; their errors (RMSE) on
    the second half, beside that of "nothing changes"."""
    if len(pairs) < 4:
        return {"note": "a chain of fewer than four updates says nothing"}
    half = len(pairs) // 2
    before, after = (np.array(side) for side in zip(*pairs, strict=True))
    tops = np.linspace(before.min(), 1.0, 400)
    shares = np.linspace(0.0, 1.0, 101)

    def share(top: float, rate: float, b: Any) -> Any:
        return b + rate * (top - b)

    def error(predicted: Any, rows: slice) -> float:
        return float(np.sqrt(np.mean((predicted - after[rows]) ** 2)))

    fit, test = slice(0, half), slice(half, None)
    top, rate = min(
        itertools.product(tops, shares), key=lambda p: error(share(p[0], p[1], before[fit]), fit)
    )
    level = min(tops, key=lambda t: error(np.full(half, t), fit))
    return {
        "share": {"ceiling": float(top), "rate": float(rate)},
        "rmse": {
            "share": error(share(top, rate, before[test]), test),
            "level": error(np.full(len(before) - half, level), test),
            "nothing": error(before[test], test),
        },
        "map": [float(before[0]), *after.tolist()],
    }


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        raise SystemExit(str(error)) from None
