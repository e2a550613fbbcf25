"""A training step as one CUDA graph: the host starts one recording in place of a thousand kernels.

The first steps are computed as ever, on a stream of their own; the next one is recorded, forward,
backward and optimizer, and from then on replayed: a batch is copied to where the recorded one lay.
So every step must do the same operations on tensors of the same shapes, and nothing of it may come
from the host (https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture). Batches
of a :class:`~endedge.distill.feed.Feed` are so; tests/device holds the trainings to it.

    with recording(True):
        student = train(start, frames, objective, recipe, device="cuda")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import cast

import torch
from torch import Tensor

from endedge.data.errors import BadInput
from endedge.distill.feed import Targets

__all__ = ["Recorded", "check_graphs", "recorded_on", "recording"]

_WARM_UP = 3  # steps before the recorded one: libraries choose their kernels and fill their caches
_DEVICES = ("cuda",)

_wanted = ContextVar("graphs", default=False)


def check_graphs(device: str) -> None:
    """Raises :class:`BadInput` where ``device`` has no CUDA graphs."""
    if torch.device(device).type not in _DEVICES:
        raise BadInput(
            f"cuda_graphs: there are none on {device}, only on NVIDIA's GPUs; use cuda_graphs=false"
        )


@contextmanager
def recording(wanted: bool) -> Iterator[None]:
    """Inside, trainings on CUDA record their step if it is ``wanted``."""
    mark = _wanted.set(wanted)
    try:
        yield
    finally:
        _wanted.reset(mark)


def recorded_on(device: str) -> bool:
    """Whether trainings on ``device`` record their step."""
    return _wanted.get() and torch.device(device).type in _DEVICES


class Recorded:
    """``step`` (of a batch; gives its loss, a scalar, and leaves no gradient behind) as a graph on
    ``device``. Steps come one after the other, with batches of one shape."""

    def __init__(self, step: Callable[[Targets], Tensor], device: str) -> None:
        self._step, self._done = step, 0
        self._side = torch.cuda.Stream(torch.device(device))  # type: ignore[no-untyped-call]
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, targets: Targets) -> Tensor:
        self._done += 1
        if self._done <= _WARM_UP:
            return self._beside(targets)
        if self._graph is None:
            self._graph = self._record(targets)
        for held, given in zip(_inputs(self._held), _inputs(targets), strict=True):
            held.copy_(given)
        self._graph.replay()
        return self._loss.clone()  # the next replay writes over it

    def _beside(self, targets: Targets) -> Tensor:
        here = torch.cuda.current_stream(self._side.device)
        self._side.wait_stream(here)
        with torch.cuda.stream(self._side):
            loss = self._step(targets)
        here.wait_stream(self._side)
        return loss

    def _record(self, targets: Targets) -> torch.cuda.CUDAGraph:
        """The step of a batch that lies where ``self._held`` does; recording computes nothing."""
        images, boxes, view = (given.clone() for given in _inputs(targets))
        # How many rows there are changes from batch to batch: a loss that reads them fails here.
        rows = cast(Tensor, None)
        self._held = Targets(images, rows, (), (), boxes, targets.feed, view)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._side):
            self._loss = self._step(self._held)
        return graph


def _inputs(targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
    assert targets.padded is not None
    assert targets.view is not None
    return targets.images, targets.padded, targets.view
