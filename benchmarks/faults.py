"""Fault campaign: random faults against a running edge and its devices, then the books.

    python -m benchmarks.faults [--faults 240] [--seed 1] [--seconds 900] [--hostile]

Server and devices are processes, TLS and tokens on; every device has its own shaped link.
Each fault has a seed of its own (printed), drawn from: a connection cut after a random byte
(up or down), server killed and restarted, device killed and restarted (with another clock), a
full disk for a while on either side, a stretch of duplicated and reordered chunks. Afterwards
the links heal, the devices finish, and the ledgers must show: every batch that was captured
is stored once, byte for byte; every model is exactly the one that the applied rounds give.
``--hostile``: the company of ``hostile.py`` beside them.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import logging
import multiprocessing
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import hostile  # type: ignore[import-not-found]  # beside this script

import endedge.edge.server.session
import endedge.end.client.client
from endedge.data.errors import BadInput
from endedge.edge.server.journal import DeviceRounds
from endedge.edge.server.keys import create_keys, issue_bundle, load_keys
from endedge.edge.server.main import serve_main
from endedge.edge.server.service import Job, ServeConfig
from endedge.end.client.apply import ModelStore
from endedge.end.client.client import Capture, DeviceConfig
from endedge.end.client.main import device_main
from endedge.link.channel import Capacity, Channel, DuplexLink
from endedge.link.connection import file_chunks
from endedge.link.messages import Data
from endedge.link.shaper import LinkProxy

FRAMES, BUDGET_BYTES = 5, 40_000
KINDS = (
    "cut up",
    "cut down",
    "kill edge",
    "kill device",
    "edge disk full",
    "device disk full",
    "duplicate and reorder",
)
WEIGHTS = (6, 6, 2, 3, 1, 1, 2)
LINK = Channel(Capacity.constant(4e6), latency_s=0.005, jitter_s=0.005)


def batch_of(name: str, round_index: int) -> bytes:
    dice = random.Random(f"{name} {round_index}")
    return dice.randbytes(dice.randrange(20_000, 90_000))


def package_of(name: str, round_index: int, base_round: int, batch: bytes) -> bytes:
    seed = f"{name} {round_index} {base_round} ".encode() + hashlib.sha256(batch).digest()
    return random.Random(seed).randbytes(BUDGET_BYTES)


def next_model(model: bytes, package: bytes) -> bytes:
    return hashlib.sha256(model + package).digest() * 500


def adapt(job: Job) -> bytes:
    if job.batch != batch_of(job.device_id, job.round_index):
        raise BadInput("batch is not what the device captured")
    time.sleep(0.05)
    return package_of(job.device_id, job.round_index, job.base_round, job.batch)


def install(package: bytes, base: Path | None, target: Path) -> None:
    model = next_model(base.read_bytes() if base else b"base", package)
    target.write_bytes(model[:1000])
    time.sleep(0.05)  # half written for a while
    target.write_bytes(model)


def fails_while(flag: Path, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        if flag.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments, **named)

    return call


def shuffled_while(flag: Path) -> Callable[[Path, int, int], Iterator[Data]]:
    """``file_chunks``, but some chunks come twice and some change places while ``flag`` exists."""

    def chunks(path: Path, round_index: int, offset: int) -> Iterator[Data]:
        dice, held = random.Random(), None
        for chunk in file_chunks(path, round_index, offset):
            if flag.exists() and held is None and dice.random() < 0.3:
                held = chunk
                continue
            yield chunk
            if flag.exists() and dice.random() < 0.3:
                yield chunk
            if held is not None:
                yield held
                held = None
        if held is not None:
            yield held

    return chunks


def run_edge(folder: Path, port: int) -> None:
    sys.stdout = sys.stderr = open(folder / "edge.log", "a")  # noqa: SIM115
    for name in ("append", "finish", "save_package", "_save"):
        real = getattr(DeviceRounds, name)
        setattr(DeviceRounds, name, fails_while(folder / "edge disk full", real))
    endedge.edge.server.session.file_chunks = shuffled_while(folder / "shuffle")  # type: ignore[attr-defined,assignment]
    serve_main(
        ServeConfig(
            folder / "edge", port=port, secure=True, workers=2, heartbeat_s=0.5, idle_timeout_s=5
        ),
        hostile.processes(adapt, 2),
    )


def run_device(folder: Path, name: str, port: int, skew_s: float) -> None:
    logging.getLogger("endedge.device").setLevel(logging.ERROR)  # cuts are what this is about
    real_time = time.time
    time.time = lambda: real_time() + skew_s
    ModelStore.apply = fails_while(  # type: ignore[method-assign]
        folder / "device disk full", ModelStore.apply
    )
    endedge.end.client.client.file_chunks = shuffled_while(folder / "shuffle")  # type: ignore[attr-defined,assignment]

    def capture(round_index: int, model: Path | None) -> Capture | None:
        if (folder / "stop").exists():
            return None
        return Capture(batch_of(name, round_index), FRAMES, BUDGET_BYTES)

    bundle = folder / "edge" / "keys" / "bundles" / f"{name}.json"
    config = DeviceConfig(
        name,
        "127.0.0.1",
        port,
        folder / name,
        bundle=bundle,
        retry_s=0.05,
        heartbeat_s=0.5,
        idle_timeout_s=5,
    )
    device_main(config, capture, install)


class Campaign:
    """The processes under test, and the faults."""

    def __init__(self, folder: Path, devices: int) -> None:
        self.folder = folder
        self.names = [f"cam-{k}" for k in range(devices)]
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        keys = create_keys(folder / "edge" / "keys")
        for name in (*self.names, *hostile.NAMES):
            issue_bundle(keys, name)
        link = DuplexLink(LINK, LINK)
        self.proxies = {name: LinkProxy(link, ("127.0.0.1", self.port)) for name in self.names}
        self._spawn = multiprocessing.get_context("spawn").Process
        self.edge = self.start_edge()
        self.devices = {name: self.start_device(name, 0.0) for name in self.names}
        self.crashes = 0

    def start_edge(self) -> BaseProcess:
        process = self._spawn(target=run_edge, args=(self.folder, self.port))
        process.start()
        return process

    def start_device(self, name: str, skew_s: float) -> BaseProcess:
        arguments = (self.folder, name, self.proxies[name].port, skew_s)
        process = self._spawn(target=run_device, args=arguments)
        process.start()
        return process

    def revive(self) -> None:
        """Nothing may die by itself: that is counted, and repaired so that the run goes on."""
        if not self.edge.is_alive():
            self.crashes += 1
            self.edge = self.start_edge()
        for name, process in self.devices.items():
            if not process.is_alive():
                self.crashes += 1
                self.devices[name] = self.start_device(name, 0.0)

    def fault(self, seed: str) -> str:
        dice = random.Random(seed)
        kind = dice.choices(KINDS, WEIGHTS)[0]
        name = dice.choice(self.names)
        detail = ""
        if kind.startswith("cut"):
            n_bytes = dice.randrange(0, 80_000)
            detail = f"{name} after {n_bytes} bytes"
            self.proxies[name].cut_after("up" if kind == "cut up" else "down", n_bytes)
        elif kind == "kill edge":
            self.edge.kill()
            self.edge.join()
            time.sleep(dice.uniform(0, 0.2))
            self.edge = self.start_edge()
        elif kind == "kill device":
            skew_s = dice.uniform(-3e8, 3e8)
            detail = f"{name}, clock then {skew_s / 86400:+.0f} days off"
            self.devices[name].kill()
            self.devices[name].join()
            self.devices[name] = self.start_device(name, skew_s)
        else:
            flag = self.folder / ("shuffle" if kind == "duplicate and reorder" else kind)
            flag.touch()
            time.sleep(dice.uniform(0.1, 0.6))
            flag.unlink()
        self.recover(within_s=4.0)
        time.sleep(dice.uniform(0, 0.4))
        return f"{kind:22s} {detail}"

    def progress(self) -> int:
        """Batches stored and updates applied so far, over all devices."""
        total = 0
        for name in self.names:
            path = self.folder / "edge" / "devices" / name / "state.json"
            if not path.is_file():
                continue
            state = json.loads(path.read_text())
            total += state["stored_round"] + state["applied_round"]
        return total

    def recover(self, within_s: float) -> None:
        """Wait until something got through, so that faults do not only meet dead processes."""
        before, deadline_s = self.progress(), time.monotonic() + within_s
        while self.progress() == before and time.monotonic() < deadline_s:
            time.sleep(0.02)

    def finish(self, within_s: float) -> bool:
        """Heal, let the devices come to an end; False if they do not."""
        (self.folder / "stop").touch()
        deadline_s = time.monotonic() + within_s
        for process in self.devices.values():
            process.join(max(0.0, deadline_s - time.monotonic()))
        ended = all(process.exitcode == 0 for process in self.devices.values())
        self.edge.terminate()
        self.edge.join(10)
        for process in (self.edge, *self.devices.values()):
            process.kill()
        for proxy in self.proxies.values():
            proxy.close()
        return ended

    def audit(self) -> dict[str, int]:
        """Compare what devices captured with what the edge stored and what they run now."""
        wrong: Counter[str] = Counter()
        load_keys(self.folder / "edge" / "keys")
        for name in self.names:
            state = DeviceRounds(self.folder / "edge" / "devices" / name).state
            captured = int((self.folder / name / "spool" / "last_round").read_text())
            sizes = [len(batch_of(name, k)) for k in range(1, captured + 1)]
            wrong["rounds"] += captured
            wrong["frames lost or doubled"] += abs(state.frames - FRAMES * captured)
            wrong["bytes lost or doubled"] += abs(state.upload_bytes - sum(sizes))
            wrong["rounds missed"] += state.missed
            store = ModelStore(self.folder / name / "models")
            model, base = b"base", 0
            if state.missed == 0:  # then every round was applied on top of the one before
                for k in range(1, captured + 1):
                    model = next_model(model, package_of(name, k, base, batch_of(name, k)))
                    base = k
                right = store.model is not None and store.model.read_bytes() == model
                wrong["corrupt models"] += not right
            wrong["rounds open"] += captured - store.round_index
        lines = (self.folder / "edge" / "audit.jsonl").read_text().splitlines()
        events = Counter(json.loads(line)["event"] for line in lines)
        return dict(wrong) | {f"event {k}": n for k, n in sorted(events.items())}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--faults", type=int, default=240)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--devices", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=900, help="stop injecting after this")
    parser.add_argument("--hostile", action="store_true", help="hostile devices and idle sockets")
    parser.add_argument("--out", type=Path, help="write the counts as JSON here")
    arguments = parser.parse_args()
    counts: Counter[str] = Counter()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), arguments.devices)
        campaign.recover(within_s=60)
        roles = ["company", "probe"] if arguments.hostile else []
        others = hostile.Company(Path(folder), campaign.port, arguments.seconds, roles)
        for k in range(arguments.faults):
            if time.monotonic() - began > arguments.seconds:
                break
            seed = f"{arguments.seed}/{k}"
            what = campaign.fault(seed)
            campaign.revive()
            counts[what[:22].strip()] += 1
            print(f"{time.monotonic() - began:7.1f} s  seed {seed:8s} {what}", flush=True)
        with others:
            heard = others.results()
        ended = campaign.finish(120)
        result = campaign.audit() | {
            "devices ended by themselves": int(ended),
            "unexpected deaths": campaign.crashes,
        }
        result |= heard
    for name, number in (*counts.items(), *result.items()):
        print(f"{number:10g}  {name}")
    print(f"{sum(counts.values())} faults in {time.monotonic() - began:.0f} s")
    if arguments.out:
        arguments.out.write_text(json.dumps({"faults": counts, "result": result}, indent=1))
    bad = (
        "frames lost or doubled",
        "bytes lost or doubled",
        "corrupt models",
        "rounds open",
        "unexpected deaths",
    )
    return int(any(result[name] for name in bad) or not ended)


if __name__ == "__main__":
    sys.exit(main())
