"""Averaging of what devices learned by themselves, when no frame may leave them.

B. McMahan et al., *Communication-Efficient Learning of Deep Networks from Decentralized Data*,
AISTATS 2017: the mean of the models, weighted by the frames each was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from endedge.data.errors import BadInput
from endedge.distill.model import DetectionModel, clone

__all__ = ["average"]


def average(models: Sequence[DetectionModel], weights: Sequence[float]) -> DetectionModel:
    """The weighted mean of models of the same layers, batch-norm statistics included; counters
    (integers) are those of the first. Raises :class:`BadInput` for models that differ in shape,
    and for weights that are not >= 0 with a sum above 0."""
    total = float(sum(weights))
    if not models or len(models) != len(weights) or min(weights) < 0 or not total > 0:
        raise BadInput(f"cannot average {len(models)} models with weights {list(weights)}")
    states = [m.state_dict() for m in models]
    shapes = [{k: v.shape for k, v in state.items()} for state in states]
    if any(s != shapes[0] for s in shapes):
        raise BadInput("cannot average models whose layers differ")
    mean = clone(models[0])
    with torch.no_grad():
        for name, tensor in mean.state_dict().items():
            if tensor.is_floating_point():
                parts = [
                    s[name].double() * (w / total) for s, w in zip(states, weights, strict=True)
                ]
                tensor.copy_(torch.stack(parts).sum(0))
    return mean
