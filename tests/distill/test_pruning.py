"""Structured pruning: smaller, runnable, compensated; carried by packages without help."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from endedge.data.errors import BadInput
from endedge.distill.channels import trace
from endedge.distill.layers import layers
from endedge.distill.model import DetectionModel, build_detector, count_parameters, model_hash
from endedge.distill.package.format import unpack
from endedge.distill.package.packing import pack
from endedge.distill.pruning import prune

FRAMES = torch.randint(0, 256, (4, 3, 64, 64), generator=torch.Generator().manual_seed(0)).byte()
V8: dict[str, Any] = {
    "backbone": [
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "Conv", [24, 3, 2]],
        [-1, 2, "C2f", [24, True]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "SPPF", [32, 5]],
    ],
    "head": [
        [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
        [[-1, 2], 1, "Concat", [1]],
        [-1, 1, "C2f", [24]],
        [[7, 4], 1, "Detect", ["nc"]],
    ],
}
V26: dict[str, Any] = {
    "end2end": True,
    "backbone": [
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "C3k2", [32, True]],
        [-1, 1, "Conv", [64, 3, 2]],
        [-1, 1, "SPPF", [64, 5, 3, True]],
        [-1, 1, "C2PSA", [64]],
    ],
    "head": [
        [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
        [[-1, 2], 1, "Concat", [1]],
        [-1, 1, "C3k2", [64, True, 0.5, True]],
        [[8, 5], 1, "Detect", ["nc"]],
    ],
}


def build(config: dict[str, Any]) -> DetectionModel:
    torch.manual_seed(0)
    spec = {"names": {i: f"thing {i}" for i in range(3)}, "yaml": {"nc": 3, "reg_max": 8, **config}}
    return build_detector(spec).eval()


def raw(model: DetectionModel) -> torch.Tensor:
    with torch.no_grad():
        result = model(FRAMES[:2].float() / 255)
    return torch.as_tensor(result[0] if isinstance(result, tuple) else result)


@pytest.mark.parametrize("config", [V8, V26], ids=["v8", "v26"])
@pytest.mark.parametrize("kept", [0.7, 0.45])
def test_pruned_detectors_are_smaller_run_and_travel(config: dict[str, Any], kept: float) -> None:
    model = build(config)
    small = prune(model, kept, FRAMES, rounds=2)
    assert 0.9 * kept < count_parameters(small) / count_parameters(model) <= kept
    assert raw(small).shape == raw(model).shape
    received = unpack(pack(small, 40_000, frames=FRAMES).data)
    assert count_parameters(received) == count_parameters(small)
    assert (raw(received) - raw(small)).abs().max() < 0.1 * raw(small).abs().max()
    received.train()
    assert received(torch.rand(2, 3, 64, 64)) is not None


def test_a_channel_that_repeats_another_is_removed_without_loss() -> None:
    """The compensation must hand the work of a lost channel to its twin."""
    model = build(V8)
    bottleneck = model.model[2].m[0]
    first, second = bottleneck.cv1, bottleneck.cv2
    n = first.conv.out_channels
    with torch.no_grad():
        for tensor in (first.conv.weight, first.bn.weight, first.bn.bias):
            tensor[n // 2 :] = tensor[: n // 2]
        first.bn.bias[: n // 2] += 0.5
        first.bn.bias[n // 2 :] += 0.5
    before = raw(model)
    from endedge.distill.package.sensitivity import measure
    from endedge.distill.pruning import _without

    channels = trace(model)
    name = next(x.name for x in layers(model) if x.conv is first.conv)
    gone = set(channels.outputs[name][n // 2 :])
    small = _without(model, channels, gone, measure(model, FRAMES))
    assert small.model[2].m[0].cv1.conv.out_channels == n // 2
    assert second.conv.in_channels == n
    assert (raw(small) - before).abs().max() < 0.05 * before.abs().max()


def test_residual_sums_and_halves_stay_together() -> None:
    model = build(V8)
    channels = trace(model)
    c2f = "model.2"
    cv1 = channels.outputs[f"{c2f}.cv1.conv"]
    assert cv1[: len(cv1) // 2] == cv1[len(cv1) // 2 :]
    assert channels.outputs[f"{c2f}.m.0.cv2.conv"] == cv1[len(cv1) // 2 :]
    assert set(channels.inputs["model.0.conv"]) <= channels.pinned


def test_the_recovery_hook_runs_after_every_round() -> None:
    model, calls = build(V8), []

    def recover(small: DetectionModel) -> None:
        calls.append(count_parameters(small))

    before = model_hash(model)
    prune(model, 0.6, FRAMES, rounds=3, recover=recover)
    assert len(calls) == 3
    assert calls == sorted(calls, reverse=True)
    assert model_hash(model) == before


def test_impossible_shares_are_refused() -> None:
    with pytest.raises(BadInput, match="share"):
        prune(build(V8), 1.5, FRAMES)
    with pytest.raises(BadInput, match="least"):
        prune(build(V8), 0.001, FRAMES, rounds=1)
