"""A folder that was measured on one machine, read and gone on with on another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from endedge.lab import devices, inputs
from endedge.lab.cli.main import main

SMALL = ["uplink.frames=[4,6,9]", "downlink.budgets_bytes=[50000,200000]"]


@pytest.fixture
def measured(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results by a GPU: as its machine names them, though a processor computed them."""
    out = place / "out"
    with monkeypatch.context() as there:
        there.setattr(inputs, "device_of", lambda config, folder: "cpu")
        there.setattr(inputs, "kind_of_device", lambda device: "cuda")
        there.setattr(devices, "why_no_gpu", lambda: "")
        assert main(["measure", str(place / "c.yaml"), "--out", str(out), *SMALL]) == 0
    return out


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "why_no_gpu", lambda: "no driver")


def _made(folder: Path) -> dict[str, str]:
    """The nodes, with the kind of device in their names."""
    files = (folder / "nodes").glob("*/record.json")
    return {
        f.parent.name: json.loads(f.read_text(encoding="utf-8"))["determinants"]["device"]
        for f in files
    }


@pytest.mark.usefixtures("no_gpu")
def test_a_machine_without_a_gpu_reads_what_a_gpu_measured(
    place: Path, measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever it is called: the first command wrote down what ``auto`` was."""
    assert "device: cuda\n" in (measured / "config.yaml").read_text()
    made = _made(measured)
    anywhere = {name for name in made if name.split("-")[0] in ("upload", "package")}
    assert {made[name] for name in anywhere} == {"cpu"}
    assert {made[name] for name in set(made) - anywhere} == {"cuda"}
    assert main(["status", str(measured), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["done"], found["cells"]) == (6, 6)
    for said in ("auto", "cuda", "0", "cuda:1"):
        verb = ["measure", str(place / "c.yaml"), "--out", str(measured), f"device={said}", *SMALL]
        assert main(verb) == 0, said
        assert _made(measured) == made, said
        assert main(["fit", str(measured)]) == 0


@pytest.mark.usefixtures("no_gpu")
def test_what_is_missing_needs_the_device_and_says_so(
    place: Path, measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["uplink.frames=[4,6,9,12]", "downlink.budgets_bytes=[50000,200000]"]
    verb = ["measure", str(place / "c.yaml"), "--out", str(measured), *more]
    assert main(verb) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "endedge measure: device cuda: no driver; or use device=cpu"
