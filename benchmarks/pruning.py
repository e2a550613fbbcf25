"""mAP against parameters kept: a detector pruned, repaired and distilled from itself.

    python -m benchmarks.pruning --weights yolov8n.pt --coco coco/ --out pruning/
    python -m benchmarks.pruning --out pruning/ --report docs/results/pruning

``--coco`` holds annotations/instances_eval.json, images/eval, and images/pool with
annotations/instances_pool.json: its frames, without their labels, say what to cut and teach the
rest. Every share is measured as cut (``prune``) and after ``--steps`` of distillation
(``pruned_and_recovered``). Each is one file of ``--out``: killed, the same command goes on.
Seconds are CPU seconds of one thread; latency is the median of 30 passes over one frame, in turns
with the whole detector.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from endedge.data.coco import Dataset, Frame, load_coco, nested_subset
from endedge.data.frames import Batch, stack_frames
from endedge.data.storage import write_atomic
from endedge.distill.model import DetectionModel, clone, count_parameters, load_detector
from endedge.distill.pruning import prune
from endedge.distill.recovery import pruned_and_recovered
from endedge.distill.training import Recipe
from endedge.end.metric import evaluate


def latency_ms(model: DetectionModel, whole: DetectionModel, side: int) -> tuple[float, float]:
    """Median milliseconds of one frame, of ``model`` and of ``whole``, run in turns."""
    frame = torch.zeros(1, 3, side, side)
    twins = [clone(m).eval().fuse(verbose=False) for m in (model, whole)]
    took: list[list[float]] = [[], []]
    with torch.no_grad():
        for _ in range(33):
            for twin, times in zip(twins, took, strict=True):
                start = time.perf_counter()
                twin(frame)
                times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(took[0][3:]), statistics.median(took[1][3:])


def measure(args: argparse.Namespace) -> None:
    """Cut, teach and evaluate every share that ``--out`` does not hold yet."""

    def look(frame: Frame) -> Any:
        return frame.read()

    def dataset(name: str) -> Dataset:
        return load_coco(
            args.coco / f"annotations/instances_{name}.json", args.coco / f"images/{name}"
        )

    truth, pool = dataset("eval"), dataset("pool")
    truth = truth.take(range(0, len(truth), args.every))
    frames: Batch = stack_frames(
        pool.take(nested_subset(len(pool), args.seed)[: args.frames]).frames, args.imgsz, look
    )
    eyes = stack_frames(truth.frames, args.imgsz, look)
    model = load_detector(args.weights)
    calibration = frames.images[: args.calibration]
    full = count_parameters(model)

    def file(kept: float, steps: int, make: Any) -> None:
        path = args.out / f"{kept:.2f}-{steps}-{args.lr:g}-s{args.seed}.json"
        if path.exists():
            return
        start = time.process_time()
        small = make()
        seconds = time.process_time() - start
        score = evaluate(small, eyes, truth)
        own_ms, whole_ms = latency_ms(small, model, args.imgsz)
        row = {
            "asked": kept,
            "kept": count_parameters(small) / full,
            "steps": steps,
            "lr": args.lr,
            "seed": args.seed,
            "map": score.map,
            "map50": score.map50,
            "images": score.images,
            "cpu_s": seconds,
            "latency_ms": own_ms,
            "whole_latency_ms": whole_ms,
        }
        write_atomic(path, json.dumps(row, indent=1).encode())
        print(
            f"{kept:.0%} kept, {steps} steps: mAP {100 * score.map:.2f}, {seconds:.0f} CPU s",
            flush=True,
        )

    args.out.mkdir(parents=True, exist_ok=True)
    file(1.0, 0, lambda: model)
    for kept in args.kept:
        file(kept, 0, lambda kept=kept: prune(model, kept, calibration, seed=args.seed))
        recipe = Recipe(steps=args.steps, batch=args.batch, lr=args.lr, layers=None, seed=args.seed)
        file(
            kept,
            args.steps,
            lambda kept=kept, recipe=recipe: pruned_and_recovered(
                model, kept, frames, recipe, calibration=calibration
            ),
        )


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a share a line, as cut and as taught."""
    whole = next(r for r in rows if r["asked"] == 1.0)
    lines = [
        f"Whole: {100 * whole['map']:.2f} mAP.",
        "",
        "| kept | steps | seed | mAP | lost | CPU s | latency, of the whole |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in sorted(rows, key=lambda r: (-r["kept"], r["steps"], r["seed"])):
        if r is not whole:
            lines.append(
                f"| {r['kept']:.1%} | {r['steps']} | {r['seed']} | {100 * r['map']:.2f} "
                f"| {100 * (whole['map'] - r['map']):.2f} | {r['cpu_s']:.0f} "
                f"| {r['latency_ms'] / r['whole_latency_ms']:.0%} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure what is missing; then, where asked, report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--coco", type=Path)
    parser.add_argument("--kept", type=float, nargs="+", default=[0.9, 0.8, 0.7, 0.5])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--frames", type=int, default=1390, help="of the pool, to learn from")
    parser.add_argument("--calibration", type=int, default=64, help="of them, to cut by")
    parser.add_argument("--every", type=int, default=1, help="use every n-th evaluation frame")
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, metavar="STEM")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.weights and args.coco:
        measure(args)
    if args.report:
        rows = [json.loads(f.read_text()) for f in sorted(args.out.glob("*.json"))]
        args.report.parent.mkdir(parents=True, exist_ok=True)
        args.report.with_suffix(".md").write_text(table(rows))
        args.report.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
        print(table(rows))


if __name__ == "__main__":
    main()
