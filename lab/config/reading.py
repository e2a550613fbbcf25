"""Configuration files read: a path or a shipped name, with changes to single keys."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from endedge.configs import SHIPPED
from endedge.data.annotations import read_text
from endedge.data.errors import BadInput
from endedge.lab.config.experiment import Config
from endedge.lab.config.sections import Loop
from endedge.lab.strict_yaml import read_yaml

__all__ = ["all_keys", "config_of", "load_config", "loop_of", "results_folder"]


def loop_of(config: Config) -> Loop:
    """The loop's section, or :class:`BadInput`."""
    if config.loop is None:
        raise BadInput("the configuration has no 'loop' section; see configs/demo-loop.yaml")
    return config.loop


def load_config(where: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file (or one shipped by name: ``demo``) and apply ``key=value`` overrides.

    Raises :class:`BadInput` with the key and what would be right for anything unknown or out
    of range.
    """
    text, name = _read(Path(where))
    document = read_yaml(text, name)
    if not isinstance(document, dict):
        raise BadInput(f"{name} holds a {type(document).__name__}; a configuration is a mapping")
    if (Path(where) / "annotations").is_dir() and isinstance(document.get("data", {}), dict):
        document.setdefault("data", {}).setdefault("root", str(where))  # an imported folder
    for override in overrides:
        _apply(document, override)
    try:
        return Config.model_validate(document)
    except ValidationError as error:
        raise BadInput(f"{name}: {_first(error)}") from None


def config_of(folder: Path, changes: Sequence[str] = ()) -> Config:
    """The configuration of a results folder. Raises :class:`BadInput` where there is none."""
    return load_config(results_folder(folder) / "config.yaml", changes)


def results_folder(folder: Path) -> Path:
    """``folder``; raises :class:`BadInput` unless it is one of results."""
    if not (folder / "config.yaml").is_file():
        raise BadInput(f"{folder} is not a results folder (no config.yaml); run 'endedge measure'")
    return folder


def _read(path: Path) -> tuple[str, str]:
    shipped = SHIPPED / f"{path.name.removesuffix('.yaml')}.yaml"
    try:
        if (path / "config.yaml").is_file():
            path = path / "config.yaml"
        if path.is_file():
            if path.stat().st_size > 2**20:
                raise BadInput(f"{path} is larger than 1 MiB; not a configuration")
            return read_text(path), str(path)
        if len(path.parts) == 1 and shipped.is_file():
            return shipped.read_text(encoding="utf-8"), path.name
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {path}: {error}") from None
    raise BadInput(f"configuration not found: {path}; give a YAML file or a shipped name ('demo')")


def _apply(document: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise BadInput(f"override {override!r} is not key=value, e.g. data.root=/my/coco")
    *parents, last = key.split(".")
    at = document
    for parent in parents:
        at = at.setdefault(parent, {})
        if not isinstance(at, dict):
            raise BadInput(f"override {override!r}: {parent} is not a section")
    at[last] = read_yaml(value, f"override {override!r}: the value")


def _first(error: ValidationError) -> str:
    """The first complaint as one line, with a suggestion for a mistyped key."""
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = sorted(all_keys())
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known[:12])}, …"
        return f"unknown key {key!r}{hint}"
    given = "" if problem["type"] == "missing" else f" (given: {str(problem['input'])[:60]!r})"
    return f"{key or 'configuration'}: {problem['msg']}{given}"


def all_keys(model: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Every key below a section, as changes name it: ``link.period_s``."""
    found = []
    for name, field in model.model_fields.items():
        found.append(prefix + name)
        optional = get_origin(field.annotation) is UnionType
        for kind in get_args(field.annotation) if optional else (field.annotation,):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found += all_keys(kind, f"{prefix}{name}.")
    return found
