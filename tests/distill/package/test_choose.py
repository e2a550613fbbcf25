"""Choosing between candidates: the one whose decoded package predicts most alike."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from endedge.data.errors import BadInput
from endedge.distill.layers import layers
from endedge.distill.losses import divergence
from endedge.distill.model import DetectionModel, build_detector, clone, count_parameters
from endedge.distill.package import packing, sensitivity
from endedge.distill.package.choose import pack_best
from endedge.distill.package.packing import pack
from endedge.distill.pruning import prune

FRAMES = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0)).byte()
SPEC: dict[str, Any] = {
    "names": {0: "a", 1: "b"},
    "yaml": {
        "nc": 2,
        "reg_max": 8,
        "backbone": [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "C2f", [16, True]]],
        "head": [[-1, 1, "Conv", [24, 3, 2]], [[1, 2], 1, "Detect", ["nc"]]],
    },
}


def tiny(seed: int) -> DetectionModel:
    torch.manual_seed(seed)
    return build_detector(SPEC).eval()


def shaken(model: DetectionModel, amount: float) -> DetectionModel:
    twin = clone(model)
    torch.manual_seed(9)
    for layer in layers(twin):
        layer.conv.weight.data *= 1 + amount * torch.randn_like(layer.conv.weight)
    return twin


def test_divergence_is_zero_for_itself_and_grows_with_damage() -> None:
    model = tiny(0)
    assert divergence(model, clone(model), FRAMES) == pytest.approx(0, abs=1e-3)
    small, large = (divergence(model, shaken(model, x), FRAMES) for x in (0.05, 0.5))
    assert 0 < small < large


def test_the_closest_to_the_first_is_chosen_on_frames_that_none_was_trained_on() -> None:
    model = tiny(0)
    near, far = shaken(model, 0.02), shaken(model, 1.0)
    best = pack(model, 12_000, frames=FRAMES).data
    for candidates in ([model, far], [model, far, near]):
        for unseen in (None, FRAMES[:1]):
            chosen = pack_best(candidates, 12_000, frames=FRAMES, unseen=unseen)
            assert chosen.data in (best, pack(near, 12_000, frames=FRAMES).data)


def test_candidates_that_do_not_fit_are_passed_over() -> None:
    """The list of widths makes the smallest package of the pruned one the larger of the two."""
    model = tiny(0)
    small = prune(model, 0.5, FRAMES, rounds=1)
    for budget, chosen in ((300, model), (9_000, small)):
        report = pack_best([small, model], budget, frames=FRAMES).report
        assert report.parameters == count_parameters(chosen)
        assert report.kept == pytest.approx(count_parameters(chosen) / count_parameters(model))


def test_nothing_that_fits_is_bad_input() -> None:
    for candidates in ([tiny(0)], [tiny(0), tiny(1)]):
        with pytest.raises(BadInput, match="smallest package"):
            pack_best(candidates, 50, frames=FRAMES)
    with pytest.raises(BadInput, match="no candidate"):
        pack_best([], 5_000, frames=FRAMES)


def test_the_packer_looks_at_the_frames_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    real = sensitivity.measure

    def measure(model: DetectionModel, pictures: torch.Tensor, *around: Any) -> Any:
        seen.append(pictures)
        return real(model, pictures, *around)

    monkeypatch.setattr(packing, "measure", measure)
    packing.prepare(tiny(0), frames=FRAMES)
    assert len(seen) == 1
    assert torch.equal(seen[0], FRAMES)
