"""Experiments that ship with the package: one YAML file each, and the demo's detectors."""

from pathlib import Path

SHIPPED = Path(__file__).parent


def file_of(name: str) -> Path:
    """The file that ``name`` is: one that ships here (``endedge:traces/walk``), or a path."""
    shipped = name.startswith("endedge:")
    return SHIPPED / name.removeprefix("endedge:") if shipped else Path(name)
