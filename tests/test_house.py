"""The house rules that no single module can break unnoticed."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Imports point one way: each folder may use those before it. configs holds data only.
ORDER = ["configs", "data", "link", "distill", "end", "edge", "lab"]
FOLDERS = [*ORDER, "allocator"]


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


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
        found |= {n for n in names if n.startswith("endedge")}
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_point_one_way(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        for name in _imports(path):
            there = name.split(".")[1]
            if folder == "allocator":
                assert there == "allocator" or name in (
                    "endedge.data.units",
                    "endedge.data.errors",
                ), f"{path}: {name}"
            elif there == "allocator":
                assert folder in ("edge", "lab"), f"{path}: {name}"
            else:
                assert ORDER.index(there) <= ORDER.index(folder), f"{path}: {name}"
