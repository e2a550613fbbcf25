from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from endedge.configs import SHIPPED
from endedge.data.errors import BadInput
from endedge.data.units import parse_quantity
from endedge.lab.config import load_config, named
from endedge.lab.store import digest

GOOD: dict[str, Any] = {
    "name": "x",
    "data": {"root": "."},
    "weights": {"teacher": "t.pt", "student": "s.pt"},
    "uplink": {"frames": [8, 16]},
    "teacher": {},
    "student": {},
    "downlink": {"budgets_bytes": [1000]},
}


def _write(tmp_path: Path, document: Any) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return path


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_configs_load(path: Path) -> None:
    config = load_config(path.stem)  # by name, as users give them
    assert config == load_config(path)
    assert config.name == path.stem


def test_the_resolved_file_says_the_same(tmp_path: Path) -> None:
    config = load_config(_write(tmp_path, GOOD), ["seeds=[3,1]", "data.camera.kind=fog"])
    assert config.seeds == (3, 1)
    assert config.data.camera.kind == "fog"
    assert load_config(_write(tmp_path, config.to_yaml())) == config


def test_quantities_with_units(tmp_path: Path) -> None:
    keys = ["downlink.budgets_bytes=[700kB,1.1 MB,42]", "link.period_s=5 s"]
    config = load_config(_write(tmp_path, GOOD), [*keys, "link.bandwidth_low_hz=2 kHz"])
    assert config.downlink.budgets_bytes == (700_000, 1_100_000, 42)
    assert (config.link.period_s, config.link.bandwidth_low_hz) == (5.0, 2000.0)


def test_few_frames_are_learned_gently(tmp_path: Path) -> None:
    keys = [
        "student={steps: 200, epochs: 25, batch: 16, lr: 4.0e-4, train_norm: true, few_frames: 64}"
    ]
    student = load_config(_write(tmp_path, GOOD), keys).student
    # frames: steps = min(200, 25 * frames / 16); rate = 4e-4 * sqrt(frames / 64) below 64
    table = {16: (25, 2e-4, False), 64: (100, 4e-4, True), 256: (200, 4e-4, True)}
    for frames, (steps, lr, norm) in table.items():
        recipe = student.recipe(frames, seed=0)
        assert (recipe.steps, recipe.train_norm) == (steps, norm)
        assert recipe.lr == pytest.approx(lr)


BAD = {
    "unknown key": (["sedes=[0]"], "unknown key 'sedes'; did you mean 'seeds'"),
    "unknown deep key": (["data.imgsize=320"], "did you mean 'data.image_side'"),
    "negative budget": (["downlink.budgets_bytes=[-5]"], r"bytes.0: .* greater than or equal to 1"),
    "word for a number": (["link.period_s=soon"], "link.period_s: .*cannot read 'soon'"),
    "another unit": (["downlink.budgets_bytes=[5kHz]"], "bytes.0: .*quantity in B"),
    "zero period": (["link.period_s=0"], "link.period_s: .*greater than 0"),
    "infinite period": (["link.period_s=.inf"], "link.period_s: .*finite"),
    "unknown camera": (["data.camera.kind=sunny"], "data.camera.kind: .*'infrared'"),
    "severity": (["data.camera.severity=9"], "less than or equal to 5"),
    "side": (["data.image_side=100"], "multiple of 32"),
    "no seeds": (["seeds=[]"], "seeds must list at least one"),
    "a seed twice": (["seeds=[1,1]"], "none of them twice"),
    "codec": (["uplink.codecs=[gif-q3-64]"], "codec format 'gif'"),
    "device": (["device=tpu"], "device: "),
    "pruned alone": (["downlink.keep=[0.5]"], "keep: must list 1.0"),
    "pruned delta": (["downlink.keep=[1.0,0.5]", "downlink.mode=delta"], "carries no pruned"),
    "not key=value": (["seeds"], "is not key=value"),
    "not YAML": (["seeds=[1"], "the value is not YAML"),
    "not a section": (["name.x=1"], "name is not a section"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_overrides_name_key_and_remedy(tmp_path: Path, case: str) -> None:
    overrides, message = BAD[case]
    with pytest.raises(BadInput, match=message) as caught:
        load_config(_write(tmp_path, GOOD), overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not YAML"),
        ("- 1", "holds a list"),
        ("", "holds a NoneType"),
        ("name: x", "data"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load_config(_write(tmp_path, text))


def test_missing_files() -> None:
    with pytest.raises(BadInput, match=r"configuration not found: nothing\.yaml"):
        load_config("nothing.yaml")


def test_yaml_cannot_execute(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    with pytest.raises(BadInput, match="is not YAML"):
        load_config(_write(tmp_path, f"name: !!python/object/apply:os.mkdir ['{mark}']"))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("2.5 MHz", "Hz", 2.5e6),
        ("300kB", "B", 3e5),
        ("1e3", "Hz", 1e3),
        (7, "s", 7.0),
        ("1.5 MiB", "B", 1.5 * 2**20),
        ("0", "Hz", 0.0),
    ],
)
def test_quantities(text: str | float, unit: str, value: float) -> None:
    assert parse_quantity(text, unit) == value


@pytest.mark.parametrize(
    "text", ["", "-3 Hz", "3 s", "inf", "nan", float("nan"), "1..2", "3 kk", -1]
)
def test_bad_quantities(text: str | float) -> None:
    with pytest.raises(BadInput):
        parse_quantity(text, "Hz")


def test_a_later_key_does_not_rename_older_results(tmp_path: Path) -> None:
    """Rounds of a loop are named by all of the configuration. If this fails, a key was added
    without LATER (or one was removed, or a default changed): every folder would start anew."""
    loop = {
        "bandwidth_hz": "6 kHz",
        "domains": {"dusk": {"kind": "fog"}},
        "days": [[{"domain": "dusk", "periods": 3}]],
    }
    document = GOOD | {"name": "first", "data": {"source": "generated"}, "loop": loop}
    document |= {"uplink": {"frames": [8]}, "downlink": {"budgets_bytes": [20000]}}
    path = _write(tmp_path, document)

    def name(*changes: str) -> str:
        settings = named(load_config(path, changes))
        settings["loop"]["half_life_rounds"] = 4.0  # a key that was (PolicyRun adds it, too)
        return digest(settings)

    assert name() == "6459c4c4a69e8e27"  # as it first was
    assert name("serve.job_s=60") != "6459c4c4a69e8e27"


@pytest.mark.parametrize(
    "change", ["loop.domains.clear.kind=viewpoint", "data.camera.kind=viewpoint"]
)
def test_a_loop_takes_no_camera_that_moves_boxes(change: str) -> None:
    with pytest.raises(BadInput, match="viewpoint moves the boxes, which a loop takes from the"):
        load_config("demo-loop", [change])
    assert load_config("demo", ["data.camera.kind=viewpoint"]).data.camera.kind == "viewpoint"
