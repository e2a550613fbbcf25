"""What a detector is worth on the device's evaluation frames, and how far that is their luck."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from endedge.distill.model import DetectionModel
from endedge.end.device import DeviceEnd
from endedge.end.replicates import draws_of, groups_drawn
from endedge.lab.inputs import Inputs
from endedge.lab.sweep.replicates import IN_NODE, UNIT

__all__ = ["resampled", "scored"]


def scored(end: DeviceEnd, inputs: Inputs, model: DetectionModel) -> dict[str, Any]:
    """``map`` and ``map50`` of ``model`` on the device ``end``, and the ``seconds`` it took."""
    began = time.perf_counter()
    score = end.evaluate(model, inputs.evaluation_batch, inputs.evaluation)
    return {
        "map": score.map,
        "map50": score.map50,
        "classes": score.classes,
        "seconds": time.perf_counter() - began,
    }


def resampled(
    end: DeviceEnd, inputs: Inputs, model: DetectionModel, folder: Path
) -> dict[str, Any]:
    """The same, and mAP on bootstrap draws of the evaluation frames into ``folder``: the same
    draws for every detector of this evaluation. ``groups``: how many there were to draw from."""
    began = time.perf_counter()
    names = groups_drawn(inputs.evaluation)
    score, replicates = end.resampled(
        model, inputs.evaluation_batch, inputs.evaluation, draws_of(len(names), names)
    )
    np.save(folder / IN_NODE, np.rint(replicates / UNIT).astype(np.uint16))
    seconds = time.perf_counter() - began
    groups = len(set(names))
    return {
        "map": score.map,
        "map50": score.map50,
        "classes": score.classes,
        "groups": groups,
        "seconds": seconds,
    }
