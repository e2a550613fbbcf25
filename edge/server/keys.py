"""Who is who: the edge's certificate and signing key, one-time tokens, enrolled devices.

One command makes everything: ``endedge keys DIR DEVICE...``.
A bundle is the file an operator carries to a device: the edge's certificate and public
signing key (pinned, no certificate authority is asked), and a token that is good for
enrolling one public key under one name. The edge keeps no secret of any device: tokens are
stored as hashes, devices as public keys.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import ipaddress
import json
import os
import secrets
import shutil
import ssl
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

from endedge.data.errors import BadInput
from endedge.data.storage import private_folder, write_atomic
from endedge.link.messages import check_device_id, hello_statement, update_statement

__all__ = ["EdgeKeys", "create_keys", "issue_bundle", "load_keys", "open_keys"]

_LOOPBACK = ("localhost", "127.0.0.1")
_SIGNING, _TLS_KEY, _CERTIFICATE = "signing.key", "tls.key", "tls.pem"


@dataclass(frozen=True)
class EdgeKeys:
    """The key folder of one edge, loaded."""

    folder: Path
    signing: Ed25519PrivateKey

    @property
    def public(self) -> bytes:
        """The 32 raw bytes of the key that verifies this edge's packages."""
        return self.signing.public_key().public_bytes_raw()

    def sign_update(self, device_id: str, round_index: int, size: int, sha256: bytes) -> bytes:
        """Ed25519 signature (64 bytes) over the update statement of one package."""
        return self.signing.sign(update_statement(device_id, round_index, size, sha256))

    def tls(self) -> ssl.SSLContext:
        """TLS 1.3 for the listening side."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0  # nobody resumes sessions: 500 bytes less on a thin link
        context.load_cert_chain(self.folder / _CERTIFICATE, self.folder / _TLS_KEY)
        return context

    def check_hello(self, nonce: bytes, device_id: str, signature: bytes) -> None:
        """Raises :class:`BadInput` unless an enrolled device signed this nonce."""
        if not self.enrolled(device_id):
            raise BadInput("device is not enrolled; it needs a token")
        enrolled_key = self._device_path(device_id).read_text()
        try:
            device_key = bytes.fromhex(enrolled_key)
        except ValueError:
            raise BadInput("the edge's record of this device is damaged; enrol it anew") from None
        _check(device_key, nonce, self.public, device_id, signature)

    def enrol(
        self,
        nonce: bytes,
        device_id: str,
        device_key: bytes,
        signature: bytes,
        token: str | None,
    ) -> bool:
        """Remember the public key of a device; True if it was not known before.

        Repeating it with the same key is harmless (the answer may have been lost); another
        key needs a fresh token. ``token`` None takes any device that is not yet known: only
        for an edge that listens on loopback. Raises :class:`BadInput` otherwise.
        """
        path = self._device_path(device_id)
        _check(device_key, nonce, self.public, device_id, signature)
        if path.is_file() and path.read_text() == device_key.hex():
            return False
        if token is None and path.is_file():
            raise BadInput("another key is enrolled under this name")
        if token is not None:
            waiting = self.folder / "tokens" / device_id
            digest = waiting.read_text() if waiting.is_file() else ""
            if not hmac.compare_digest(digest, _token_digest(device_id, token)):
                raise BadInput("wrong or used token")
            write_atomic(path, device_key.hex().encode())
            waiting.unlink()
        else:
            write_atomic(path, device_key.hex().encode())
        return True

    def enrolled(self, device_id: str) -> bool:
        """Whether a public key is known under this name."""
        return self._device_path(device_id).is_file()

    def devices(self) -> list[str]:
        """The names of all enrolled devices."""
        return sorted(path.stem for path in (self.folder / "devices").glob("*.pub"))

    def revoke(self, device_id: str) -> None:
        """Forget the key of a device and its unused token: it gets in no more.

        Raises :class:`BadInput` for a name that has neither.
        """
        files = (self._device_path(device_id), self.folder / "tokens" / device_id)
        if not any(path.is_file() for path in files):
            raise BadInput(f"no device {device_id} is enrolled or has a token")
        for path in (*files, self.folder / "bundles" / f"{device_id}.json"):
            path.unlink(missing_ok=True)

    def _device_path(self, device_id: str) -> Path:
        return self.folder / "devices" / f"{check_device_id(device_id)}.pub"


def open_keys(folder: Path, hosts: Sequence[str] | None = None) -> EdgeKeys:
    """The keys in ``folder``; the first time, when it is empty or not there, they are made, with
    ``hosts`` (None: this machine's loopback) in the certificate.

    Raises :class:`BadInput` when something is there and the signing key is not: devices pinned
    it, and a new one would be another edge.
    """
    if folder.is_dir() and any(folder.iterdir()):
        return load_keys(folder)
    return create_keys(folder, hosts or _LOOPBACK)


def create_keys(folder: Path, hosts: Sequence[str] = _LOOPBACK) -> EdgeKeys:
    """Make the signing key and a self-signed certificate for ``hosts`` in ``folder``.

    The folder appears whole or not at all. Raises :class:`BadInput` if there is anything in it
    already (keys are never overwritten), or if it cannot be written.
    """
    if (folder / _SIGNING).exists():
        raise BadInput(f"{folder} holds keys already; remove it to start afresh")
    private = ec.generate_private_key(ec.SECP256R1())
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        private_folder(partial)
        write_atomic(partial / _CERTIFICATE, _certificate(private, hosts))
        write_atomic(partial / _TLS_KEY, _pem(private), mode=0o600)
        write_atomic(partial / _SIGNING, _pem(Ed25519PrivateKey.generate()), mode=0o600)
        os.chmod(partial, 0o700)
        os.replace(partial, folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise BadInput(f"cannot make keys in {folder}: {error}; give an empty folder") from None
    return load_keys(folder)


def load_keys(folder: Path) -> EdgeKeys:
    """The keys that :func:`create_keys` made. Raises :class:`BadInput` unless all are there."""
    try:
        key = serialization.load_pem_private_key((folder / _SIGNING).read_bytes(), None)
        for name in (_TLS_KEY, _CERTIFICATE):
            (folder / name).read_bytes()
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(
            f"no keys in {folder}: {error}; put back {_SIGNING}, {_TLS_KEY} and {_CERTIFICATE} "
            "from a copy (devices pinned them), or remove the folder and enrol every device anew"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInput(f"{folder / _SIGNING} is not an Ed25519 key")
    return EdgeKeys(folder, key)


def issue_bundle(keys: EdgeKeys, device_id: str) -> Path:
    """A fresh token for ``device_id`` in ``bundles/ID.json``, to be carried to the device.

    An older unused token of this name is void. The file is a secret until it was used.
    """
    check_device_id(device_id)
    token = secrets.token_urlsafe(32)
    write_atomic(
        keys.folder / "tokens" / device_id, _token_digest(device_id, token).encode(), mode=0o600
    )
    bundle = {
        "device_id": device_id,
        "token": token,
        "edge_key": keys.public.hex(),
        "certificate": (keys.folder / _CERTIFICATE).read_text(),
    }
    path = keys.folder / "bundles" / f"{device_id}.json"
    write_atomic(path, json.dumps(bundle, indent=1).encode(), mode=0o600)
    return path


def _check(
    device_key: bytes, nonce: bytes, edge_key: bytes, device_id: str, signature: bytes
) -> None:
    try:
        statement = hello_statement(nonce, edge_key, device_id)
        Ed25519PublicKey.from_public_bytes(device_key).verify(signature, statement)
    except (InvalidSignature, ValueError):
        raise BadInput("device did not prove its key") from None


def _token_digest(device_id: str, token: str) -> str:
    return hashlib.sha256(f"{device_id}\0{token}".encode()).hexdigest()


def _pem(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _certificate(key: ec.EllipticCurvePrivateKey, hosts: Sequence[str]) -> bytes:
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "endedge edge")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Devices pin this very certificate, and their clocks may be wrong by decades: dates
        # would only lock out a board whose clock battery is empty.
        .not_valid_before(datetime(1970, 1, 2, tzinfo=UTC))
        .not_valid_after(datetime(2099, 12, 31, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def main() -> int:
    """``python -m endedge.edge.keys EDGE_FOLDER/keys cam-1 cam-2``: keys if there are none yet,
    and a bundle for each device."""
    parser = argparse.ArgumentParser(description="certificate, signing key and device bundles")
    parser.add_argument("folder", type=Path, help="the 'keys' folder of the edge")
    parser.add_argument("devices", nargs="*", help="device names to issue bundles for")
    parser.add_argument("--host", action="append", help="name or address in the certificate")
    arguments = parser.parse_args()
    try:
        keys = open_keys(arguments.folder, arguments.host)
        for device_id in arguments.devices:
            print(issue_bundle(keys, device_id))
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
