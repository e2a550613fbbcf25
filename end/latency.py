"""How long one frame takes on this machine: the letterboxed picture in, boxes out, batch 1."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle

import torch
from torch import Tensor

from endedge.end.inference import Network, suppressed

__all__ = ["Latency", "latency"]

_LEAST_RUNS, _MOST_RUNS = 20, 200


@dataclass(frozen=True)
class Latency:
    """``median_s`` of a frame; ``low_s`` and ``high_s``: the 10th and the 90th percentile;
    ``network_s``: the median without turning the picture to floats and without suppression;
    ``runs`` timed, on ``threads`` threads of the engine ``runtime``."""

    runtime: str
    median_s: float
    low_s: float
    high_s: float
    network_s: float
    runs: int
    threads: int

    @property
    def frames_per_s(self) -> float:
        """Frames a second of one stream, one frame after the other."""
        return 1 / self.median_s


@torch.inference_mode()
def latency(
    network: Network, images: Tensor, *, runtime: str, threads: int, seconds: float = 3.0
) -> Latency:
    """Time ``network`` on ``images`` (n, 3, s, s) uint8, over and over for about ``seconds``, 20
    to 200 frames after three that only warm up. Boxes are suppressed above a score of 0.25, as a
    device would; ``threads`` is what the engine was given, and is only written down here.

    Args:
        network: of an engine, from :mod:`endedge.end.runtime`.
        images: (n, 3, s, s) uint8, n >= 1.
        runtime: name of the engine, for the record.
        threads: that the engine was given, for the record.
        seconds: for about so long, > 0.
    """
    pictures = cycle(images)
    for _ in range(3):
        _one(network, next(pictures))
    whole, inner = [], []
    for _ in _while(seconds):
        total, net = _one(network, next(pictures))
        whole.append(total)
        inner.append(net)
    tenths = statistics.quantiles(whole, n=10)
    return Latency(
        runtime,
        statistics.median(whole),
        tenths[0],
        tenths[-1],
        statistics.median(inner),
        len(whole),
        threads,
    )


def _while(seconds: float) -> Iterator[int]:
    start = time.perf_counter()
    for run in range(_MOST_RUNS):
        if run >= _LEAST_RUNS and time.perf_counter() - start > seconds:
            return
        yield run


def _one(network: Network, image: Tensor) -> tuple[float, float]:
    start = time.perf_counter()
    ready = image[None].float() / 255
    began = time.perf_counter()
    raw = network(ready)
    ended = time.perf_counter()
    suppressed(raw, 0.25)
    return time.perf_counter() - start, ended - began
