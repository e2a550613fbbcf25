"""The checkpoints that ship with the demo are what their record says they are."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from endedge.data.generated import NAMES
from endedge.distill.model import build_detector, count_parameters, load_detector, model_hash

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "configs" / "demo"
MODELS = ("student", "teacher")


def _script() -> Any:
    where = ROOT / "benchmarks" / "make_bases.py"
    spec = importlib.util.spec_from_file_location("make_bases", where)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((DEMO / "bases.json").read_text())
    return document


@pytest.mark.parametrize("name", MODELS)
def test_file_is_the_described_model(name: str, record: dict[str, Any]) -> None:
    path = DEMO / f"{name}.safetensors"
    model = load_detector(path)
    described = build_detector(yaml.safe_load((DEMO / f"{name}.yaml").read_text()))
    assert tuple(model.names.values()) == NAMES
    shapes = {k: v.shape for k, v in described.state_dict().items()}
    assert {k: v.shape for k, v in model.state_dict().items()} == shapes
    assert count_parameters(model) == record[name]["parameters"]
    assert path.stat().st_size == record[name]["bytes"]


def test_files_are_small() -> None:
    assert sum((DEMO / f"{name}.safetensors").stat().st_size for name in MODELS) <= 2_000_000


def test_record_holds_the_recipe_of_the_script(record: dict[str, Any]) -> None:
    script = _script()
    assert script.Recipe(**record["recipe"]) == script.RECIPE
    assert record["frames"]["train"] == script.FRAMES


@pytest.mark.parametrize("name", MODELS)
def test_first_steps_are_the_recorded_ones(
    name: str, record: dict[str, Any], tmp_path: Path
) -> None:
    losses = _script().first_losses(name, tmp_path)
    assert losses == pytest.approx(record[name]["first_losses"], rel=0.01)


def test_making_is_deterministic(tmp_path: Path) -> None:
    script = _script()
    _, frames = script.frames_of(tmp_path, "source", "train", 16)
    recipe = replace(script.RECIPE, steps=2, batch=8)
    made = [
        model_hash(script.make("student", frames, r, lambda _step, _loss: None))
        for r in (recipe, recipe, replace(recipe, seed=1))
    ]
    assert made[0] == made[1]
    assert made[0] != made[2]


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the 600 evaluation frames are made, once."""
    return tmp_path_factory.mktemp("frames")


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_map_is_the_recorded_one(name: str, record: dict[str, Any], frames: Path) -> None:
    """Half a point for other processors: sums of floats in another order move a score little."""
    found = _script().scores(DEMO / f"{name}.safetensors", frames)
    for domain in ("source", "field"):
        assert found[domain]["map"] == pytest.approx(record[name][domain]["map"], abs=0.005)
