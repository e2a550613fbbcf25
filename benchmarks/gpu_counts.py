"""What a cell asks of a GPU, counted without one: arithmetic, kernels, waits and bytes.

    python -m benchmarks.gpu_counts [--side 320] [--batch 16] [--json FILE]

Arithmetic is counted on PyTorch's meta device, kernels and waits on the pretend accelerator of the
tests; both follow from the networks and the code, not from weights or frames. docs/scaling.md is
made of these figures. An operation is counted as one kernel (cuDNN may take two), a multiplication
with its addition as two operations.
"""

from __future__ import annotations

import argparse
import json
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from endedge.data.frames import Batch, unlabelled
from endedge.distill.feed import Feed, Targets
from endedge.distill.losses import TeacherCache, distillation, heads, labels
from endedge.distill.model import DetectionModel, clone
from endedge.distill.network import DEFAULT_CFG
from endedge.distill.package.sensitivity import measure
from endedge.distill.training import Recipe, train
from endedge.edge.adapt import held_back_losses
from endedge.end.inference import detect

SIMULATED = Path(__file__).parents[1] / "tests/device/simulated.py"
TINY = 64  # px: how many kernels there are does not depend on it


def built(name: str) -> DetectionModel:
    torch.manual_seed(0)
    model = DetectionModel(f"{name}.yaml", nc=80, verbose=False)
    model.args = DEFAULT_CFG
    return model.eval()


def flops(model: DetectionModel, layers: int | None, batch: int, side: int) -> dict[str, float]:
    """Operations of one forward pass, and of one training step of the first ``layers``."""
    model = clone(model).to("meta").train().requires_grad_(False)
    images = torch.zeros(batch, 3, side, side, device="meta")
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model(images)
    model.model[:layers].requires_grad_(True)
    model.model[-1].dfl.requires_grad_(False)
    with FlopCounterMode(display=False) as step:
        head = heads(model(images))[0]
        (head["scores"].sum() + head["boxes"].sum()).backward()
    return {
        "forward_gflop": forward.get_total_flops() / 1e9,
        "step_gflop": step.get_total_flops() / 1e9,
    }


def frames(n: int, boxes: int) -> Batch:
    drawn = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 3, TINY, TINY), dtype=torch.uint8, generator=drawn)
    where = [0.25 + 0.5 * torch.rand(boxes, 4, generator=drawn) for _ in range(n)]
    return unlabelled(images).relabel(where, [torch.zeros(boxes, dtype=torch.int64)] * n)


def counted(seen: Any, run: Callable[[], object]) -> dict[str, float]:
    seen.forget()
    run()
    return {"kernels": seen.kernels, "waits": sum(seen.waits.values())}


def of_a_step(
    seen: Any, start: DetectionModel, towards: Callable[[DetectionModel], Any], layers: int | None
) -> dict[str, float]:
    """The second of three steps."""
    counts: list[dict[str, float]] = []
    batches = Feed.__iter__

    def between(feed: Feed) -> Iterator[Targets]:
        for targets in batches(feed):
            counts.append({"kernels": seen.kernels, "waits": sum(seen.waits.values())})
            seen.forget()
            yield targets

    Feed.__iter__ = between  # type: ignore[method-assign]
    try:
        recipe = Recipe(steps=3, batch=2, layers=layers, train_norm=True)
        train(start, frames(4, 3), towards, recipe, device="sim")
    finally:
        Feed.__iter__ = batches  # type: ignore[method-assign]
    return counts[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--teacher", default="yolov8m")
    parser.add_argument("--student", default="yolov8n")
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--json", type=Path)
    o = parser.parse_args()
    torch.set_num_threads(1)
    pretend = runpy.run_path(str(SIMULATED))
    if why := pretend["missing"]():
        raise SystemExit(why)
    pretend["register"]()
    teacher, student = built(o.teacher), built(o.student)
    found: dict[str, dict[str, float]] = {}
    for role, model, layers in (
        ("teacher, first 5 layers", teacher, 5),
        ("student, first 5 layers", student, 5),
        ("student, all layers", student, None),
    ):
        found[role] = flops(model, layers, o.batch, o.side)
    with pretend["simulated"]() as seen:
        found["teacher, first 5 layers"] |= of_a_step(seen, teacher, labels, 5)
        towards = distillation(TeacherCache(teacher, "sim"))
        found["student, first 5 layers"] |= of_a_step(seen, student, towards, 5)
        found["student, all layers"] |= of_a_step(seen, student, towards, None)
        some = frames(8, 3)
        found["evaluation, 64 frames"] = {
            "forward_gflop": 64 / o.batch * found["student, all layers"]["forward_gflop"],
            **counted(seen, lambda: detect(student, some, device="sim")),
        }
        found["held-back losses, 8 frames"] = counted(
            seen, lambda: held_back_losses(student, some, "sim")
        )
        found["sensitivities, 8 frames"] = counted(
            seen, lambda: measure(student, some.images, device="sim")
        )
    for what, figures in found.items():
        told = ", ".join(f"{name} {value:,.0f}" for name, value in figures.items())
        print(f"{what:28} {told}")
    if o.json:
        o.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
