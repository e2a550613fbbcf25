"""Which precision a folder gets, who decides, and what it is called by."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from endedge.data.errors import BadInput
from endedge.distill.model import model_hash
from endedge.distill.precision import computing as really
from endedge.lab import pipeline
from endedge.lab.cli.main import main
from endedge.lab.config import load_config
from endedge.lab.inputs import Inputs
from endedge.lab.store import Store
from endedge.lab.sweep import precision
from endedge.lab.sweep.cell import Cell, CellRunner
from endedge.lab.sweep.precision import fastest, settled, step_seconds, warn_if_slow

CELL = Cell(0, 4, "jpeg-q75-64", 200_000)


@pytest.mark.parametrize(
    ("paces", "wanted"),
    [
        ({"fp32": 1.0, "bf16": 0.45}, "bf16"),  # a processor with units for it
        ({"fp32": 1.0, "bf16": 11.0}, "fp32"),  # without
        ({"fp32": 1.0, "bf16": 0.9}, "fp32"),  # a tenth is not worth less exact numbers
        ({"fp32": 1.0, "bf16": 0.8}, "bf16"),  # 1.25 times as fast is
        ({"fp32": 1.0, "tf32": 0.6, "bf16": 0.5}, "tf32"),  # nor is a fifth, of tf32
        ({"fp32": 1.0, "tf32": 0.6, "bf16": 0.3}, "bf16"),
    ],
)
def test_a_less_exact_precision_must_be_worth_it(paces: dict[str, float], wanted: str) -> None:
    assert fastest(paces) == wanted


def _never() -> dict[str, float]:
    raise AssertionError("measured although it is decided")


def test_auto_is_measured_once_and_then_the_file_decides(place: Path) -> None:
    config, out = load_config(place / "c.yaml", ["precision=auto"]), place / "out"
    decided = settled(config, out, lambda: {"fp32": 1.0, "bf16": 0.5})
    assert decided.precision == "bf16"
    assert load_config(out).precision == "bf16"
    assert settled(config, out, _never).precision == "bf16"
    said = load_config(place / "c.yaml", ["precision=fp32"])
    assert settled(said, out, _never).precision == "fp32"  # what a person says is not asked for


def test_a_folder_of_before_goes_on_in_fp32(place: Path) -> None:
    """It has a config.yaml without the key, and results."""
    (place / "out").mkdir()
    (place / "out/config.yaml").write_bytes((place / "c.yaml").read_bytes())
    config = load_config(place / "c.yaml", ["precision=auto"])
    assert settled(config, place / "out", _never).precision == "fp32"


def test_slow_is_said_in_one_line(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = load_config(place / "c.yaml", ["precision=bf16"])
    assert warn_if_slow(config, place, lambda: {"fp32": 0.1, "bf16": 0.109}) == ""
    with caplog.at_level(logging.WARNING, "endedge"):
        says = warn_if_slow(config, place, lambda: {"fp32": 0.1, "bf16": 1.12})
    assert says.startswith("precision bf16 is 11.2 times as slow as fp32 on this processor (")
    assert str(place) in says
    assert "\n" not in says
    assert [record.getMessage() for record in caplog.records] == [says]
    assert warn_if_slow(load_config(place / "c.yaml"), place, _never) == ""


def test_a_step_is_measured_in_every_precision(place: Path) -> None:
    inputs = Inputs.of(load_config(place / "c.yaml", ["precision=auto"]), place / "out")
    before = model_hash(inputs.student)
    found = step_seconds(inputs, seconds=0.0)
    assert list(found) == ["fp32", "bf16"]
    assert all(seconds > 0 for seconds in found.values())
    assert model_hash(inputs.student) == before


@pytest.mark.parametrize(("times", "batches"), [(0.5, 1), (11.0, 0)])
def test_what_is_much_slower_for_two_pictures_is_not_tried_on_a_batch(
    place: Path, monkeypatch: pytest.MonkeyPatch, times: float, batches: int
) -> None:
    """A clock on which a step takes a second, and in bf16 so many."""
    inputs = Inputs.of(load_config(place / "c.yaml", ["precision=auto"]), place / "out")
    now, asked = [0.0], []

    def computing(name: str, device: str) -> AbstractContextManager[None]:
        asked.append(name)
        now[0] += {"fp32": 1.0, "bf16": times}[name]
        return really(name, device)

    monkeypatch.setattr(precision, "computing", computing)
    monkeypatch.setattr("time.process_time", lambda: now[0])
    assert step_seconds(inputs, seconds=0.0) == {"fp32": 1.0, "bf16": times}
    assert asked.count("bf16") == 1 + batches


def test_a_surface_of_auto_is_resumed_as_it_began(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Decided where bf16 is fast, gone on where it is slow: nothing is measured twice."""
    one = ["precision=auto", "uplink.frames=[4]", "downlink.budgets_bytes=[200000]"]
    out, quiet = place / "out", lambda done, total, message: None
    _measured(monkeypatch, lambda *_: {"fp32": 1.0, "bf16": 0.4})
    pipeline.measure_stage(load_config(place / "c.yaml", one), out, quiet)
    surface = (out / "surface.csv").read_text()
    nodes = sorted((out / "nodes").iterdir())
    assert "precision: bf16" in (out / "config.yaml").read_text()
    _measured(monkeypatch, lambda *_: {"fp32": 1.0, "bf16": 11.0})
    pipeline.measure_stage(load_config(place / "c.yaml", one), out, quiet)
    assert (out / "surface.csv").read_text() == surface
    assert sorted((out / "nodes").iterdir()) == nodes
    assert caplog.records == []  # nothing was left to do, so nothing is slow
    two = [*one, "downlink.budgets_bytes=[200000, 150000]"]
    pipeline.measure_stage(load_config(place / "c.yaml", two), out, quiet)
    assert ["11.0 times as slow" in r.getMessage() for r in caplog.records] == [True]
    assert len(list((out / "nodes").glob("teacher-*"))) == 1


def _measured(monkeypatch: pytest.MonkeyPatch, seconds: Callable[..., dict[str, float]]) -> None:
    monkeypatch.setattr("endedge.lab.sweep.scheduler.step_seconds", seconds)
    monkeypatch.setattr(precision, "step_seconds", seconds)


def test_only_what_is_trained_is_named_by_it(place: Path) -> None:
    names = {}
    for name in ("fp32", "bf16"):
        inputs = Inputs.of(load_config(place / "c.yaml", [f"precision={name}"]), place / "out")
        runner = CellRunner(inputs, Store(place / "out"), lambda message: None)
        upload = runner.upload(CELL)
        names[name] = runner.start().key, upload.key, runner.teacher(CELL, upload).key
    assert names["fp32"][:2] == names["bf16"][:2]  # sent and scored in fp32 anyhow
    assert names["fp32"][2] != names["bf16"][2]
    plain = Inputs.of(load_config(place / "c.yaml"), place / "out")
    runner = CellRunner(plain, Store(place / "out"), lambda message: None)
    assert runner.teacher(CELL, runner.upload(CELL)).key == names["fp32"][2]


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("fp16", "precision: Input should be 'auto', 'fp32', 'tf32' or 'bf16' (given: 'fp16')"),
        ("tf32", "precision tf32 is one of NVIDIA's GPUs, the device is cpu; use precision=fp32"),
    ],
)
def test_a_precision_that_is_not_there(
    place: Path, capsys: pytest.CaptureFixture[str], wanted: str, says: str
) -> None:
    run = ["measure", str(place / "c.yaml"), "--out", str(place / "out")]
    assert main([*run, f"precision={wanted}", "device=cpu"]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1
    assert not (place / "out/nodes").exists()


def test_what_nobody_has_decided_is_not_trained_in(place: Path) -> None:
    inputs = Inputs.of(load_config(place / "c.yaml", ["precision=auto"]), place / "out")
    with pytest.raises(BadInput, match=r"precision is auto and not decided; 'endedge measure'"):
        _ = inputs.plan
