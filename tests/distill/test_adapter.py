from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from endedge.data.errors import BadInput
from endedge.data.frames import unlabelled
from endedge.distill.adapter import (
    KNOTS,
    STARTS,
    InputAdapter,
    adapter_of,
    attach,
    kind_of,
    start_adapter,
)
from endedge.distill.model import DetectionModel, clone, load_detector, model_hash, save_detector
from endedge.distill.package.format import inspect, unpack
from endedge.distill.package.packing import pack
from endedge.end.inference import detect

Images = Any


def _pictures(n: int = 2, side: int = 64) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_a_curve_is_what_numpy_interpolates_and_the_matrix_mixes_after_it() -> None:
    rng = np.random.default_rng(0)
    curve, matrix = rng.uniform(0, 1, (3, KNOTS)), rng.uniform(0, 0.5, (3, 3))
    adapter = InputAdapter(torch.tensor(curve), torch.tensor(matrix))
    images = _pictures()
    knots = np.linspace(0, 1, KNOTS)
    toned = np.stack(
        [np.interp(images[:, c], knots, adapter.curve[c].numpy()) for c in range(3)], 1
    )
    expected = np.einsum("nchw,dc->ndhw", toned, adapter.matrix.numpy()).clip(0, 1)
    assert adapter(images).numpy() == pytest.approx(expected, abs=1e-5)


def test_the_stretch_makes_a_veiled_frame_what_it_was() -> None:
    images = _pictures()
    for darkest, brightest in ((0.4, 0.6), (0.0, 0.3)):
        veiled = darkest + (brightest - darkest) * images
        stretched = start_adapter(per_frame=True)(veiled)
        plain = start_adapter(per_frame=True)(images)
        assert (stretched - plain).abs().max() < 1e-3
    flat = torch.full((1, 3, 64, 64), 0.3) + 0.001 * images[:1]
    assert start_adapter(per_frame=True)(flat).std() < 0.1  # one tone is not blown up to noise


@pytest.mark.parametrize("per_frame", [False, True])
def test_the_letterbox_border_stays_grey_and_does_not_count(per_frame: bool) -> None:
    images = torch.full((1, 3, 64, 64), 114 / 255)
    images[:, :, 16:48] = _pictures(1)[:, :, 16:48]
    adapter = start_adapter("inverted", per_frame=per_frame)
    seen = adapter(images)
    assert torch.equal(seen[:, :, :16], images[:, :, :16])
    assert torch.equal(seen[:, :, 48:], images[:, :, 48:])
    assert torch.allclose(seen[:, :, 16:48], adapter(images[:, :, 16:48]))


def test_a_frame_that_is_nothing_but_border_is_left_alone() -> None:
    grey = torch.full((2, 3, 32, 32), 114 / 255)
    assert torch.equal(start_adapter("inverted", per_frame=True)(grey), grey)


@given(
    st.lists(st.integers(-4096, 4096), min_size=27, max_size=27),
    st.lists(st.integers(-4096, 4096), min_size=9, max_size=9),
    st.booleans(),
)
def test_a_description_comes_back_exactly(curve: list[int], matrix: list[int], per: bool) -> None:
    about = {"per_frame": per, "curve": curve, "matrix": matrix}
    assert InputAdapter.of(about).description == about


@pytest.mark.parametrize(
    "about",
    [
        None,
        {},
        {"per_frame": 1, "curve": [0] * 27, "matrix": [0] * 9},
        {"per_frame": True, "curve": [0] * 26, "matrix": [0] * 9},
        {"per_frame": True, "curve": [0.5] * 27, "matrix": [0] * 9},
        {"per_frame": True, "curve": [10**9] * 27, "matrix": [0] * 9},
        {"per_frame": True, "curve": [0] * 27, "matrix": [True] * 9},
        {"per_frame": True, "curve": [0] * 27, "matrix": [0] * 9, "more": 1},
    ],
)
def test_other_descriptions_are_refused(about: Any) -> None:
    with pytest.raises(BadInput, match="input adapter"):
        InputAdapter.of(about)


def test_numbers_that_are_not_finite_are_refused_in_one_line() -> None:
    for bad in (float("nan"), float("inf"), 9.0):
        with pytest.raises(BadInput, match="curve must be finite, between ±8"):
            InputAdapter(torch.full((3, KNOTS), bad), torch.eye(3))
    with pytest.raises(BadInput, match="no adapter start 'sepia'; one of identity"):
        start_adapter("sepia")


def test_it_works_wherever_the_detector_is_called(tiny: DetectionModel) -> None:
    images = _pictures()
    model = clone(tiny).eval()
    attach(model, start_adapter("inverted"))
    with torch.no_grad():
        assert torch.allclose(model(images)[0], tiny.eval()(1 - images)[0], atol=1e-4)
        assert torch.equal(clone(model)(images)[0], model(images)[0])
    frames = unlabelled((images * 255).byte())
    inverted = unlabelled(255 - frames.images)
    for one, other in zip(detect(model, frames), detect(tiny, inverted), strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-4)
    assert model_hash(model) != model_hash(tiny)
    attach(model, None)
    assert model_hash(model) == model_hash(tiny)
    assert not model._forward_pre_hooks


def test_kinds_are_named(tiny: DetectionModel) -> None:
    kinds = []
    for curve in STARTS:
        for per_frame in (False, True):
            attach(tiny, start_adapter(curve, per_frame=per_frame))
            kinds.append(kind_of(tiny))
    assert kinds == ["none", "per-frame", *["fixed", "per-frame+fixed"] * 3]
    attach(tiny, None)
    assert kind_of(tiny) == "none"


def test_it_is_saved_and_loaded_with_the_detector(tiny: DetectionModel, tmp_path: Path) -> None:
    attach(tiny, start_adapter("gamma-2", per_frame=True))
    save_detector(tiny, tmp_path / "m.safetensors")
    loaded = load_detector(tmp_path / "m.safetensors")
    assert model_hash(loaded) == model_hash(tiny)
    assert kind_of(loaded) == "per-frame+fixed"


def test_it_crosses_the_link_in_full_and_delta_packages(tiny: DetectionModel) -> None:
    plain, changed = clone(tiny), clone(tiny)
    rng = torch.Generator().manual_seed(1)
    curve = torch.rand(3, KNOTS, generator=rng)
    attach(changed, InputAdapter(curve, torch.rand(3, 3, generator=rng), per_frame=True))
    adapter = adapter_of(changed)
    assert adapter is not None
    frames = (_pictures() * 255).byte()
    full = [pack(m, 60_000, frames=frames, mode="full").data for m in (plain, changed)]
    assert "adapter" not in inspect(full[0])
    assert inspect(full[1])["adapter"] == adapter.description
    assert inspect(full[1])["spec_bytes"] - inspect(full[0])["spec_bytes"] <= 600
    received = adapter_of(unpack(full[1]))
    assert received is not None
    assert received.description == adapter.description

    for base, model, carried in (
        (plain, changed, adapter.description),
        (changed, plain, None),
        (changed, changed, "nothing"),
        (plain, plain, "nothing"),
    ):
        data = pack(model, 60_000, base=base, frames=frames, mode="delta").data
        assert inspect(data).get("adapter", "nothing") == carried
        assert inspect(data)["spec_bytes"] <= 600
        assert (inspect(data)["spec_bytes"] == 0) == (carried == "nothing")
        after = unpack(data, base=base)
        assert kind_of(after) == kind_of(model)
        before = adapter_of(model)
        got = adapter_of(after)
        assert (got and got.description) == (before and before.description)
