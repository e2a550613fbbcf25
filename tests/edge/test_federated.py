from __future__ import annotations

import pytest
import torch

from endedge.data.errors import BadInput
from endedge.distill.model import DetectionModel, clone, model_hash
from endedge.edge.federated import average


def test_the_mean_is_weighted_and_leaves_its_parts_alone(tiny: DetectionModel) -> None:
    other = clone(tiny)
    with torch.no_grad():
        for tensor in other.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(1.0)
    before = model_hash(tiny), model_hash(other)
    mean = average([tiny, other], [3, 1])
    assert (model_hash(tiny), model_hash(other)) == before
    for name, tensor in mean.state_dict().items():
        start = tiny.state_dict()[name]
        expected = start + 0.25 if tensor.is_floating_point() else start
        torch.testing.assert_close(tensor, expected, atol=1e-6, rtol=1e-6)
    assert model_hash(average([tiny], [7])) == before[0]
    assert model_hash(average([tiny, other], [1, 0])) == before[0]


def test_what_cannot_be_averaged(tiny: DetectionModel, tiny_teacher: DetectionModel) -> None:
    for models, weights in (([], []), ([tiny], [0]), ([tiny], [1, 2]), ([tiny, tiny], [2, -1])):
        with pytest.raises(BadInput, match="cannot average"):
            average(models, weights)
    with pytest.raises(BadInput, match="layers differ"):
        average([tiny, tiny_teacher], [1, 1])
