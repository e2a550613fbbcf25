"""Soak: many devices on one edge for a while; memory and descriptors of the server over time.

    python -m benchmarks.soak [--devices 20] [--minutes 10] [--hostile] [--out soak.json]

The server is a process of its own, TLS and tokens on. The devices run in this process, each
through a shaped link of its own; a connection is cut at random every ``--cut-every`` seconds.
Every ten seconds a line shows the server's resident memory, its descriptors and threads; at the
end the medians of the first and the last third are compared, and the log of events with what the
devices did. ``--hostile``: the company of ``hostile.py`` beside them.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import logging
import multiprocessing
import random
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import hostile  # type: ignore[import-not-found]  # beside this script

from endedge.edge.server.journal import DeviceRounds
from endedge.edge.server.keys import create_keys, issue_bundle
from endedge.edge.server.main import serve_main
from endedge.edge.server.service import Job, ServeConfig
from endedge.end.client.client import Capture, Device, DeviceConfig
from endedge.link.channel import Capacity, Channel, DuplexLink
from endedge.link.shaper import LinkProxy

BATCH_BYTES, FRAMES, BUDGET_BYTES, PERIOD_S = 120_000, 8, 80_000, 3.0


def adapt(job: Job) -> bytes:
    return hashlib.sha256(job.batch).digest() * (job.budget_bytes // 32)


def install(package: bytes, base: Path | None, target: Path) -> None:
    target.write_bytes(package)


def run_edge(folder: Path, port: int) -> None:
    sys.stdout = sys.stderr = open(folder / "edge.log", "a")  # noqa: SIM115
    config = ServeConfig(folder / "edge", port=port, secure=True, heartbeat_s=2, workers=2)
    serve_main(config, hostile.processes(adapt, config.workers))


def usage(pid: int) -> tuple[float, int, int]:
    """Resident MiB, descriptors, threads of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return int(fields["VmRSS"].split()[0]) / 1024, descriptors, int(fields["Threads"])


async def one_device(config: DeviceConfig, until_s: float, seed: int) -> int:
    dice = random.Random(seed)
    async with Device(config, install, lambda model: 0.5) as device:
        await asyncio.sleep(dice.uniform(0, PERIOD_S))
        while time.monotonic() < until_s:
            began_s = time.monotonic()
            batch = dice.randbytes(BATCH_BYTES)
            outcome = await device.outcome(device.submit(Capture(batch, FRAMES, BUDGET_BYTES)))
            assert outcome.status == "applied", outcome
            await asyncio.sleep(max(0.0, began_s + PERIOD_S - time.monotonic()))
        await asyncio.wait_for(device.settled(), 60)
        return device.spool.last_round


async def soak(
    folder: Path, port: int, pid: int, devices: int, seconds: float, cut_every_s: float
) -> dict[str, object]:
    link = Channel(Capacity.constant(4e6), latency_s=0.01, jitter_s=0.01)
    names = [f"cam-{k:02d}" for k in range(devices)]
    proxies = {n: LinkProxy(DuplexLink(link, link), ("127.0.0.1", port)) for n in names}
    began_s = time.monotonic()
    running = [
        asyncio.create_task(
            one_device(
                DeviceConfig(
                    name,
                    "127.0.0.1",
                    proxy.port,
                    folder / name,
                    heartbeat_s=2,
                    retry_s=0.2,
                    bundle=folder / "edge" / "keys" / "bundles" / f"{name}.json",
                ),
                began_s + seconds,
                k,
            )
        )
        for k, (name, proxy) in enumerate(proxies.items())
    ]
    dice, cuts = random.Random(0), 0
    samples: list[tuple[float, float, int, int]] = []
    while not all(task.done() for task in running):
        await asyncio.sleep(cut_every_s)
        now_s = time.monotonic() - began_s
        if now_s < seconds:
            dice.choice(list(proxies.values())).cut()
            cuts += 1
        if now_s >= 10 * (len(samples) + 1):
            samples.append((now_s, *usage(pid)))
            megabytes = sum(p.passed_bytes("up") + p.passed_bytes("down") for p in proxies.values())
            print(
                "{:6.0f} s  {:6.1f} MiB  {:4d} descriptors  {:3d} threads".format(*samples[-1]),
                f" {megabytes / 1e6:8.1f} MB on the links",
                flush=True,
            )
    rounds = [task.result() for task in running]
    await asyncio.sleep(3)
    idle = usage(pid)
    for proxy in proxies.values():
        await asyncio.to_thread(proxy.close)
    events = [
        json.loads(line)
        for path in (folder / "edge").glob("audit.jsonl*")
        for line in path.read_text().splitlines()
    ]
    wanted = ("stored", "adapting", "adapted", "applied")
    noted = {k: sum(e["event"] == k and e["device"] in names for e in events) for k in wanted}
    states = [DeviceRounds(folder / "edge" / "devices" / name).state for name in names]
    third = max(len(samples) // 3, 1)

    def medians(rows: Sequence[tuple[float, ...]]) -> list[float]:
        return [statistics.median(column) for column in zip(*rows, strict=True)][1:]

    return {
        "devices": devices,
        "seconds": time.monotonic() - began_s,
        "rounds": sum(rounds),
        "connections cut": cuts,
        "events missing in the log": {k: sum(rounds) - n for k, n in noted.items()},
        "lines in the log": len(events),
        "most MiB": max(sample[1] for sample in samples),
        "rounds missed": sum(state.missed for state in states),
        "frames lost or doubled": sum(
            abs(state.frames - FRAMES * n) for state, n in zip(states, rounds, strict=True)
        ),
        "first third: MiB, descriptors, threads": medians(samples[:third]),
        "last third: MiB, descriptors, threads": medians(samples[-third:]),
        "devices gone: MiB, descriptors, threads": idle,
        "samples": samples,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--cut-every", type=float, default=1.0, help="seconds between cuts")
    parser.add_argument("--hostile", action="store_true", help="hostile devices and idle sockets")
    parser.add_argument("--out", type=Path, help="write the result as JSON here")
    arguments = parser.parse_args()
    logging.getLogger("endedge.device").setLevel(logging.ERROR)  # cuts are what this is about
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keys = create_keys(folder / "edge" / "keys")
        for k in range(arguments.devices):
            issue_bundle(keys, f"cam-{k:02d}")
        for device_id in hostile.NAMES:
            issue_bundle(keys, device_id)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        edge = multiprocessing.get_context("spawn").Process(target=run_edge, args=(folder, port))
        edge.start()
        assert edge.pid is not None
        try:
            log = folder / "edge.log"
            while edge.is_alive() and not (log.is_file() and "edge on" in log.read_text()):
                time.sleep(0.1)  # until it listens
            roles = ["company", "probe"] if arguments.hostile else ["probe"]
            with hostile.Company(folder, port, 60 * arguments.minutes, roles) as others:
                result = asyncio.run(
                    soak(
                        folder,
                        port,
                        edge.pid,
                        arguments.devices,
                        60 * arguments.minutes,
                        arguments.cut_every,
                    )
                )
                result |= others.results()
        finally:
            edge.terminate()
            edge.join(10)
    for key, value in result.items():
        if key != "samples":
            print(f"{key}: {value}")
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
