"""Budgets in parameters: numbers that are sent and are not zero."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from endedge.data.errors import BadInput
from endedge.distill.layers import layers
from endedge.distill.model import DetectionModel, build_detector, clone, save_detector
from endedge.distill.package import pack, unpack
from endedge.lab.cli.main import main
from endedge.lab.config import load_config, named

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


@pytest.fixture(scope="module")
def model() -> DetectionModel:
    torch.manual_seed(0)
    return build_detector(SPEC).eval()


def weights_of(model: DetectionModel) -> int:
    """Not zero; what is rounded to zero is zero in the decoded model, too."""
    return sum(int((layer.conv.weight != 0).sum()) for layer in layers(model))


def test_no_more_numbers_than_asked_and_hardly_fewer(model: DetectionModel) -> None:
    whole = weights_of(model)
    vectors = sum(4 * layer.conv.out_channels for layer in layers(model))
    for share in (0.2, 0.7):
        params = round(share * whole)
        packed = pack(model, 10**6, params=params, frames=FRAMES)
        sent = weights_of(unpack(packed.data))
        assert sent <= packed.report.transmitted <= params
        assert packed.report.transmitted >= 0.95 * params
        assert packed.report.transmitted - sent <= vectors


def test_the_tighter_of_two_budgets_binds(model: DetectionModel) -> None:
    free = pack(model, 12_000, frames=FRAMES)
    loose = pack(model, 12_000, params=10**6, frames=FRAMES)
    assert len(loose.data) <= 12_000
    assert loose.report.transmitted == pytest.approx(free.report.transmitted, rel=0.03)
    tight = pack(model, 12_000, params=4_000, frames=FRAMES)
    assert tight.report.transmitted <= 4_000 < free.report.transmitted
    assert len(tight.data) < len(free.data)


def test_a_delta_counts_what_changes(model: DetectionModel) -> None:
    near = clone(model)
    layer = layers(near)[1]
    layer.conv.weight.data.view(-1)[:50] += 0.3
    packed = pack(near, 10**6, params=3_000, base=model, frames=FRAMES, mode="delta")
    assert 0 < packed.report.transmitted <= 3_000 < weights_of(near)


def test_too_few_parameters_name_the_fewest(model: DetectionModel) -> None:
    with pytest.raises(BadInput, match=r"budget of 1 parameters .* sends \d+ parameters") as error:
        pack(model, 10**6, params=1, frames=FRAMES)
    told = re.search(r"sends (\d+) parameters", str(error.value))
    assert told is not None
    enough = max(1, int(told[1]))
    assert pack(model, 10**6, params=enough, frames=FRAMES).report.transmitted <= enough


def test_on_the_command_line(
    model: DetectionModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_detector(model, tmp_path / "m.safetensors")
    command = ["pack", str(tmp_path / "m.safetensors"), "-o", str(tmp_path / "u.eeu"), "--json"]
    assert main([*command, "--params", "5k"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["transmitted"] <= 5_000
    assert said["budget_bytes"] == 20_000 >= said["bytes"]
    for wrong in ([], ["--params", "0"], ["--params", "many"]):
        assert main([*command, *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_in_a_configuration() -> None:
    """As bytes in the grid, beside budgets that are bytes; older results keep their names."""
    config = load_config("demo", ["downlink.budgets_params=[1.5M,40k]"])
    down = config.downlink
    assert down.budgets[-2:] == (6_000_000, 160_000)
    assert [down.params_of(b) for b in down.budgets[-3:]] == [None, 1_500_000, 40_000]
    assert "budgets_params" not in named(load_config("demo"))["downlink"]
    only = load_config("demo", ["downlink.budgets_bytes=[]", "downlink.budgets_params=[40k]"])
    assert only.downlink.budgets == (160_000,)
    for wrong in (["budgets_bytes=[]"], ["budgets_bytes=[160000]", "budgets_params=[40000]"]):
        with pytest.raises(BadInput, match="budgets_bytes"):
            load_config("demo", [f"downlink.{change}" for change in wrong])
