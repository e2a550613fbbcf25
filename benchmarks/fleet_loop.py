"""Four of the demo's devices on one band in the closed loop: predicted gains against measured ones.

    python -m benchmarks.fleet_loop --out runs/fleet-loop          # hours on one core; resumes
    python -m benchmarks.fleet_loop --out runs/fleet-loop --dry    # checks, and what is predicted

Every device has another day. ``equal`` gives each an equal slot of the air, ``adaptive`` one price
to all. Predicted: the same two on the curves of the demo's table, whose band is the loop's air.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from endedge.allocator import FleetDevice, allocate_fleet, best_split
from endedge.lab.benchmark.headroom import Contrast
from endedge.lab.benchmark.table import Table
from endedge.lab.config import Config, load_config, loop_of
from endedge.lab.inputs import Inputs
from endedge.lab.loop.policies import Air
from endedge.lab.loop.policy_run import PolicyRun
from endedge.lab.loop.summary import loop_stage
from endedge.lab.store import Store

_PLACES = ("dusk", "haze", "soft")


def config_of(days: int, hz: float) -> Config:
    """The demo's loop with four cameras that visit the places in other orders."""
    visits = []
    for k in range(4):
        order = [_PLACES[(k + i // 2) % 3] for i in range(0, days, 2)]
        visits.append([{"domain": place, "periods": 2} for place in order])
        visits[-1][-1]["periods"] = 3  # the first period is only captured
    text = str(visits).replace("'", "")
    changes = ["seeds=[0,1]", "loop.policies=[equal,adaptive,no-update]", f"loop.days={text}"]
    return load_config("demo-loop", [*changes, f"loop.bandwidth_hz={hz:g}"])


def predicted(air: Air) -> float:
    """Points that one price gains over equal slots, by the demo's curves."""
    joint = Table.load("demo").whole().joint
    device = FleetDevice(joint, air.upload, air.update, 1.0, 1.0 / air.up_s, 1.0 / air.down_s)
    shared = allocate_fleet([device] * air.devices, air.room_s, period_s=8.0)
    alone = joint.m0 if air.slot.reason else best_split(joint, air.slot)[2]
    return 100 * (shared.objective / air.devices - max(alone, joint.m0))


def measured(folder: Path) -> Contrast:
    """mAP of ``adaptive`` less that of ``equal``, paired over seeds."""
    with (folder / "rounds.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    seeds = sorted({r["seed"] for r in rows})

    def mean(policy: str, seed: str) -> float:
        mine = [float(r["map"]) for r in rows if (r["policy"], r["seed"]) == (policy, seed)]
        return float(np.mean(mine))

    return Contrast.of(np.array([mean("adaptive", s) - mean("equal", s) for s in seeds]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--days", type=int, default=10, help="periods, an even number")
    parser.add_argument("--bandwidth", type=float, default=24e3, help="Hz of all four")
    parser.add_argument("--dry", action="store_true")
    a = parser.parse_args()
    config = config_of(a.days, a.bandwidth)
    loop = loop_of(config)
    first = PolicyRun(Inputs.of(config, a.out), Store(a.out), "equal", 0, None)
    print(f"{len(loop.policies)} policies, {len(config.seeds)} seeds, {loop.rounds} rounds")
    print(f"predicted: {predicted(first.air):.2f} points for one price over equal slots")
    if a.dry:
        return
    print(loop_stage(config, a.out, None, lambda done, total, says: print(done, total, says)))
    print(f"measured: {measured(a.out).text} points (adaptive less equal)")


if __name__ == "__main__":
    main()
