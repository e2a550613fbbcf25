"""Update packages: never over budget, bit-exact, delta or full, refused when damaged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from endedge.data.errors import BadInput
from endedge.distill.description import check_spec
from endedge.distill.layers import layers
from endedge.distill.model import DetectionModel, build_detector, clone, model_hash
from endedge.distill.package import packing as package
from endedge.distill.package.format import inspect, unpack
from endedge.distill.package.packing import Packed

SPEC: dict[str, Any] = {
    "names": {i: f"thing {i}" for i in range(3)},
    "yaml": {
        "nc": 3,
        "reg_max": 8,
        "backbone": [
            [-1, 1, "Conv", [16, 3, 2]],
            [-1, 1, "Conv", [16, 3, 2]],
            [-1, 1, "C3k2", [16, False, 0.5]],
            [-1, 1, "Conv", [24, 3, 2]],
            [-1, 1, "Conv", [32, 3, 2]],
            [-1, 1, "C3k2", [32, True]],
        ],
        "head": [
            [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
            [[-1, 3], 1, "Concat", [1]],
            [-1, 1, "C2f", [24]],
            [[8, 5], 1, "Detect", ["nc"]],
        ],
    },
}


def tiny(seed: int = 0) -> DetectionModel:
    """A small detector whose batch norms hold something."""
    torch.manual_seed(seed)
    model = build_detector(SPEC).eval()
    for layer in layers(model):
        if layer.bn is not None:
            layer.bn.weight.data.uniform_(-0.2, 2.0)
            layer.bn.bias.data.normal_()
            assert layer.bn.running_mean is not None and layer.bn.running_var is not None  # noqa: PT018
            layer.bn.running_mean.normal_()
            layer.bn.running_var.uniform_(0.01, 3.0)
    return model


FRAMES = torch.randint(0, 256, (4, 3, 64, 64), generator=torch.Generator().manual_seed(0)).byte()


def pack(model: DetectionModel, budget_bytes: int, **options: Any) -> Packed:
    return package.pack(model, budget_bytes, frames=FRAMES, **options)


@pytest.fixture(scope="module")
def model() -> DetectionModel:
    return tiny()


def output(model: DetectionModel) -> torch.Tensor:
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        result = model.eval()(x)
    return torch.as_tensor(result[0])


def smallest(model: DetectionModel, base: DetectionModel | None = None) -> int:
    with pytest.raises(BadInput, match=r"smallest package is \d+ bytes") as error:
        pack(model, 1, base=base)
    return int(str(error.value).split()[-2])


@pytest.mark.parametrize("share", [0.05, 0.1, 0.25, 0.5])
def test_budget_is_kept_and_filled_from_5_percent_of_fp16_up(
    model: DetectionModel, share: float
) -> None:
    budget = int(share * 2 * sum(p.numel() for p in model.parameters()))
    floor = smallest(model)
    if budget < floor:
        budget = floor + 200
    packed = pack(model, budget)
    assert 0.97 * budget <= len(packed.data) <= budget
    report = packed.report
    assert report.header_bytes + report.spec_bytes + report.coded_bytes == len(packed.data)


@settings(max_examples=4, deadline=None)
@given(st.integers(100, 60_000))
def test_any_budget_is_kept_or_refused_with_a_size_that_works(budget: int) -> None:
    model = tiny()
    try:
        packed = pack(model, budget)
    except BadInput as error:
        floor = int(str(error).split()[-2])
        assert floor > budget
        assert len(pack(model, floor).data) <= floor
        return
    assert len(packed.data) <= budget
    unpack(packed.data)


def test_decoding_is_exact_and_repeatable(model: DetectionModel) -> None:
    data = pack(model, 12_000).data
    assert pack(model, 12_000).data == data
    first, second = unpack(data), unpack(data)
    assert model_hash(first) == model_hash(second)
    assert model_hash(first)[:32] == inspect(data)["result"]
    assert not first.training
    assert first.names == model.names


def test_a_large_budget_gives_the_same_function(model: DetectionModel) -> None:
    packed = pack(model, 10**6)
    want, got = output(model), output(unpack(packed.data))
    assert (got - want).abs().max() < 0.02 * want.abs().max()


def test_unpacked_models_can_be_trained_and_packed_again(model: DetectionModel) -> None:
    received = unpack(pack(model, 20_000).data)
    received.train()
    result = received(torch.rand(2, 3, 64, 64))
    (result["boxes"].sum() + result["scores"].sum()).backward()
    assert all(p.grad is not None for n, p in received.named_parameters() if "dfl" not in n)
    assert len(pack(received, 15_000).data) <= 15_000


def test_nothing_changed_is_a_tiny_delta_and_exact(model: DetectionModel) -> None:
    held = unpack(pack(model, 30_000).data)
    packed = pack(clone(held), 5_000, base=held)
    assert packed.report.mode == "delta"
    assert model_hash(unpack(packed.data, base=held)) == model_hash(held)


def test_delta_wins_for_small_changes_and_full_for_large_ones(model: DetectionModel) -> None:
    near = clone(model)
    for layer in layers(near):
        layer.conv.weight.data += (
            0.01 * layer.conv.weight.std() * torch.randn_like(layer.conv.weight)
        )
    small = pack(near, 9_000, base=model)
    assert small.report.mode == "delta"
    assert pack(tiny(5), 9_000, base=model).report.mode == "full"
    error = (output(unpack(small.data, base=model)) - output(near)).abs().mean()
    assert error < (output(unpack(pack(near, 9_000).data)) - output(near)).abs().mean()


def test_a_delta_is_refused_on_another_base(model: DetectionModel) -> None:
    data = pack(clone(model), 9_000, base=model, mode="delta").data
    with pytest.raises(BadInput, match="needs the base"):
        unpack(data)
    with pytest.raises(BadInput, match="not for"):
        unpack(data, base=tiny(3))


def test_any_flipped_missing_or_added_byte_is_refused(model: DetectionModel) -> None:
    data = pack(model, 9_000).data
    for i in range(0, len(data), 97):
        damaged = bytearray(data)
        damaged[i] ^= 1 << (i % 8)
        with pytest.raises(BadInput):
            unpack(bytes(damaged))
    for i in (0, 1, 30, len(data) // 2, len(data) - 1):
        with pytest.raises(BadInput):
            unpack(data[:i] + data[i + 1 :])
        with pytest.raises(BadInput):
            unpack(data[:i] + b"\0" + data[i:])
    for n in range(0, len(data), 500):
        with pytest.raises(BadInput):
            inspect(data[:n])


def forged(data: bytes, change: Callable[[bytearray], None]) -> bytes:
    """``data`` with a change and a valid checksum: what a hostile sender would write."""
    body = bytearray(data)
    change(body)
    digest = hashlib.sha256(bytes(body[:5]) + bytes(body[21:])).digest()[:16]
    return bytes(body[:5]) + digest + bytes(body[21:])


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_hostile_packages_with_valid_checksums_are_refused(data: st.DataObject) -> None:
    good = GOOD_FULL
    position = data.draw(st.integers(4, len(good) - 1))
    value = data.draw(st.integers(1, 255))

    def change(body: bytearray) -> None:
        body[position] ^= value

    hostile = forged(good, change)
    if hostile[:21] == good[:21]:
        return
    try:
        decoded = unpack(hostile)
    except BadInput:
        return
    # unused bits (the padding of the deflated description) may differ, the model may not
    assert model_hash(decoded) == model_hash(unpack(good))


GOOD_FULL = pack(tiny(), 9_000).data


def test_a_package_of_another_model_than_it_names_is_refused() -> None:
    """Checksum and bytes are in order, and what they decode to is not what the edge measured."""
    named = bytes.fromhex(inspect(GOOD_FULL)["result"])
    at = GOOD_FULL.index(named)

    def other(body: bytearray) -> None:
        body[at] ^= 1

    with pytest.raises(BadInput, match="not the one that was packed"):
        unpack(forged(GOOD_FULL, other))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("activation", "__import__('os').system('true')"),
        ("nc", 10**9),
        ("width_multiple", 1000.0),
        ("backbone", [[-1, 1, "nn.Module", []]]),
        ("backbone", [[-1, 1, "Conv", ["open('x')", 3, 2]]]),
        ("backbone", [[-1, 10**6, "Conv", [16, 3, 2]]]),
        ("backbone", [[5, 1, "Conv", [16, 3, 2]]]),
        ("unknown", 1),
    ],
)
def test_descriptions_that_name_anything_else_are_refused(key: str, value: Any) -> None:
    check_spec(SPEC)
    with pytest.raises(BadInput, match="model description"):
        check_spec({**SPEC, "yaml": {**SPEC["yaml"], key: value}})


def test_modes_are_checked(model: DetectionModel) -> None:
    with pytest.raises(BadInput, match="mode"):
        pack(model, 9_000, mode="zip")
    with pytest.raises(BadInput, match="base"):
        pack(model, 9_000, mode="delta")


def test_without_frames_the_packer_makes_up_its_own(model: DetectionModel) -> None:
    packed = package.pack(model, 30_000)
    want = output(model)
    assert (output(unpack(packed.data)) - want).abs().mean() < 0.1 * want.abs().mean()


@pytest.mark.parametrize("budget", [1_100, 1_500, 2_500])
def test_a_change_of_few_layers_is_not_paid_for_in_all(model: DetectionModel, budget: int) -> None:
    adapted = clone(model)
    torch.manual_seed(4)
    for layer in layers(adapted)[:3]:
        noise = torch.randn_like(layer.conv.weight)
        layer.conv.weight.data += 0.1 * layer.conv.weight.std() * noise
    packed = pack(adapted, budget, base=model, mode="delta")
    assert 0.97 * budget <= len(packed.data) <= budget
    received = unpack(packed.data, base=model)
    assert (output(received) - output(adapted)).abs().mean() < (
        output(model) - output(adapted)
    ).abs().mean()


def test_a_prepared_model_is_packed_for_any_budgets_in_any_order(model: DetectionModel) -> None:
    """Same bytes as one by one, and what it says is decoded is what unpacks."""
    adapted = clone(model)
    for layer in layers(adapted)[:2]:
        layer.conv.weight.data *= 1.1
    prepared = package.prepare(adapted, base=model, frames=FRAMES)
    for budget in (20_000, 1_500, 9_000, 20_000):
        packed = prepared.pack(budget)
        assert packed == pack(adapted, budget, base=model)
        base = model if packed.report.mode == "delta" else None
        assert model_hash(packed.decoded) == model_hash(unpack(packed.data, base=base))
