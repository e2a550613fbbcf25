"""The closed loop over real sockets against the simulated one: hashes and mAP, round by round.

    python -m benchmarks.loop_processes [--rounds 4] [--devices 3] [--steps 24] [--out FILE]

Plays the demo loop with real trainings twice from the same seeds: on the virtual clock, and as an
edge process and one process a device, each behind a shaped link of its own (4 Mbit/s up, 2 down,
10 ms, jitter). Every model that a device ran and every mAP it measured must be equal to the
last bit; exit status 1 if one is not.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import socket
import sys
import tempfile
import time
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import torch

from endedge.data.storage import write_atomic
from endedge.distill.model import load_detector, model_hash
from endedge.edge.server.service import ServeConfig
from endedge.end.client.client import DeviceConfig, Outcome
from endedge.lab.config import Config, load_config
from endedge.lab.inputs import Inputs
from endedge.lab.loop import sockets as remote
from endedge.lab.loop.loop import play
from endedge.lab.loop.policy_run import PolicyRun, Row
from endedge.lab.store import Store

DAYS = (("dusk", "haze"), ("soft", "dusk"), ("haze", "soft"))
POLICY = "equal"


def plan(rounds: int, devices: int, steps: int) -> Config:
    """The demo loop with ``devices`` days of ``rounds`` rounds in two domains each."""
    half = (rounds + 1) // 2
    days = [
        [{"domain": one, "periods": half}, {"domain": two, "periods": rounds + 1 - half}]
        for one, two in (DAYS[i % len(DAYS)] for i in range(devices))
    ]
    link = {"capacity": "4 Mbit/s", "latency": 0.01, "jitter": 0.01}
    overrides = {
        "loop.days": days,
        "loop.policies": [POLICY],
        "loop.bandwidth_hz": 8000 * devices,
        "loop.deadline_s": 60,
        "loop.edge_s": 2,
        "loop.eval_frames": 40,
        "loop.monitor_frames": 20,
        "teacher.steps": steps,
        "student.steps": steps,
        "device": "cpu",
        "link.up": link,
        "link.down": link | {"capacity": "2 Mbit/s"},
    }
    return load_config("demo-loop", [f"{k}={json.dumps(v)}" for k, v in overrides.items()])


def run_edge(config: Config, folder: Path, port: int) -> None:
    sys.stdout = open(folder / "edge.log", "a")  # noqa: SIM115
    remote.serve(config, ServeConfig(folder / "edge", port=port))


def run_device(config: Config, folder: Path, port: int, number: int, said: Queue[Any]) -> None:
    """One device; says (number, round, status, model hash, mAP) of each round."""
    mine = folder / f"cam-{number}"

    def hear(outcome: Outcome) -> None:
        current = mine / "models" / "current.json"
        digest = ""
        if current.is_file():
            model = mine / "models" / json.loads(current.read_text())["file"]
            digest = model_hash(load_detector(model))
        said.put((number, outcome.round_index, outcome.status, digest, outcome.map50_95))

    device = DeviceConfig(f"cam-{number}", "127.0.0.1", port, mine, retry_s=0.1)
    remote.day(config, device, number=number, policy=POLICY, on_outcome=hear)


def over_sockets(config: Config, folder: Path, devices: int, rounds: int) -> dict[Any, Any]:
    """(device, round) -> (status, model hash, mAP), by real processes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    said: Queue[Any] = context.Queue()
    edge = context.Process(target=run_edge, args=(config, folder, port))
    cams = [
        context.Process(target=run_device, args=(config, folder, port, i, said))
        for i in range(devices)
    ]
    for process in (edge, *cams):
        process.start()
    heard: dict[Any, Any] = {}
    try:
        while len(heard) < devices * rounds:
            number, k, *rest = said.get(timeout=3600)
            heard[number, k] = tuple(rest)
            print(f"sockets: device {number}, round {k}: {rest[0]}, mAP {rest[2]:.4f}", flush=True)
    finally:
        for process in (*cams, edge):
            process.terminate()
            process.join(20)
    return heard


def compare(rows: list[Row], heard: dict[Any, Any]) -> list[dict[str, Any]]:
    """One row a device and round; a round without an update keeps its model on both sides."""
    table = []
    for row in rows:
        status, digest, value = heard[row["device"], row["round"]]
        applied = status == "applied"
        same = bool(row["applied"]) == applied
        if applied:
            same = same and digest == row["model_after"] and value == row["map_after"]
        table.append(
            {
                "device": row["device"],
                "round": row["round"],
                "domain": row["domain"],
                "simulated": row["model_after"][:16],
                "sockets": digest[:16],
                "simulated_map": row["map_after"],
                "sockets_map": value,
                "equal": same,
            }
        )
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--devices", type=int, default=3)
    parser.add_argument("--steps", type=int, default=24, help="of each training")
    parser.add_argument("--out", type=Path, help="write the table as JSON here")
    o = parser.parse_args()
    torch.set_num_threads(1)
    config = plan(o.rounds, o.devices, o.steps)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = PolicyRun(Inputs.of(config, folder), Store(folder / "loop"), POLICY, 0, None)
        rows = play(run, lambda message: print(message, flush=True))
        table = compare(rows, over_sockets(config, folder, o.devices, o.rounds))
    print("device round domain  simulated        sockets          mAP      mAP      equal")
    for t in table:
        maps = f"{t['simulated_map']:8.5f} {t['sockets_map']:8.5f}"
        print(
            f"{t['device']:6} {t['round']:5} {t['domain']:7} {t['simulated']:16} "
            f"{t['sockets']:16} {maps}  {t['equal']}"
        )
    right = sum(t["equal"] for t in table)
    print(f"{right} of {len(table)} rounds equal, {time.monotonic() - began:.0f} s")
    if o.out:
        write_atomic(o.out, json.dumps(table, indent=1).encode())
    return 0 if right == len(table) else 1


if __name__ == "__main__":
    sys.exit(main())
