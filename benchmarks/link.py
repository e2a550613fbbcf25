"""Transfer times over real loopback sockets against bytes / capacity, and trace replay.

    python -m benchmarks.link [--out link.json] [--longest 20]

Each row sends the bytes through the user-space shaper, up and down at the same time, and
compares the seconds from the first byte written to the last byte read with the link model
(the virtual clock). Short rows are repeated: the error is the median, its range follows. Rows
that would take longer than ``--longest`` seconds are left out and counted. Errors are reported,
never asserted: on a busy machine they are the scheduler's (``chrt -f 10 python ...``, as root,
takes it out).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import socket
import statistics
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

from endedge.link.channel import Capacity, Channel, DuplexLink
from endedge.link.shaper import LinkProxy

SIZES_BYTES = (50_000, 200_000, 1_000_000, 5_000_000, 20_000_000)
RATES_MBIT_PER_S = (0.1, 1.0, 8.0, 50.0)


def exchange(end: socket.socket, n_bytes: int) -> tuple[float, float]:
    """Send and receive ``n_bytes`` at once; when the sending began and the receiving ended."""
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as ours are
    for word in (b"x", b"y"):  # the connection is set up, the other end is there: not measured
        end.sendall(word)
        end.recv(1)
    payload = bytes(n_bytes)
    began_s = [0.0]

    def send() -> None:
        began_s[0] = time.monotonic()
        end.sendall(payload)

    sender = threading.Thread(target=send)
    sender.start()
    left = n_bytes
    while left:
        left -= len(end.recv(65536))
    ended_s = time.monotonic()
    sender.join()
    return began_s[0], ended_s


def far_end(listener: socket.socket, n_bytes: int, pipe: Connection) -> None:
    """The edge's end, in a process of its own as in life."""
    end, _ = listener.accept()
    pipe.send(exchange(end, n_bytes))
    pipe.recv()
    end.close()


def both_ways(link: DuplexLink, n_bytes: int) -> dict[str, tuple[float, float]]:
    """Direction -> (measured, modelled) seconds for ``n_bytes`` each way, concurrently."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = context.Process(target=far_end, args=(listener, n_bytes, there))
        far.start()
        with LinkProxy(link, listener.getsockname()[:2]) as proxy:
            epoch_s = time.monotonic() - proxy.now_s()
            with socket.create_connection(("127.0.0.1", proxy.port)) as device:
                up_began_s, down_ended_s = exchange(device, n_bytes)
                down_began_s, up_ended_s = here.recv()
                here.send(None)
                far.join()
    return {
        name: (ended_s - began_s, channel.transfer_time_s(n_bytes, began_s - epoch_s))
        for name, channel, began_s, ended_s in (
            ("up", link.up, up_began_s, up_ended_s),
            ("down", link.down, down_began_s, down_ended_s),
        )
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
    parser.add_argument(
        "--repeat-s",
        type=float,
        default=4.0,
        help="repeat a row for about this long, at most 25 times",
    )
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    left_out = 0

    def measure(name: str, link: DuplexLink, n_bytes: int) -> None:
        expected_s = link.up.transfer_time_s(n_bytes)
        times = min(max(int(arguments.repeat_s / expected_s), 1), 25)
        runs = [both_ways(link, n_bytes) for _ in range(times)]
        for direction in ("up", "down"):
            measured_s, model_s = (
                statistics.median(run[direction][k] for run in runs) for k in range(2)
            )
            errors = [100 * (run[direction][0] / run[direction][1] - 1) for run in runs]
            error = statistics.median(errors)
            rows.append(
                {
                    "link": name,
                    "direction": direction,
                    "bytes": n_bytes,
                    "runs": times,
                    "measured_s": measured_s,
                    "model_s": model_s,
                    "error_percent": error,
                    "least_error_percent": min(errors, key=abs),
                    "worst_error_percent": max(errors, key=abs),
                }
            )
            print(
                f"{name:>14} {direction:>5} {n_bytes:>10,d} {times:4d} {measured_s:9.4f} "
                f"{model_s:9.4f} {error:+7.2f} %  {min(errors):+7.2f} .. {max(errors):+.2f}",
                flush=True,
            )

    print(f"{'link':>14} {'way':>5} {'bytes':>10} runs {'seconds':>9} {'model':>9} {'error':>9}")
    began = time.monotonic()
    for rate in RATES_MBIT_PER_S:
        channel = Channel(Capacity.constant(rate * 1e6))
        for n_bytes in SIZES_BYTES:
            if channel.transfer_time_s(n_bytes) > arguments.longest:
                left_out += 1
                continue
            measure(f"{rate:g} Mbit/s", DuplexLink(channel, channel), n_bytes)
    for seed in (1, 2, 3):
        up, down = (
            Channel(Capacity.mahimahi(synthetic_trace(2 * seed + k)), 0.02, 0.01) for k in range(2)
        )
        measure(f"trace {seed}", DuplexLink(up, down), 4_000_000)
    worst = max(abs(float(str(row["error_percent"]))) for row in rows)
    print(f"worst error {worst:.2f} %, {left_out} rows left out, {time.monotonic() - began:.0f} s")
    if arguments.out:
        arguments.out.write_text(json.dumps({"rows": rows, "left_out": left_out}, indent=1))


if __name__ == "__main__":
    main()
