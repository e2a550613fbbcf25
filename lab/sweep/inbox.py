"""One upload as the device encoded it and as the edge decodes it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from endedge.data.errors import BadInput
from endedge.edge.adapt import Upload
from endedge.edge.edge import EdgeEnd
from endedge.end.device import DeviceEnd
from endedge.lab.inputs import Inputs

__all__ = ["Inbox"]


@dataclass(frozen=True, eq=False)
class Inbox:
    """The upload of ``frames`` frames, drawn by ``seed``, of the device ``end``."""

    inputs: Inputs
    end: DeviceEnd
    seed: int
    frames: int

    @cached_property
    def sent(self) -> bytes:
        """The framed batch."""
        return self.end.encode(self.inputs.captured(self.seed)[: self.frames]).batch

    @cached_property
    def upload(self) -> Upload:
        """What the edge trains on and holds back."""
        inputs, edge = self.inputs, EdgeEnd(self.inputs.plan, self.seed, self.frames)
        received = edge.receive(self.sent, {f.image_id: f for f in inputs.pool.frames})
        if received.refused:
            raise BadInput(f"uploaded {received.refused[0]}")
        return edge.known(received, edge.label(inputs.teacher, received, lambda: inputs.threshold))

    @cached_property
    def losses(self) -> NDArray[np.float64]:
        """What the device holds before the update, on each held-back frame."""
        edge = EdgeEnd(self.inputs.plan, self.seed, self.frames)
        return edge.losses(self.inputs.student, self.upload)
