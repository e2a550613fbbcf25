"""Transfer times over real loopback sockets against bytes / capacity, and trace replay.

    python benchmarks/link.py [--out link.json] [--longest 20]

Each row sends the bytes through the user-space shaper, up and down at the same time, and
compares the seconds from the first byte written to the last byte read with the link model
(the virtual clock). Rows that would take longer than ``--longest`` seconds are left out and
counted. Errors are reported, never asserted: a busy machine adds its own.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from endedge.data.link import Capacity, Channel, DuplexLink
from endedge.data.shaper import LinkProxy

SIZES_BYTES = (50_000, 200_000, 1_000_000, 5_000_000, 20_000_000)
RATES_MBIT_PER_S = (0.1, 1.0, 8.0, 50.0)


def both_ways(link: DuplexLink, n_bytes: int) -> dict[str, tuple[float, float]]:
    """Direction -> (measured, modelled) seconds for ``n_bytes`` each way, concurrently."""
    began: dict[str, float] = {}
    ended: dict[str, float] = {}
    payload = bytes(n_bytes)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        proxy = LinkProxy(link, listener.getsockname()[:2])
        device = socket.create_connection(("127.0.0.1", proxy.port))
        edge, _ = listener.accept()
        for source, sink in ((device, edge), (edge, device)):  # connection set up: not measured
            source.sendall(b"x")
            sink.recv(1)

        def send(direction: str, end: socket.socket) -> None:
            began[direction] = proxy.now_s()
            end.sendall(payload)

        def receive(direction: str, end: socket.socket) -> None:
            left = n_bytes
            while left:
                left -= len(end.recv(65536))
            ended[direction] = proxy.now_s()

        jobs: list[tuple[Callable[[str, socket.socket], None], str, socket.socket]] = [
            (receive, "up", edge),
            (receive, "down", device),
            (send, "up", device),
            (send, "down", edge),
        ]
        threads = [threading.Thread(target=job, args=rest) for job, *rest in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        device.close()
        edge.close()
        proxy.close()
    return {
        name: (ended[name] - began[name], channel.transfer_time_s(n_bytes, began[name]))
        for name, channel in (("up", link.up), ("down", link.down))
    }


def synthetic_trace(seed: int, seconds: int = 5, mean_mbit_per_s: float = 8.0) -> list[int]:
    """A bursty Mahimahi trace: the rate redrawn every 200 ms between 0.1 and 2.5 of the mean."""
    rng = random.Random(seed)
    times, per_ms = [], mean_mbit_per_s * 1e3 / 8 / 1500
    credit = 0.0
    for start_ms in range(0, seconds * 1000, 200):
        factor = rng.choice((0.1, 0.3, 1.0, 1.1, 2.5))
        for time_ms in range(start_ms + 1, start_ms + 201):
            credit += per_ms * factor
            while credit >= 1:
                times.append(time_ms)
                credit -= 1
    return [*times, seconds * 1000]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the rows as JSON here")
    parser.add_argument("--longest", type=float, default=20.0, help="seconds a row may take")
    parser.add_argument("--repeat", type=int, default=1)
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    left_out = 0

    def measure(name: str, link: DuplexLink, n_bytes: int) -> None:
        for direction, (measured_s, model_s) in both_ways(link, n_bytes).items():
            error = 100 * (measured_s / model_s - 1)
            rows.append(
                {
                    "link": name,
                    "direction": direction,
                    "bytes": n_bytes,
                    "measured_s": measured_s,
                    "model_s": model_s,
                    "error_percent": error,
                }
            )
            print(f"{name:>14} {direction:>5} {n_bytes:>10,d} {measured_s:9.4f} "
                  f"{model_s:9.4f} {error:+7.2f} %", flush=True)  # fmt: skip

    print(f"{'link':>14} {'way':>5} {'bytes':>10} {'seconds':>9} {'model':>9} {'error':>9}")
    began = time.monotonic()
    for _ in range(arguments.repeat):
        for rate in RATES_MBIT_PER_S:
            channel = Channel(Capacity.constant(rate * 1e6))
            for n_bytes in SIZES_BYTES:
                if channel.transfer_time_s(n_bytes) > arguments.longest:
                    left_out += 1
                    continue
                measure(f"{rate:g} Mbit/s", DuplexLink(channel, channel), n_bytes)
        for seed in (1, 2, 3):
            up, down = (
                Channel(Capacity.mahimahi(synthetic_trace(2 * seed + k)), 0.02, 0.01)
                for k in range(2)
            )
            measure(f"trace {seed}", DuplexLink(up, down), 4_000_000)
    worst = max(abs(float(str(row["error_percent"]))) for row in rows)
    print(f"worst error {worst:.2f} %, {left_out} rows left out, {time.monotonic() - began:.0f} s")
    if arguments.out:
        arguments.out.write_text(json.dumps({"rows": rows, "left_out": left_out}, indent=1))


if __name__ == "__main__":
    main()
