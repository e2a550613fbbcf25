"""Where a GPU's memory is too small: smaller batches, fewer workers, and a failure only alone."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

import pytest
import torch

from endedge.configs import SHIPPED
from endedge.data.frames import Batch, unlabelled
from endedge.distill.feed import Feed
from endedge.distill.memory import halving, short_of_memory
from endedge.distill.model import DetectionModel, load_detector
from endedge.distill.teacher import TeacherCache
from endedge.end import inference
from endedge.lab.sweep.cell import Cell
from endedge.lab.sweep.scheduler import Pool, Result, Scheduler, Task, drive, work


def _tight(room: int) -> Any:
    """What needs more than ``room`` of a batch finds no memory."""

    def run(size: int) -> int:
        if size > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return size

    return run


def test_a_batch_is_halved_until_it_fits() -> None:
    assert halving(_tight(64), 64) == 64
    assert halving(_tight(5), 64) == 4
    with pytest.raises(torch.OutOfMemoryError):
        halving(_tight(0), 64)

    def broken(size: int) -> int:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        halving(broken, 64)


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_is_a_lack_of_memory(error: Exception, short: bool) -> None:
    assert short_of_memory(error) is short


STUDENT = load_detector(SHIPPED / "demo/student.safetensors")


def _frames(n: int) -> Batch:
    drawn = torch.Generator().manual_seed(0)
    return unlabelled(torch.randint(0, 256, (n, 3, 64, 64), dtype=torch.uint8, generator=drawn))


def _no_more_than(monkeypatch: pytest.MonkeyPatch, room: int) -> list[int]:
    """Detectors find no memory for batches larger than ``room``; the sizes that were tried."""
    tried: list[int] = []
    forward = DetectionModel.forward

    def tight(model: DetectionModel, x: Any, *given: Any, **named: Any) -> Any:
        tried.append(len(x))
        if len(x) > room:
            raise torch.OutOfMemoryError("out of memory")
        return forward(model, x, *given, **named)

    monkeypatch.setattr(DetectionModel, "forward", tight)
    return tried


def test_detections_do_not_change_with_the_memory(
    sim: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = _frames(6)
    wanted = inference.detect(STUDENT, frames)
    tried = _no_more_than(monkeypatch, 2)
    found = inference.detect(STUDENT, frames, device="sim", batch_size=8)
    assert tried == [6, 4, 2, 2, 2]
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.scores.tolist() == pytest.approx(theirs.scores.tolist(), abs=1e-5)


def test_nor_what_a_teacher_says(sim: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    orders = [([0, 1], [False, True]), ([1, 2], [False, True]), ([0, 1], [False, True])]
    feed = Feed(_frames(3), orders, "sim")
    wanted = [TeacherCache(STUDENT, "sim")(targets)[0].cpu() for targets in feed]
    tried = _no_more_than(monkeypatch, 1)
    cache = TeacherCache(STUDENT, "sim")
    for targets, scores in zip(feed, wanted, strict=True):
        assert torch.allclose(cache(targets)[0].cpu(), scores, atol=0.02)
    assert tried == [4, 4, 4, 4, 2, 1, 1, 1, 1][-len(tried) :]
    assert len(feed.views) == 4  # each asked once, though the batches show six


def test_a_teacher_with_more_to_say_than_there_is_room_for(
    sim: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked at every step instead, it says the same."""
    orders = [([0, 1], [False, True]), ([0, 1], [False, True])]
    feed = Feed(_frames(2), orders, "sim")
    kept = [tuple(o.cpu() for o in TeacherCache(STUDENT, "sim")(t)) for t in feed]
    monkeypatch.setattr("endedge.distill.teacher._MOST_BYTES", 1000)
    asked = [tuple(o.cpu() for o in TeacherCache(STUDENT, "sim")(t)) for t in feed]
    for a, b in zip(kept, asked, strict=True):
        assert all(torch.allclose(x, y, atol=0.02) for x, y in zip(a, b, strict=True))


# Workers --------------------------------------------------------------------------------------


class _Gpu:
    """Room for ``room`` tasks at a time; one more finds no memory. Whatever waits is ended by
    ``ease``."""

    def __init__(self, room: int) -> None:
        self.room, self.at_work, self.most, self.eased = room, 0, 0, 0
        self.waiting: list[tuple[Future[list[Result]], Task, bool]] = []

    def submit(self, task: Task) -> Future[list[Result]]:
        promise: Future[list[Result]] = Future()
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        self.waiting.append((promise, task, self.at_work > self.room))
        threading.Timer(0.01, self._one).start()
        return promise

    def _one(self) -> None:
        promise, task, short = self.waiting.pop(0)
        self.at_work -= 1
        cells = task.cells or (None,)
        if short:
            promise.set_result([Result(c, None, "out of memory", short=True) for c in cells])
        elif task.trunk or not task.cells:
            promise.set_result([])
        else:
            promise.set_result([Result(c, {"cell": str(c)}) for c in cells])

    def ease(self) -> None:
        self.eased += 1


@pytest.mark.parametrize(("room", "good"), [(1, True), (2, True), (8, True), (0, False)])
def test_fewer_workers_share_a_gpu_whose_memory_is_short(room: int, good: bool) -> None:
    cells = [Cell(0, 4 * (t + 1), "jpeg-q75-64", b) for t in range(4) for b in (10, 20, 30)]
    gpu = _Gpu(room)
    pool = Pool(gpu.submit, 8, ease=gpu.ease)
    scheduler = Scheduler(dict.fromkeys(cells, "upload"), lambda c: c.frames, pool, start=False)
    results: list[Result] = []
    drive(scheduler, pool, results.append, lambda: None)
    assert sorted(str(r.cell) for r in results) == sorted(map(str, cells))
    assert all((r.row is not None) is good for r in results)
    assert (gpu.eased > 0) is (room < 4)  # four trunks are all that there is at first
    if not good:
        assert all("with no other worker beside it" in r.failure for r in results)


def test_a_worker_says_that_memory_was_short() -> None:
    class Runner:
        def trunk(self, cell: Cell) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory.")

        measure = trunk

    cell = Cell(0, 4, "jpeg-q75-64", 10)
    for task in (Task((cell,), trunk=True), Task((cell,))):
        [result] = work(Runner(), task)  # type: ignore[arg-type]
        assert result.short
        assert "out of memory" in result.failure
