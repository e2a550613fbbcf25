"""The pretend accelerator as a fixture."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_SIMULATED = runpy.run_path(str(Path(__file__).parent / "simulated.py"))
_WHY_NOT = _SIMULATED["missing"]()
if not _WHY_NOT:
    _SIMULATED["register"]()


@pytest.fixture
def sim() -> Iterator[Any]:
    """Counts what happens on ``device="sim"`` (see simulated.py)."""
    if _WHY_NOT:
        pytest.skip(_WHY_NOT)
    with _SIMULATED["simulated"]() as seen:
        yield seen
