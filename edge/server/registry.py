"""The devices that this edge knows, and those it keeps apart because their files are damaged.

One damaged file costs its device, not the edge: that device is *quarantined* with the reason,
which the operator sees and the device is told of. Its files stay as they are. At each greeting they
are tried again, so a repaired folder needs no restart.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from endedge.data.errors import BadInput
from endedge.edge.server.audit import Audit
from endedge.edge.server.journal import DeviceRounds
from endedge.edge.server.keys import EdgeKeys
from endedge.edge.server.monitor import DeviceRow
from endedge.edge.server.session import EnrolledDevice
from endedge.link.messages import check_device_id

__all__ = ["Registry"]


class Registry:
    """Devices by name; ``make(name, ledger)`` makes one."""

    def __init__(
        self,
        folder: Path,
        keys: EdgeKeys,
        audit: Audit,
        make: Callable[[str, DeviceRounds], EnrolledDevice],
    ) -> None:
        self._folder, self._keys, self._audit, self._make = folder, keys, audit, make
        self._devices: dict[str, EnrolledDevice] = {}
        self._apart: dict[str, str] = {}

    def load(self) -> list[EnrolledDevice]:
        """All enrolled devices that have a folder. What is no device's is left alone, and noted.

        Raises :class:`BadInput` if the folder of all cannot be read.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            names = sorted(path.name for path in self._folder.iterdir())
        except OSError as error:
            raise BadInput(f"cannot keep devices in {self._folder}: {error}") from None
        for name in names:
            try:
                known = self._keys.enrolled(check_device_id(name))
            except BadInput:
                known = False
            if known:
                self.find(name)
            else:
                self._audit("not_a_device", why=f"{self._folder / name!s} is of no enrolled device")
        return list(self._devices.values())

    def __len__(self) -> int:
        return len(self._devices) + len(self._apart)

    def __contains__(self, device_id: str) -> bool:
        return device_id in self._devices or device_id in self._apart

    def get(self, device_id: str) -> EnrolledDevice | None:
        """A device that is in order, if there is one of this name."""
        return self._devices.get(device_id)

    def find(self, device_id: str) -> EnrolledDevice | None:
        """The same, made or loaded if need be; None if it is quarantined."""
        if device_id not in self._devices:
            try:
                rounds = DeviceRounds(self._folder / device_id)
                self._devices[device_id] = self._make(device_id, rounds)
                self._apart.pop(device_id, None)
            except (BadInput, OSError) as error:
                self.quarantine(device_id, str(error))
        return self._devices.get(device_id)

    def why_apart(self, device_id: str) -> str:
        """The reason of a quarantine."""
        return self._apart.get(device_id, "")

    def quarantine(self, device_id: str, why: str) -> None:
        """Keep a device apart from now on."""
        if self._apart.get(device_id) != why:
            self._audit("quarantined", device_id, why=why)
        self._apart[device_id] = why
        self._drop(device_id)

    def forget(self, device_id: str) -> None:
        """Remove a device and its files: its name has another owner now."""
        self._drop(device_id)
        self._apart.pop(device_id, None)
        shutil.rmtree(self._folder / device_id, ignore_errors=True)

    def _drop(self, device_id: str) -> None:
        device = self._devices.pop(device_id, None)
        if device is not None and device.connection is not None:
            device.connection.abort()

    def promised_bytes(self) -> int:
        """What all devices may still add to the disk."""
        return sum(device.promised_bytes for device in self._devices.values())

    def rows(self) -> list[DeviceRow]:
        """What the operator sees, by name."""
        rows = [device.row() for device in self._devices.values()]
        rows += [
            DeviceRow(name, False, 0, 0, 0, 0, 0, 0, 0.0, 0, 0, None, f"quarantined: {why}", True)
            for name, why in self._apart.items()
        ]
        return sorted(rows, key=lambda row: row.device_id)
