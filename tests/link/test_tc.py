"""The recipe of docs/link.md: Linux ``tc`` between two network namespaces, where one may."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from endedge.link.channel import Capacity, Channel

RATE_MBIT = 8
PREFIX = f"ee{os.getpid() % 10000}"
EDGE, END = f"{PREFIX}edge", f"{PREFIX}end"
SEND = """
import socket, time
with socket.create_server(("10.99.7.1", 7070)) as server:
    print("ready", flush=True)
    peer, _ = server.accept()
    peer.sendall(bytes(1_000_000))
    peer.shutdown(socket.SHUT_WR)
    peer.recv(1)
"""
RECEIVE = """
import socket, time
with socket.create_connection(("10.99.7.1", 7070), timeout=20) as peer:
    began, left = None, 0
    while data := peer.recv(65536):
        began = began or time.monotonic()
        left += len(data)
    print(left, time.monotonic() - began)
"""


def sh(command: str) -> None:
    subprocess.run(command.split(), check=True, capture_output=True)


@pytest.fixture
def namespaces() -> Iterator[None]:
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("tc"):
        pytest.skip("network namespaces need root, ip and tc")
    shape = f"tbf rate {RATE_MBIT}mbit burst 16kb latency 400ms"
    try:
        for command in (
            f"ip netns add {EDGE}",
            f"ip netns add {END}",
            f"ip -n {EDGE} link add {PREFIX}a type veth peer name {PREFIX}b netns {END}",
            f"ip -n {EDGE} addr add 10.99.7.1/24 dev {PREFIX}a",
            f"ip -n {END} addr add 10.99.7.2/24 dev {PREFIX}b",
            f"ip -n {EDGE} link set {PREFIX}a up",
            f"ip -n {END} link set {PREFIX}b up",
            f"tc -n {EDGE} qdisc add dev {PREFIX}a root {shape}",
            f"tc -n {END} qdisc add dev {PREFIX}b root {shape}",
        ):
            try:
                sh(command)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"this kernel refuses '{command}': {error.stderr.decode().strip()}")
        yield
    finally:
        for name in (EDGE, END):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@pytest.mark.usefixtures("namespaces")
def test_kernel_link_is_as_thin_as_asked() -> None:
    inside = ["ip", "netns", "exec"]
    server = subprocess.Popen(
        [*inside, EDGE, sys.executable, "-c", SEND], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        client = subprocess.run(
            [*inside, END, sys.executable, "-c", RECEIVE],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    finally:
        server.kill()
        server.communicate()
    n_bytes, seconds = client.stdout.split()
    assert int(n_bytes) == 1_000_000
    model_s = Channel(Capacity.constant(RATE_MBIT * 1e6)).transfer_time_s(1_000_000)
    assert float(seconds) > 0.9 * model_s  # never faster; how much slower is the machine's
    print(f"tc {float(seconds):.3f} s, model without TCP/IP headers {model_s:.3f} s")
