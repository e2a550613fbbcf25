"""An edge that is not the one a device knows."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from endedge.end.client.client import Device, DeviceConfig
from endedge.link import messages as m
from endedge.link.connection import Connection
from tests.edge.server.kit import edge_on, honest_round, install


def test_tampering_edge_cannot_touch_the_model(tmp_path: Path) -> None:
    """An impostor who even holds the channel: unsigned, replayed and altered packages."""

    async def run() -> None:
        async with edge_on(tmp_path) as edge:
            await honest_round(tmp_path, edge)
            keys, port = edge.keys, edge.port
        package = b"evil"
        digest = hashlib.sha256(package).digest()
        old = hashlib.sha256(b"frames" * 1000).digest()
        old_digest = hashlib.sha256(old).digest()
        signed = keys.sign_update("honest", 3, 4, digest)
        said: list[m.Message] = [
            m.Ready(3, 4, digest, bytes(64)),
            m.Ready(3, 4, digest, Ed25519PrivateKey.generate().sign(b"x")),
            m.Ready(3, 4, digest, keys.sign_update("other", 3, 4, digest)),
            m.Ready(3, 32, old_digest, keys.sign_update("honest", 1, 32, old_digest)),
            m.Ready(1, 32, old_digest, keys.sign_update("honest", 1, 32, old_digest)),
            m.Ready(3, 4, digest, signed),
        ]
        heard: list[m.Message] = []

        async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = Connection(reader, writer, heartbeat_s=60, idle_timeout_s=5)
            connection.start()
            with contextlib.suppress(ConnectionError):
                connection.post(m.Challenge(bytes(32), keys.public))
                await connection.receive()
                connection.post(m.Welcome(2, 2, 10**6, 10, 10**6))
                for message in said:
                    connection.post(message)
                    heard.append(await connection.receive())
                connection.post(m.Data(3, 0, b"EVIL"))  # not the bytes that were signed
                heard.append(await connection.receive())
            await connection.close()

        server = await asyncio.start_server(impostor, "127.0.0.1", port)
        config = DeviceConfig("honest", "127.0.0.1", port, tmp_path / "honest", retry_s=30)
        async with Device(config, install) as device:
            while len(heard) < 7:
                await asyncio.sleep(0.01)
            assert device.store.round_index == 2
            assert device.store.model is not None
            assert device.store.model.read_bytes() == old
        server.close()
        reasons = [getattr(message, "reason", "") for message in heard]
        assert [("signed" in r, "replay" in r) for r in reasons[:5]] == [(True, False)] * 4 + [
            (False, True)
        ]
        assert isinstance(heard[5], m.Fetch)
        assert "hash" in reasons[6]

    asyncio.run(run())
