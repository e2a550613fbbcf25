"""What a transport adds on a thin link: bytes on the wire for one batch, by library.

    pip install pyzmq websockets grpcio
    python -m benchmarks.transport

Each row opens a fresh connection with the library's own security, sends 50 kB up in 16 KiB
messages, gets one short answer, and closes; the bytes are counted between the two ends, in
both directions, handshakes included (TCP/IP headers not). ``MB/s`` is the rate of a longer
run of 64 MB without the counter.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from endedge.edge.server.keys import create_keys
from endedge.link.channel import Capacity, Channel, DuplexLink
from endedge.link.connection import Connection
from endedge.link.messages import CHUNK_BYTES, Data, Stored
from endedge.link.shaper import LinkProxy

SMALL_BYTES, LARGE_BYTES = 50_000, 64_000_000
WIDE = Channel(Capacity.constant(1e9))
Row = tuple[int, int, float]


def pieces(n_bytes: int) -> Iterator[bytes]:
    for start in range(0, n_bytes, CHUNK_BYTES):
        yield bytes(min(CHUNK_BYTES, n_bytes - start))


def counted(port: int, send: Callable[[int, int], None]) -> Row:
    """Wire bytes of the small run through the counting relay, MB/s of the large one."""
    with LinkProxy(DuplexLink(WIDE, WIDE), ("127.0.0.1", port)) as proxy:
        send(proxy.port, SMALL_BYTES)
        time.sleep(0.5)
        up, down = proxy.passed_bytes("up"), proxy.passed_bytes("down")
    began_s = time.monotonic()
    send(port, LARGE_BYTES)
    return up, down, LARGE_BYTES / (time.monotonic() - began_s) / 1e6


def trusting(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificate)
    return context


def in_background(
    serve: Callable[[asyncio.Event, list[int]], Any],
) -> tuple[int, Callable[[], None]]:
    """Run an asyncio server in a thread; its port and how to stop it."""
    ports: list[int] = []
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve(stop, ports)))
    thread.start()
    while not ports:
        time.sleep(0.01)

    def end() -> None:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()

    return ports[0], end


def ours(folder: Path) -> Row:
    keys = create_keys(folder)

    def of(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Connection:
        connection = Connection(reader, writer, heartbeat_s=60, idle_timeout_s=60)
        connection.start()
        return connection

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = of(reader, writer)
        while isinstance(data := await connection.receive(), Data):
            if len(data.payload) < CHUNK_BYTES:
                connection.post(Stored(1))
                break
        with contextlib.suppress(ConnectionError):
            await connection.receive()
        await connection.close()

    async def serve(stop: asyncio.Event, ports: list[int]) -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=keys.tls())
        ports.append(server.sockets[0].getsockname()[1])
        await stop.wait()
        server.close()
        await asyncio.sleep(0.2)

    async def send(port: int, n_bytes: int) -> None:
        connection = of(
            *await asyncio.open_connection("127.0.0.1", port, ssl=trusting(folder / "tls.pem"))
        )
        connection.stream(Data(1, 0, piece) for piece in pieces(n_bytes))
        await connection.receive()
        await connection.close()

    port, end = in_background(serve)
    row = counted(port, lambda p, n: asyncio.run(send(p, n)))
    end()
    return row


def with_websockets(folder: Path) -> Row:
    connect: Any = importlib.import_module("websockets.asyncio.client").connect
    listen: Any = importlib.import_module("websockets.asyncio.server").serve
    keys = create_keys(folder)

    async def answer(connection: Any) -> None:
        async for piece in connection:
            if len(piece) < CHUNK_BYTES:
                await connection.send(b"stored")

    async def serve(stop: asyncio.Event, ports: list[int]) -> None:
        async with listen(answer, "127.0.0.1", 0, ssl=keys.tls(), compression=None) as server:
            ports.append(next(iter(server.sockets)).getsockname()[1])
            await stop.wait()

    async def send(port: int, n_bytes: int) -> None:
        uri = f"wss://localhost:{port}"
        context = trusting(folder / "tls.pem")
        async with connect(uri, ssl=context, compression=None) as connection:
            for piece in pieces(n_bytes):
                await connection.send(piece)
            await connection.recv()

    port, end = in_background(serve)
    row = counted(port, lambda p, n: asyncio.run(send(p, n)))
    end()
    return row


def with_zmq(folder: Path) -> Row:
    zmq: Any = importlib.import_module("zmq")
    public, secret = zmq.curve_keypair()
    context = zmq.Context()
    server = context.socket(zmq.ROUTER)
    server.curve_server, server.curve_secretkey, server.curve_publickey = True, secret, public
    port = server.bind_to_random_port("tcp://127.0.0.1")

    def serve() -> None:
        for _ in range(2):
            while True:
                peer, piece = server.recv_multipart()
                if len(piece) < CHUNK_BYTES:
                    server.send_multipart([peer, b"stored"])
                    break

    def send(port: int, n_bytes: int) -> None:
        socket = context.socket(zmq.DEALER)
        socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        socket.curve_serverkey = public
        socket.connect(f"tcp://127.0.0.1:{port}")
        for piece in pieces(n_bytes):
            socket.send(piece)
        socket.recv()
        socket.close()

    thread = threading.Thread(target=serve)
    thread.start()
    row = counted(port, send)
    thread.join()
    server.close()
    context.term()
    return row


def with_grpc(folder: Path) -> Row:
    grpc: Any = importlib.import_module("grpc")
    create_keys(folder)
    certificate, key = (folder / "tls.pem").read_bytes(), (folder / "tls.key").read_bytes()

    def answer(stream: Iterator[bytes], _: Any) -> bytes:
        for _piece in stream:
            pass
        return b"stored"

    server = grpc.server(ThreadPoolExecutor(2))
    method = grpc.stream_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("e", {"up": method}),))
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(key, certificate)]))
    server.start()

    def send(port: int, n_bytes: int) -> None:
        credentials = grpc.ssl_channel_credentials(certificate)
        with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
            channel.stream_unary("/e/up")(pieces(n_bytes))

    row = counted(port, send)
    server.stop(0).wait()
    return row


def main() -> None:
    contenders = (
        ("asyncio streams + TLS 1.3 (ours)", "asyncio", ours),
        ("websockets + TLS 1.3", "websockets", with_websockets),
        ("pyzmq + CURVE", "zmq", with_zmq),
        ("gRPC + TLS", "grpc", with_grpc),
    )
    print(f"{'transport':34s} {'up':>8} {'down':>8} {'overhead':>9} {'MB/s':>7}")
    for name, module, measure in contenders:
        if importlib.util.find_spec(module) is None:
            print(f"{name:34s} not installed")
            continue
        with tempfile.TemporaryDirectory() as folder:
            up, down, rate = measure(Path(folder) / "keys")
        overhead = 100 * ((up + down) / SMALL_BYTES - 1)
        print(f"{name:34s} {up:8d} {down:8d} {overhead:+8.2f} % {rate:7.0f}")


if __name__ == "__main__":
    main()
