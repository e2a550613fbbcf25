"""Receiving an update on the device: verify, decode, then switch in one step.

The model in use is the file that ``current.json`` names. An update becomes current only by
the atomic replacement of that file, after signature, hash and decoding have succeeded, so a
device that is killed at any point starts again with the old model or with the new one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from endedge.data.errors import BadInput
from endedge.data.storage import publish, sha256_of, sweep, write_atomic
from endedge.distill.envelope import builds_on, result_of
from endedge.link.messages import Ready, update_statement

__all__ = ["Install", "ModelStore"]

Install = Callable[[bytes, Path | None, Path], None]
"""``install(package, base, target)`` decodes ``package``, on top of the model file ``base`` if
it is a delta (None: the model the device came with), and writes the complete new model to
``target``. It raises :class:`BadInput` for a package it cannot use."""


@dataclass(frozen=True)
class _Current:
    """``model``: the hash by which packages name the model in use; ``kept``: the files of earlier
    ones by theirs, oldest first."""

    round_index: int = 0
    file: str | None = None
    model_sha256: str = ""
    model: str = ""
    kept: dict[str, str] = field(default_factory=dict)


class ModelStore:
    """The models of one device, in ``folder``. ``suffix`` ends the names of model files; earlier
    models stay as long as all together take at most ``keep_bytes``."""

    def __init__(self, folder: Path, suffix: str = ".safetensors", *, keep_bytes: int = 0) -> None:
        self._folder = folder
        self._suffix = suffix
        self._keep_bytes = keep_bytes
        (folder / "incoming").mkdir(parents=True, exist_ok=True)
        sweep(folder)
        self._current_path = folder / "current.json"
        self._current = _Current()
        if self._current_path.is_file():
            try:
                self._current = _Current(**json.loads(self._current_path.read_text()))
            except (ValueError, TypeError) as error:
                raise BadInput(f"{self._current_path} is damaged: {error}") from None
            assert self.model is not None
            if (
                not self.model.is_file()
                or sha256_of(self.model).hex() != self._current.model_sha256
            ):
                raise BadInput(f"{self.model} is not the model that {self._current_path} names")
        self._tidy()

    @property
    def round_index(self) -> int:
        """The round whose package is in use; 0 before the first."""
        return self._current.round_index

    @property
    def model(self) -> Path | None:
        """The model file in use; None is the model the device came with."""
        return self._folder / self._current.file if self._current.file else None

    @property
    def kept(self) -> dict[str, Path]:
        """Files of the earlier models that are still here, by their hash, oldest first."""
        files = {name: self._folder / file for name, file in self._current.kept.items()}
        return {name: file for name, file in files.items() if file.is_file()}

    def base_of(self, package: bytes) -> Path | None:
        """The model that ``package`` builds upon: the one in use, one that was kept, or, where it
        is neither, the one that the device came with (None), which may be it."""
        needed = builds_on(package)
        if needed in (None, self._current.model) or not self._current.model:
            return self.model
        return self.kept.get(str(needed))

    @property
    def model_sha256(self) -> bytes:
        return bytes.fromhex(self._current.model_sha256)

    def check(self, ready: Ready, device_id: str, edge_key: bytes, max_bytes: int) -> None:
        """Raises :class:`BadInput` unless the pinned edge signed exactly this package for this
        device, it is newer than what is in use (no replays), and it is not too large."""
        if ready.round_index <= self.round_index:
            raise BadInput(
                f"package of round {ready.round_index} is a replay: round {self.round_index} is "
                "in use"
            )
        if not 0 < ready.size <= max_bytes:
            raise BadInput(f"package of {ready.size} bytes; this device takes 1 to {max_bytes}")
        statement = update_statement(device_id, ready.round_index, ready.size, ready.sha256)
        try:
            Ed25519PublicKey.from_public_bytes(edge_key).verify(ready.signature, statement)
        except (InvalidSignature, ValueError):
            raise BadInput("package is not signed by the edge of this device") from None

    def incoming(self, ready: Ready) -> Path:
        """Where the bytes of a checked package are gathered; another package, another file."""
        name = f"{ready.round_index:08d}-{ready.sha256.hex()}.part"
        for path in (self._folder / "incoming").glob("*.part"):
            if path.name != name:
                path.unlink()
        return self._folder / "incoming" / name

    def apply(self, ready: Ready, install: Install) -> None:
        """Verify the gathered bytes of a checked package, decode them and switch to the result.

        On any error the old model stays. Raises :class:`BadInput` if the bytes do not have the
        signed hash or cannot be decoded; they are forgotten then. OSError (full disk) keeps
        them for another try.
        """
        part = self.incoming(ready)
        package = part.read_bytes()  # what is verified is what is decoded
        if len(package) != ready.size or hashlib.sha256(package).digest() != ready.sha256:
            part.unlink()
            raise BadInput("package does not have the hash that was signed")
        target = self._folder / f"model-{ready.round_index:08d}{self._suffix}"
        partial = target.with_name("new-" + target.name)
        try:
            install(package, self.base_of(package), partial)
            digest = sha256_of(partial).hex()
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        except Exception as error:  # a package must not be able to stop the device
            partial.unlink(missing_ok=True)
            part.unlink()
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BadInput(f"package cannot be decoded: {why}") from error
        publish(partial, target)
        name = result_of(package)
        fresh = _Current(ready.round_index, target.name, digest, name, self._keeping(name, target))
        write_atomic(self._current_path, json.dumps(fresh.__dict__).encode())
        self._current = fresh
        self._tidy()

    def _keeping(self, name: str, target: Path) -> dict[str, str]:
        """What stays beside the new model ``name``: the one in use until now, and of those kept
        before as many as there is room for, the latest first."""
        before = {k: file.name for k, file in self.kept.items()}
        if self.model is not None and self._current.model:
            before.pop(self._current.model, None)
            before[self._current.model] = self.model.name
        before.pop(name, None)
        left, stay = self._keep_bytes - target.stat().st_size, []
        for k, file in reversed(before.items()):
            left -= (self._folder / file).stat().st_size
            if left < 0:
                break
            stay.append(k)
        return {k: before[k] for k in reversed(stay)}

    def _tidy(self) -> None:
        here = {self.model, *self.kept.values()}
        for path in self._folder.glob(f"*model-*{self._suffix}"):
            if path not in here:
                path.unlink()
        for path in (self._folder / "incoming").glob("*-*.part"):
            first = path.name.split("-")[0]
            if first.isdigit() and int(first) <= self.round_index:
                path.unlink()
