"""The pretend accelerator as a fixture, and its pretend CUDA graphs."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from endedge.distill import graphs

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


class _Stream:
    device = torch.device("cpu")

    def __init__(self, device: object) -> None:
        pass

    def wait_stream(self, other: object) -> None:
        pass


@pytest.fixture
def tapes(sim: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """As if the pretend accelerator had CUDA graphs; those that were made."""
    made: list[Any] = []

    def graph() -> Any:
        made.append(sim.tape())
        return made[-1]

    def record(tape: Any, stream: object) -> AbstractContextManager[None]:
        found: AbstractContextManager[None] = tape.recording()
        return found

    monkeypatch.setattr(graphs, "_DEVICES", ("sim",))
    monkeypatch.setattr(torch.cuda, "Stream", _Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", _Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", graph)
    monkeypatch.setattr(torch.cuda, "graph", record)
    return made
