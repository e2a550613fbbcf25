"""Certificates, tokens and enrolment."""

from __future__ import annotations

import json
import ssl
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from endedge.data.errors import BadInput
from endedge.edge.server.keys import EdgeKeys, create_keys, issue_bundle, load_keys, main
from endedge.link.messages import hello_statement, update_statement

NONCE = bytes(32)


@pytest.fixture
def keys(tmp_path: Path) -> EdgeKeys:
    return create_keys(tmp_path / "keys", ["edge.example", "127.0.0.1"])


def hello(key: Ed25519PrivateKey, edge: EdgeKeys, name: str, nonce: bytes = NONCE) -> bytes:
    return key.sign(hello_statement(nonce, edge.public, name))


def token_of(keys: EdgeKeys, name: str) -> str:
    return str(json.loads(issue_bundle(keys, name).read_text())["token"])


def test_keys_are_private_and_never_overwritten(keys: EdgeKeys) -> None:
    for name in ("signing.key", "tls.key"):
        assert stat.S_IMODE((keys.folder / name).stat().st_mode) == 0o600
    assert load_keys(keys.folder).public == keys.public
    with pytest.raises(BadInput, match="already"):
        create_keys(keys.folder)
    with pytest.raises(BadInput, match="no keys"):
        load_keys(keys.folder / "elsewhere")
    assert keys.tls().minimum_version == ssl.TLSVersion.TLSv1_3


def test_package_signature(keys: EdgeKeys) -> None:
    signature = keys.sign_update("cam", 3, 10, bytes(32))
    public = Ed25519PublicKey.from_public_bytes(keys.public)
    public.verify(signature, update_statement("cam", 3, 10, bytes(32)))


def test_enrolment_needs_the_token_once(keys: EdgeKeys) -> None:
    device, thief = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    public, other = (k.public_key().public_bytes_raw() for k in (device, thief))
    with pytest.raises(BadInput, match="not enrolled"):
        keys.check_hello(NONCE, "cam", hello(device, keys, "cam"))
    token = token_of(keys, "cam")
    for wrong in ("", "x", token_of(keys, "cam2")):
        with pytest.raises(BadInput, match="token"):
            keys.enrol(NONCE, "cam", public, hello(device, keys, "cam"), wrong)
    with pytest.raises(BadInput, match="prove"):  # a public key that is not his
        keys.enrol(NONCE, "cam", public, hello(thief, keys, "cam"), token)
    assert keys.enrol(NONCE, "cam", public, hello(device, keys, "cam"), token)
    assert not keys.enrol(NONCE, "cam", public, hello(device, keys, "cam"), token)  # said again
    with pytest.raises(BadInput, match="used token"):
        keys.enrol(NONCE, "cam", other, hello(thief, keys, "cam"), token)
    keys.check_hello(NONCE, "cam", hello(device, keys, "cam"))
    for signature in (
        hello(thief, keys, "cam"),
        hello(device, keys, "cam", b"n" * 32),  # replayed from another connection
        hello(device, keys, "cam2"),
    ):
        with pytest.raises(BadInput, match="prove"):
            keys.check_hello(NONCE, "cam", signature)
    assert keys.enrol(NONCE, "cam", other, hello(thief, keys, "cam"), token_of(keys, "cam"))


def test_without_tokens_the_first_key_stays(keys: EdgeKeys) -> None:
    first, second = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    public, other = (k.public_key().public_bytes_raw() for k in (first, second))
    assert keys.enrol(NONCE, "cam", public, hello(first, keys, "cam"), None)
    with pytest.raises(BadInput, match="another key"):
        keys.enrol(NONCE, "cam", other, hello(second, keys, "cam"), None)


@pytest.mark.parametrize("name", ["..", "a/b", "", "../../etc"])
def test_names_stay_in_the_folder(keys: EdgeKeys, name: str) -> None:
    with pytest.raises(BadInput, match="device id"):
        issue_bundle(keys, name)
    with pytest.raises(BadInput, match="device id"):
        keys.check_hello(NONCE, name, bytes(64))


def test_one_command_makes_keys_and_bundles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "keys")
    for names, status in ((["cam-1", "cam-2"], 0), (["cam-3"], 0), (["../x"], 2)):
        monkeypatch.setattr("sys.argv", ["keys", folder, *names])
        assert main() == status
    out, err = capsys.readouterr()
    assert [Path(line).stem for line in out.splitlines()] == ["cam-1", "cam-2", "cam-3"]
    assert "device id" in err
