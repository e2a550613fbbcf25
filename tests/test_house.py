"""The house rules that no single module can break unnoticed."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import tomllib
from collections.abc import Collection, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

from tests.lies.table import LIES

ROOT = Path(__file__).parents[1]
# Imports point one way: what each folder may use besides itself. configs holds data only.
BELOW: dict[str, set[str]] = {
    "configs": set(),
    "data": set(),
    "link": {"data"},
    "distill": {"data"},
    "end": {"data", "link", "distill"},
    "edge": {"data", "link", "distill", "end"},
    "allocator": {"data"},
    "lab": {"configs", "data", "link", "distill", "end", "edge", "allocator"},
}
FOLDERS = list(BELOW)
ALLOCATOR_USES = {"endedge.data.units", "endedge.data.errors"}
MOST_FLAT = 10  # modules of lab/ that are in none of its rooms


def test_the_package_list_is_what_is_on_disk() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    on_disk = {p.parent.name for p in ROOT.glob("*/__init__.py") if p.parent.name != "tests"}
    assert set(FOLDERS) == on_disk
    rooms = {p.parent.relative_to(ROOT) for n in on_disk for p in (ROOT / n).rglob("__init__.py")}
    assert set(setup["packages"]) == {"endedge." + ".".join(room.parts) for room in rooms}
    assert setup["package-dir"] == {f"endedge.{name}": name for name in on_disk}


def test_type_checkers_see_the_same_folders() -> None:
    links = {p.name: p.resolve() for p in (ROOT / ".types" / "endedge").iterdir()}
    assert links == {name: ROOT / name for name in FOLDERS}


# The import graph ------------------------------------------------------------------------------


def _modules() -> dict[str, Path]:
    found = {}
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found["endedge." + ".".join(parts).removesuffix(".__init__")] = path
    return found


def _graph() -> dict[str, set[str]]:
    """Who imports whom, by module: at the top, inside functions, for type checkers only."""
    modules = _modules()
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        graph[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                inside = [f"{node.module}.{alias.name}" for alias in node.names]
                used = {n if n in modules else node.module for n in inside}
            elif isinstance(node, ast.Import):
                used = {alias.name for alias in node.names}
            else:
                continue
            graph[name] |= {n for n in used if n.split(".")[0] == "endedge"} - {name}
    return graph


def _room(module: str) -> str:
    """``endedge.lab.report.page`` lives in ``endedge.lab.report``; a flat module is its own."""
    parts = module.split(".")
    return ".".join(parts[:3]) if len(parts) > 3 else module


def _circle(graph: Mapping[str, Collection[str]]) -> list[str] | None:
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return list(error.args[1])
    return None


GRAPH = _graph()


def test_the_graph_is_drawn() -> None:
    """It sees imports of every sort, or the tests below would hold nothing."""
    assert "endedge.edge.plan" in GRAPH["endedge.lab.inputs"]  # at the top
    assert "endedge.lab.pipeline" in GRAPH["endedge.lab.cli.sweeping"]  # inside a function
    assert "endedge.distill.losses" in GRAPH["endedge.distill.loss"]  # for types
    assert _circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) is not None
    assert _circle({"a": {"b", "c"}, "b": {"c"}}) is None
    assert all(used in GRAPH for uses in GRAPH.values() for used in uses)


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_point_one_way(folder: str) -> None:
    for name, uses in GRAPH.items():
        if name.split(".")[1] != folder:
            continue
        for used in uses:
            there = used.split(".")[1]
            assert there == folder or there in BELOW[folder], f"{name} imports {used}"
            if folder == "allocator" and there == "data":
                assert used in ALLOCATOR_USES, f"{name} imports {used}"


def test_no_circle_of_modules() -> None:
    assert _circle(GRAPH) is None


def test_no_circle_of_rooms() -> None:
    rooms: dict[str, set[str]] = {}
    for name, uses in GRAPH.items():
        if name.count(".") > 1:  # a folder's __init__ shows what is inside
            rooms.setdefault(_room(name), set()).update(
                _room(u) for u in uses if u.count(".") > 1 and _room(u) != _room(name)
            )
    assert _circle(rooms) is None


def test_few_modules_of_the_lab_are_in_no_room() -> None:
    flat = [p.name for p in (ROOT / "lab").glob("*.py") if p.name != "__init__.py"]
    assert len(flat) <= MOST_FLAT, flat


def test_a_cell_is_followed_in_six_files() -> None:
    """From the cell to the losses and the packer: what docs/contributing.md walks through."""
    walk = [
        "endedge.lab.sweep.cell",
        "endedge.end.device",
        "endedge.edge.edge",
        "endedge.edge.adapt",
        "endedge.distill.training",
        "endedge.distill.package.format",
    ]
    seen = {walk[0]}
    for name in walk[1:]:
        assert any(name in GRAPH[before] for before in seen), f"{name} is not reached"
        seen.add(name)


def test_every_lie_still_finds_its_line() -> None:
    """A change of the code takes the lies about it along, or they could no longer be told."""
    lost = [
        f"{lie.name}: its text is {n} times in {lie.file}"
        for lie in LIES
        if (n := (ROOT / lie.file).read_text(encoding="utf-8").count(lie.true)) != 1
    ]
    assert not lost, lost


# What a reader meets ---------------------------------------------------------------------------

MOST_LINES = 400
LONGER: set[str] = set()  # and there is none
MOST_UNEXPLAINED = 4  # arguments of a public call without a section that explains each


def _sources(*folders: str) -> list[Path]:
    return sorted(p for folder in folders for p in (ROOT / folder).rglob("*.py"))


def test_a_module_is_read_in_one_sitting() -> None:
    sources = _sources(*FOLDERS, "benchmarks", "tests")
    long = {
        str(path.relative_to(ROOT))
        for path in sources
        if path.read_text(encoding="utf-8").count("\n") >= MOST_LINES
    }
    assert long <= LONGER, f"in two modules each: {sorted(long - LONGER)}"


def _offered() -> dict[str, Any]:
    """Functions, and methods of classes, that a folder or a room offers by its ``__all__``."""
    found = {}
    for name in (m for m, path in _modules().items() if path.name == "__init__.py"):
        room = importlib.import_module(name)
        for word in getattr(room, "__all__", ()):
            thing = getattr(room, word)
            parts = {word: thing}
            if inspect.isclass(thing):
                parts = {f"{word}.{k}": v for k, v in vars(thing).items() if k[0] != "_"}
            for part, value in parts.items():
                call = getattr(value, "__func__", value)
                if inspect.isfunction(call):
                    found[f"{name}.{part}"] = call
    return found


def test_calls_with_many_arguments_explain_each() -> None:
    """Shapes, units and ranges, of what is offered to others (docs/api.md)."""
    lacking, long = [], 0
    for name, call in _offered().items():
        given = [p for p in inspect.signature(call).parameters if p not in ("self", "cls")]
        if len(given) > MOST_UNEXPLAINED:
            long += 1
            said = inspect.getdoc(call) or ""
            lacking += [f"{name}: {p}" for p in given if not re.search(rf"^ +{p}: ", said, re.M)]
    assert long > 5
    assert not lacking, lacking
