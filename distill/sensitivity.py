"""Which weights matter: the relative quantization step of every row and column."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from endedge.distill.model import DetectionModel
from endedge.distill.quantization import STEP_RESOLUTION, Ints, Target

__all__ = ["step_exponents"]


def step_exponents(
    model: DetectionModel, goals: Sequence[Target], frames: torch.Tensor | None, seed: int
) -> list[tuple[Ints, Ints]]:
    """Step exponents (rows, columns) of every layer: equal signal to noise for every row."""
    weights = dict(model.named_parameters())
    result = []
    for goal in goals:
        n_out, n_in = goal.weights.shape[:2]
        raw = weights[f"{goal.name}.weight"].detach().double().reshape(n_out, -1).numpy()
        loud = np.sqrt((raw**2).mean(axis=1))
        rows = np.rint(STEP_RESOLUTION * np.log2(np.maximum(loud, 1e-6))).astype(np.int32)
        result.append((rows, np.zeros(n_in, np.int32)))
    return result
