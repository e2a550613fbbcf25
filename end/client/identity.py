"""Who a device is, and which edge it knows: its own key, the pinned edge, the bundle."""

from __future__ import annotations

import json
import ssl
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from endedge.data.errors import BadInput
from endedge.data.storage import write_atomic
from endedge.link.messages import Challenge, Enrol, Hello, hello_statement

__all__ = ["Identity"]


class Identity:
    """The device's own key and what it knows of its edge."""

    def __init__(self, device_id: str, folder: Path, bundle: Path | None) -> None:
        self.device_id = device_id
        self._key_path = folder / "device.key"
        self._edge_path = folder / "edge.key"
        if not self._key_path.is_file():
            key = Ed25519PrivateKey.generate().private_bytes_raw()
            write_atomic(self._key_path, key.hex().encode(), mode=0o600)
        self._key = Ed25519PrivateKey.from_private_bytes(_hex_of(self._key_path))
        self.tls: ssl.SSLContext | None = None
        self._token = ""
        self.edge_key: bytes | None = None
        if self._edge_path.is_file():
            self.edge_key = _hex_of(self._edge_path)
        self.enrolled = self.edge_key is not None
        if bundle is not None:
            self._read_bundle(bundle)

    def _read_bundle(self, path: Path) -> None:
        try:
            bundle = json.loads(path.read_text())
            self._token, certificate = str(bundle["token"]), str(bundle["certificate"])
            edge_key = bytes.fromhex(bundle["edge_key"])
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self.tls.minimum_version = ssl.TLSVersion.TLSv1_3
            self.tls.check_hostname = False  # one pinned certificate, whatever the address
            self.tls.load_verify_locations(cadata=certificate)
        except (OSError, ValueError, KeyError, TypeError, ssl.SSLError) as error:
            raise BadInput(f"cannot use bundle {path}: {error}") from None
        if bundle.get("device_id") != self.device_id:
            raise BadInput(f"bundle {path} is for device {bundle.get('device_id')!r}")
        self.enrolled = self.enrolled and self.edge_key == edge_key
        self.edge_key = edge_key

    def answer(self, challenge: Challenge) -> Hello | Enrol:
        if self.edge_key is not None and challenge.edge_key != self.edge_key:
            raise BadInput("the edge at this address is not the one this device knows")
        statement = hello_statement(challenge.nonce, challenge.edge_key, self.device_id)
        signature = self._key.sign(statement)
        if self.enrolled:
            return Hello(self.device_id, signature)
        public = self._key.public_key().public_bytes_raw()
        return Enrol(self.device_id, self._token, public, signature)

    def welcomed(self, challenge: Challenge) -> None:
        if not self.enrolled:
            write_atomic(self._edge_path, challenge.edge_key.hex().encode())
            self.edge_key, self.enrolled = challenge.edge_key, True


def _hex_of(path: Path) -> bytes:
    """The 32 bytes of a key."""
    try:
        key = bytes.fromhex(path.read_text())
    except (ValueError, OSError) as error:
        raise BadInput(f"{path} is damaged: {error}; put it back from a copy") from None
    if len(key) != 32:
        raise BadInput(f"{path} is damaged: {len(key)} bytes, not 32; put it back from a copy")
    return key
