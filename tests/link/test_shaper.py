"""The shaper over real sockets: every byte arrives once, in order, never too soon."""

from __future__ import annotations

import hashlib
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from endedge.link.channel import Capacity, Channel, DuplexLink
from endedge.link.shaper import LinkProxy

FAST = DuplexLink(Channel(Capacity.constant(200e6)), Channel(Capacity.constant(200e6)))


@contextmanager
def relayed(link: DuplexLink) -> Iterator[tuple[LinkProxy, socket.socket, socket.socket]]:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        LinkProxy(link, listener.getsockname()[:2]) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as device,
    ):
        listener.settimeout(10)
        edge, _ = listener.accept()
        with edge:
            edge.settimeout(10)
            yield proxy, device, edge


def read_all(end: socket.socket) -> bytes:
    data = bytearray()
    try:
        while piece := end.recv(65536):
            data += piece
    except ConnectionError:
        pass
    return bytes(data)


def test_bytes_arrive_once_in_order_both_ways() -> None:
    payload = random.Random(0).randbytes(700_000)
    with relayed(FAST) as (proxy, device, edge):
        got: dict[str, bytes] = {}
        readers = [
            threading.Thread(target=lambda: got.update(up=read_all(edge))),
            threading.Thread(target=lambda: got.update(down=read_all(device))),
        ]
        for reader in readers:
            reader.start()
        began_s = proxy.now_s()
        for k in range(0, len(payload), 100_000):
            device.sendall(payload[k : k + 100_000])
            edge.sendall(payload[k : k + 100_000])
        device.shutdown(socket.SHUT_WR)
        edge.shutdown(socket.SHUT_WR)
        for reader in readers:
            reader.join(20)
        took_s = proxy.now_s() - began_s
    assert hashlib.sha256(got["up"]).digest() == hashlib.sha256(payload).digest()
    assert got["down"] == payload
    assert proxy.passed_bytes("up") == proxy.passed_bytes("down") == len(payload)
    assert took_s >= 0.999 * FAST.up.transfer_time_s(len(payload))


@pytest.mark.parametrize("cut", [0, 1, 511, 512, 513, 65_537])
def test_cut_after_any_byte(cut: int) -> None:
    with relayed(FAST) as (proxy, device, edge):
        device.sendall(b"hello")
        assert edge.recv(5, socket.MSG_WAITALL) == b"hello"
        proxy.cut_after("up", cut)
        with suppress(ConnectionError):
            device.sendall(bytes(200_000))
        assert len(read_all(edge)) == cut
        assert read_all(device) == b""
        with socket.create_connection(("127.0.0.1", proxy.port)) as again:  # still in service
            again.sendall(b"x")


def test_cut_wakes_idle_connections() -> None:
    with relayed(FAST) as (proxy, device, edge):
        device.sendall(b"hello")
        assert edge.recv(5, socket.MSG_WAITALL) == b"hello"
        proxy.cut()
        assert read_all(edge) == read_all(device) == b""


def test_refused_target_closes_the_device_side() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = listener.getsockname()[:2]
    with (
        LinkProxy(FAST, target) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as device,
    ):
        assert read_all(device) == b""


def test_latency_and_outage_delay_a_byte() -> None:
    slow = Channel(Capacity.constant(1e6), latency_s=0.05, outages_s=((0.0, 0.2),))
    with relayed(DuplexLink(slow, slow)) as (proxy, device, edge):
        device.sendall(b"x")
        edge.recv(1)
        assert proxy.now_s() >= 0.25
