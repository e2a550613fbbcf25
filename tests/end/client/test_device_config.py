from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from endedge.data.errors import BadInput
from endedge.end.client.client import DeviceConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edge_host": "10.0.0.7"}, "is not loopback"),
        ({"device_id": "../cam"}, "device"),
        ({"heartbeat_s": 30.0}, "heartbeat_s < idle_timeout_s"),  # it would drop a quiet edge
        ({"heartbeat_s": 0.0}, "heartbeat_s < idle_timeout_s"),
        ({"idle_timeout_s": 1.0}, "heartbeat_s < idle_timeout_s"),
        ({"retry_s": 0.0}, "retry_s above 0"),
    ],
)
def test_settings_that_cannot_work(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "device_id": "cam",
        "edge_host": "127.0.0.1",
        "edge_port": 1,
        "folder": tmp_path,
    }
    DeviceConfig(**good)
    with pytest.raises(BadInput, match=message):
        DeviceConfig(**(good | changes))
