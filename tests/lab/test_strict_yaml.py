"""Configurations as people write them, and what only surprises."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from endedge.data.errors import BadInput
from endedge.lab.config import load_config
from endedge.lab.strict_yaml import read_yaml


def _bomb(depth: int) -> str:
    lines = ["b0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"b{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, depth + 1)]
    return "\n".join(lines)


REFUSED = {
    "a key twice": ("seeds: [0]\nname: a\nseeds: [1]", "'seeds' is twice in one section, .*line 3"),
    "twice, deeper": ("data: {root: a, root: b}", "'root' is twice"),
    "twice, one quoted": ('a: 1\n"a": 2', "'a' is twice"),
    "an alias bomb": (_bomb(9), "aliases unfold to more than"),
    "an alias of itself": ("a: &a [*a]", "an alias stands within"),
    "no YAML": ("a: [", "not YAML"),
    "a date that is none": ("a: 2026-99-99", "not YAML"),
    "a list as a key": ("? [a]\n: 1", "not YAML"),
    "two documents": ("a: 1\n---\nb: 2", "not YAML"),
    "a Python object": ("a: !!python/object/apply:os.system [id]", "not YAML"),
    "a control character": ("a: \x07", "not YAML"),
    "too deep": ("[" * 5000, "nested too deeply"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line(case: str) -> None:
    text, says = REFUSED[case]
    with pytest.raises(BadInput, match=says) as caught:
        read_yaml(text, "x.yaml")
    assert "\n" not in str(caught.value)


def test_what_people_write_is_read() -> None:
    for text in ("", "a: 1\nb: {a: 2}", "x: &x {k: 1}\ny: *x\nz: {<<: *x, k: 2}", "- a\n- a"):
        assert read_yaml(text, "x.yaml") == yaml.safe_load(text)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_configuration_of_another_editor(place: Path, encoding: str) -> None:
    text = (place / "c.yaml").read_text()
    (place / "d.yaml").write_bytes(text.encode(encoding))
    assert load_config(place / "d.yaml") == load_config(place / "c.yaml")


def test_home_in_paths(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    config = load_config(
        place / "c.yaml", ["data.root=~/frames", "weights.root=~/", "weights.student=~/s.pt"]
    )
    assert config.data.root == "/home/somebody/frames"
    assert config.weights.root == "/home/somebody"
    assert config.weights.student == ("/home/somebody/s.pt",)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("uplink.frames=[1,4]", r"uplink\.frames.*greater than or equal to 2"),
        ("device=gpu", "there are auto, cpu, cuda"),
        ("device=-1", "there are auto, cpu, cuda"),
        ("seeds={a: 1, a: 2}", "'a' is twice"),
    ],
)
def test_values_that_cannot_be(place: Path, override: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        load_config(place / "c.yaml", [override])
