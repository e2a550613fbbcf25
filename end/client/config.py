"""What a device process is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from endedge.data.errors import BadInput
from endedge.link.channel import DuplexLink
from endedge.link.connection import is_loopback
from endedge.link.messages import check_device_id

__all__ = ["DeviceConfig"]


@dataclass(frozen=True)
class DeviceConfig:
    """One device. ``bundle`` is the file its edge's operator issued (TLS and enrolment);
    without it only an edge on loopback is accepted, and its key is pinned on first use.
    ``link`` makes the connection as thin as the model says (see :mod:`endedge.link.shaper`).
    """

    device_id: str
    edge_host: str
    edge_port: int
    folder: Path
    bundle: Path | None = None
    link: DuplexLink | None = None
    heartbeat_s: float = 5.0
    idle_timeout_s: float = 30.0
    retry_s: float = 0.5  # doubled after each failure, up to 64 times, with jitter
    spool_bytes: int = 1 << 30
    update_bytes: int = 256 * 2**20
    models_bytes: int = 0  # of models on disk: earlier ones stay as long as there is room

    def __post_init__(self) -> None:
        check_device_id(self.device_id)
        if self.bundle is None and not is_loopback(self.edge_host):
            raise BadInput(f"edge {self.edge_host} is not loopback: that needs a 'bundle'")
        if not (0 < self.heartbeat_s < self.idle_timeout_s and self.retry_s > 0):
            raise BadInput("give 0 < heartbeat_s < idle_timeout_s and retry_s above 0")
