"""Experiments that ship with the package: one YAML file each, and the demo's detectors."""

from pathlib import Path

SHIPPED = Path(__file__).parent
