"""Three device processes and a server process over shaped links, one of each killed."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from endedge.link.channel import Capacity, Channel

ROUNDS = 4
BATCH_BYTES, BUDGET_BYTES = 40_000, 30_000

COMMON = """
import hashlib, json, random, sys, time
from pathlib import Path
from endedge.link.channel import read_link
from endedge.edge.server.main import serve_main
from endedge.edge.server.service import Job, ServeConfig
from endedge.end.client.client import Capture, DeviceConfig
from endedge.end.client.main import device_main

def adapt(job):
    seed = f"{job.device_id} {job.round_index} {job.base_round} ".encode() + job.batch
    return random.Random(hashlib.sha256(seed).digest()).randbytes(job.budget_bytes)

def install(package, base, target):
    before = base.read_bytes() if base else b"base"
    target.write_bytes(hashlib.sha256(before + package).digest())

def slow_install(package, base, target):
    target.write_bytes(b"half")
    time.sleep(0.3)
    install(package, base, target)

def evaluate(model):
    return model.read_bytes()[0] / 255

folder, port, name, rounds = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])

def capture(round_index, model):
    if round_index > rounds:
        return None
    return Capture(random.Random(f"{name} {round_index}").randbytes(40_000), 5, 30_000)

LINK = {"up": {"capacity": "4 Mbit/s", "latency": 0.01, "jitter": 0.01},
        "down": {"capacity": "2 Mbit/s", "latency": 0.01}}
"""
SERVER = COMMON + "serve_main(ServeConfig(folder, port=port), adapt)"
DEVICE = COMMON + (
    "print(json.dumps([[o.round_index, o.status, o.map50_95] for o in device_main("
    "DeviceConfig(name, '127.0.0.1', port, folder / name, link=read_link(LINK), retry_s=0.05), "
    "capture, slow_install if name == 'cam-0' else install, evaluate)]))"
)


def simulated(name: str) -> tuple[bytes, list[float]]:
    """The same rounds on the virtual clock: same seeds, no sockets."""
    model, values, clock_s = b"base", [], 0.0
    up, down = Channel(Capacity.constant(4e6), 0.01, 0.01), Channel(Capacity.constant(2e6), 0.01)
    for k in range(1, ROUNDS + 1):
        batch = random.Random(f"{name} {k}").randbytes(BATCH_BYTES)
        clock_s += up.transfer_time_s(len(batch), clock_s)
        seed = f"{name} {k} {k - 1} ".encode() + batch
        package = random.Random(hashlib.sha256(seed).digest()).randbytes(BUDGET_BYTES)
        clock_s += down.transfer_time_s(len(package), clock_s)
        model = hashlib.sha256(model + package).digest()
        values.append(model[0] / 255)
    assert clock_s < 5
    return model, values


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_equal_the_simulation_and_survive_kills(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    processes = {"edge": start(SERVER, tmp_path / "edge", port, "edge", 0)}
    names = ["cam-0", "cam-1", "cam-2"]

    def killed(name: str) -> None:
        processes[name].kill()
        processes[name].communicate()

    try:
        for name in names:
            processes[name] = start(DEVICE, tmp_path, port, name, ROUNDS)
        half = tmp_path / "cam-0" / "models" / "new-model-00000002.safetensors"
        deadline_s = time.monotonic() + 30
        while not half.is_file() and time.monotonic() < deadline_s:
            time.sleep(0.005)
        assert half.is_file()
        killed("cam-0")  # while it applies round 2,
        killed("edge")  # and whatever the server is doing now
        processes["edge"] = start(SERVER, tmp_path / "edge", port, "edge", 0)
        processes["cam-0"] = start(DEVICE, tmp_path, port, "cam-0", ROUNDS)
        for name in names:
            out, _ = processes[name].communicate(timeout=60)
            assert processes[name].returncode == 0
            model, values = simulated(name)
            outcomes = json.loads(out)
            assert [o[0] for o in outcomes] == list(range(5 - len(outcomes), 5))
            assert [o[1] for o in outcomes] == ["applied"] * len(outcomes)
            assert [o[2] for o in outcomes] == values[-len(outcomes) :]
            current = json.loads((tmp_path / name / "models" / "current.json").read_text())
            file = tmp_path / name / "models" / current["file"]
            assert file.read_bytes() == model
            state = json.loads((tmp_path / "edge" / "devices" / name / "state.json").read_text())
            assert (state["batches"], state["frames"]) == (ROUNDS, 5 * ROUNDS)
            assert (state["applied_round"], state["missed"]) == (ROUNDS, 0)
        processes["edge"].send_signal(signal.SIGTERM)
        out, _ = processes["edge"].communicate(timeout=20)
        assert processes["edge"].returncode == 0
        assert "edge on 127.0.0.1" in out
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()
