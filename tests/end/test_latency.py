"""A latency by hand: frames that took 1, 2, …, 40 ms, half of it in the network."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from endedge.end import latency as timing
from endedge.end.latency import latency


def test_the_figures_are_of_the_times_that_they_name(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []

    def one(network: Any, image: torch.Tensor) -> tuple[float, float]:
        shown.append(int(image[0, 0, 0]))
        k = len(shown) - 3  # three only warm up
        return 1e-3 * k, 0.4e-3 * k

    monkeypatch.setattr(timing, "_one", one)
    monkeypatch.setattr(timing, "_while", lambda seconds: range(40))
    pictures = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 3, 2, 2)
    found = latency(lambda x: x, pictures, runtime="openvino", threads=3)
    assert shown == [k % 4 for k in range(43)]  # each picture in turn
    assert (found.runtime, found.threads, found.runs) == ("openvino", 3, 40)
    assert found.median_s == pytest.approx(20.5e-3)
    assert found.network_s == pytest.approx(0.4 * 20.5e-3)
    assert found.low_s == pytest.approx(4.1e-3)  # a tenth of 41 below
    assert found.high_s == pytest.approx(36.9e-3)
    assert found.frames_per_s == pytest.approx(1 / 20.5e-3)


def test_as_many_runs_as_fit_but_twenty(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    # Twenty whatever they take, then one a second until the time is over, two hundred at most.
    assert len(list(timing._while(0.5))) == 20
    assert len(list(timing._while(5.0))) == 20 + 5
    assert len(list(timing._while(1e9))) == 200
