"""Certificates, tokens and enrolment."""

from __future__ import annotations

import json
import ssl
import stat
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from endedge.data.errors import BadInput
from endedge.edge.server.keys import (
    EdgeKeys,
    create_keys,
    issue_bundle,
    load_keys,
    main,
    open_keys,
)
from endedge.lab.cli.main import main as endedge
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
    for other in (("cam2", 3, 10), ("cam", 4, 10), ("cam", 3, 11)):
        with pytest.raises(InvalidSignature):
            public.verify(signature, update_statement(*other, bytes(32)))


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


def test_a_folder_with_something_in_it_gets_no_new_identity(keys: EdgeKeys) -> None:
    assert open_keys(keys.folder).public == keys.public
    for name in ("signing.key", "tls.key", "tls.pem"):
        kept = (keys.folder / name).read_bytes()
        (keys.folder / name).unlink()
        with pytest.raises(BadInput, match="put back"):
            open_keys(keys.folder)
        (keys.folder / name).write_bytes(kept)
    empty = keys.folder.parent / "empty"
    empty.mkdir()
    assert open_keys(empty).public != keys.public
    assert stat.S_IMODE(empty.stat().st_mode) == 0o700


def test_a_revoked_device_gets_in_no_more(keys: EdgeKeys) -> None:
    device = Ed25519PrivateKey.generate()
    public = device.public_key().public_bytes_raw()
    token = token_of(keys, "cam")
    assert keys.enrol(NONCE, "cam", public, hello(device, keys, "cam"), token)
    assert keys.devices() == ["cam"]
    keys.revoke("cam")
    assert keys.devices() == []
    with pytest.raises(BadInput, match="not enrolled"):
        keys.check_hello(NONCE, "cam", hello(device, keys, "cam"))
    with pytest.raises(BadInput, match="token"):
        keys.enrol(NONCE, "cam", public, hello(device, keys, "cam"), token)
    with pytest.raises(BadInput, match="no device cam"):
        keys.revoke("cam")
    (keys.folder / "devices" / "bad.pub").write_text("zz")
    with pytest.raises(BadInput, match="damaged"):
        keys.check_hello(NONCE, "bad", hello(device, keys, "bad"))


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edge = str(tmp_path / "edge")
    assert endedge(["keys", edge, "cam-1", "cam-2", "--host", "edge.example"]) == 0
    bundles = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in bundles] == ["cam-1.json", "cam-2.json"]
    assert json.loads(bundles[0].read_text())["device_id"] == "cam-1"
    assert endedge(["keys", edge, "--revoke", "cam-2"]) == 0
    assert not bundles[1].is_file()
    assert endedge(["keys", edge, "--revoke", "cam-9"]) == 2
    assert "no device cam-9" in capsys.readouterr().err
