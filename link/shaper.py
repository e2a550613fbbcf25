"""The link as a relay: real sockets, passing bytes when the link model says so.

``LinkProxy`` listens on 127.0.0.1, connects to the real peer and carries bytes both ways
through the :class:`~endedge.link.channel.Channel` of each direction. Both ends run unchanged
(TLS included: what is counted and delayed is what crosses the wire), and a connection can
be cut after any byte. It works in user space, without privileges, on any kernel.

Each direction is a token bucket whose tokens follow the capacity curve. Pacing is by
absolute time: a late wake-up delays one piece, never the rate. Threads rather than asyncio,
because epoll rounds its timeouts up to a millisecond: 12 % of 50 kB at 50 Mbit/s.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections import deque
from types import TracebackType
from typing import Literal

from endedge.link.channel import Bottleneck, DuplexLink

__all__ = ["Direction", "LinkProxy"]

Direction = Literal["up", "down"]

_PIECE_S = 0.004  # capacity is spent in pieces of about this length,
_PIECE_BYTES = (512, 65536)  # within these sizes
_SPIN_S = 0.00015  # the last stretch of a wait is spun: timers wake 50 to 100 us late
_CREDIT_S = 0.25  # how late a wake-up may be and still spend the capacity it slept through
_IN_FLIGHT_BYTES = 8 * 2**20  # sent but not yet arrived (latency x capacity): bounded
_RECEIVE_BUFFER_BYTES = 128 * 1024  # so that the sender feels the bottleneck soon
_MAX_CONNECTIONS = 256


class LinkProxy:
    """Relay from ``127.0.0.1:port`` to ``target`` through ``link``.

    Device-side bytes go ``up``. All connections share the two bottlenecks, as radios of one
    cell would. Time 0 of the link (traces, outages, jitter) is the construction. Use it as a
    context manager, or :meth:`close` it.
    """

    def __init__(self, link: DuplexLink, target: tuple[str, int]) -> None:
        self._target = target
        self._bottleneck: dict[Direction, Bottleneck] = {
            "up": Bottleneck(link.up),
            "down": Bottleneck(link.down),
        }
        self._lock = threading.Lock()
        self._passed: dict[Direction, int] = {"up": 0, "down": 0}
        self._cut_at: dict[Direction, int | None] = {"up": None, "down": None}
        self._open: set[_Pair] = set()
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        self.port: int = self._listener.getsockname()[1]
        self._epoch_s = time.monotonic()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def __enter__(self) -> LinkProxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def now_s(self) -> float:
        """Seconds on the link's own clock."""
        return time.monotonic() - self._epoch_s

    def passed_bytes(self, direction: Direction) -> int:
        """Bytes handed to the receiver so far, TLS and framing included."""
        with self._lock:
            return self._passed[direction]

    def cut(self) -> None:
        """Break every connection now, as a lost radio link would (reset, in-flight bytes lost)."""
        with self._lock:
            pairs = list(self._open)
        for pair in pairs:
            pair.reset()

    def cut_after(self, direction: Direction, n_bytes: int) -> None:
        """Break the connection once ``n_bytes`` more have been handed over in ``direction``."""
        with self._lock:
            self._cut_at[direction] = self._passed[direction] + n_bytes

    def close(self) -> None:
        """Stop listening and break what is open."""
        self._closed = True
        with contextlib.suppress(OSError):  # wakes the acceptor
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()
        with self._lock:
            pairs = list(self._open)
        for pair in pairs:
            pair.reset()
            pair.join()

    def _accept(self) -> None:
        while not self._closed:
            try:
                device, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                full = len(self._open) >= _MAX_CONNECTIONS
            edge = socket.socket()
            edge.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            try:
                if full:
                    raise OSError("too many connections")
                edge.connect(self._target)
            except OSError:
                device.close()
                edge.close()
                continue
            for end in (device, edge):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = _Pair(self, device, edge)
            with self._lock:
                self._open.add(pair)
            pair.start()

    def _done(self, pair: _Pair) -> None:
        with self._lock:
            self._open.discard(pair)

    def _reserve(self, direction: Direction, n_bytes: int, ready_s: float) -> float:
        with self._lock:
            return self._bottleneck[direction].reserve(n_bytes, ready_s)

    def _busy_until_s(self, direction: Direction) -> float:
        return self._bottleneck[direction].busy_until_s

    def _piece_bytes(self, direction: Direction, now_s: float) -> int:
        capacity = self._bottleneck[direction].channel.capacity
        fits = int(capacity.at(now_s + _PIECE_S) - capacity.at(now_s))
        return min(max(fits, _PIECE_BYTES[0]), _PIECE_BYTES[1])

    def _hand_over(self, direction: Direction, sink: socket.socket, data: bytes) -> bool:
        """Send ``data`` on; False when this is where the connection is to be cut."""
        with self._lock:
            cut_at = self._cut_at[direction]
            cut = cut_at is not None and self._passed[direction] + len(data) >= cut_at
            if cut_at is not None and cut:
                data = data[: cut_at - self._passed[direction]]
                self._cut_at[direction] = None
            self._passed[direction] += len(data)
        sink.sendall(data)
        return not cut


class _Pair:
    """The two sockets of one relayed connection, and a thread for each direction."""

    def __init__(self, proxy: LinkProxy, device: socket.socket, edge: socket.socket) -> None:
        self._proxy = proxy
        self._sockets = (device, edge)
        self._left = 2
        self._lock = threading.Lock()
        self._threads = (
            threading.Thread(target=self._run, args=("up", device, edge), daemon=True),
            threading.Thread(target=self._run, args=("down", edge, device), daemon=True),
        )

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def reset(self) -> None:
        """Wake both threads with an error; the sockets close with a reset, not an end."""
        with self._lock:
            for end in self._sockets:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.shutdown(socket.SHUT_RDWR)

    def _run(self, direction: Direction, source: socket.socket, sink: socket.socket) -> None:
        try:
            if self._pump(direction, source, sink):
                sink.shutdown(socket.SHUT_WR)  # the sender's end of stream, passed on
            else:
                self.reset()
        except OSError:
            self.reset()
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            for end in self._sockets:
                end.close()
            self._proxy._done(self)

    def _pump(self, direction: Direction, source: socket.socket, sink: socket.socket) -> bool:
        """Carry bytes until the source ends (True) or the connection is to be cut (False)."""
        proxy = self._proxy
        flight: deque[tuple[float, bytes]] = deque()
        in_flight_bytes, ended, was_pacing = 0, False, False
        while flight or not ended:
            now_s = proxy.now_s()
            while flight and flight[0][0] <= now_s:
                data = flight.popleft()[1]
                in_flight_bytes -= len(data)
                if not proxy._hand_over(direction, sink, data):
                    return False
            wake_s = flight[0][0] if flight else None
            listen = False
            if not ended and in_flight_bytes < _IN_FLIGHT_BYTES:
                free_s = proxy._busy_until_s(direction)
                if now_s < free_s:  # pacing: what waits in the socket is ready when it is free
                    wake_s = min(free_s, wake_s if wake_s is not None else free_s)
                    was_pacing = True
                else:
                    try:
                        data = source.recv(
                            proxy._piece_bytes(direction, now_s), socket.MSG_DONTWAIT
                        )
                    except BlockingIOError:
                        listen, was_pacing = True, False
                    else:
                        ended = not data
                        if data:
                            ready_s = now_s - _CREDIT_S if was_pacing else now_s
                            due_s = proxy._reserve(direction, len(data), ready_s)
                            flight.append((due_s, data))
                            in_flight_bytes += len(data)
                        continue
            wait_s = None if wake_s is None else max(wake_s - proxy.now_s() - _SPIN_S, 0.0)
            if listen or wait_s is not None:
                select.select([source] if listen else [], [], [], wait_s)
        return True
