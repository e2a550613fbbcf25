"""What a surface costs: our sweep, every cell by itself with `YOLO.train`, and fewer cells.

    python -m benchmarks.sweep demo --out runs/bench-sweep [--cells 4] [key=value …]

1. The grid of the configuration is measured (or taken from ``--out``, which may be a finished
   results folder), one worker. Its cost is the CPU time of all its nodes.
2. Of ``--cells`` cells, spread over the uploads, teacher and student are really trained by
   `YOLO.train` with the same steps on the same frames, the student with its own distillation
   (`distill_model=`); all that is no training is as in our cells: how far to go is chosen on the
   frames held back, then packing and evaluation. All cells by themselves are *extrapolated*: each
   cell costs what the trained cell of its upload size cost. The mAP differences to our cells are
   printed beside the spread of our seeds.
3. The cells of 1. are revealed one by one to the adaptive choice (a replay: nothing is measured
   again); cost and regret at each interval width, against the full grid's.

Prints tables and writes sweep.json. Killed, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.throughput import export, ultralytics
from endedge.data.storage import write_atomic
from endedge.distill.package.format import unpack
from endedge.distill.package.packing import pack
from endedge.edge.adapt import part_way
from endedge.end.metric import evaluate
from endedge.lab.cli.progress import Progress
from endedge.lab.config import Config, load_config
from endedge.lab.inputs import Inputs
from endedge.lab.store import Store
from endedge.lab.sweep.adaptive import Outlook, adaptive, links_over
from endedge.lab.sweep.cell import Cell, CellRunner
from endedge.lab.sweep.grid import grid, sweep

WIDTHS = (0.02, 0.01, 0.005, 0.002)
Row = dict[str, Any]


def cpu_seconds(folder: Path, stages: Sequence[str]) -> dict[str, float]:
    """CPU seconds of every finished node of ``stages`` by its key (wall seconds of nodes from
    before CPU time was kept)."""
    found = {}
    for path in (folder / "nodes").glob("*/record.json"):
        if path.parent.name.split("-")[0] in stages:
            node = json.loads(path.read_text())
            record = node["record"]
            found[path.parent.name] = float(
                node.get("cpu_seconds") or node.get("seconds") or record.get("seconds", 0.0)
            )
    return found


def alone(runner: CellRunner, cell: Cell, out: Path) -> Row:
    """The round of ``cell`` with `YOLO.train` for both trainings, as a node."""
    inputs, plan = runner.inputs, runner.inputs.config
    row = runner.measure(cell)

    def make(folder: Path) -> Row:
        received, shares = runner.received(cell), plan.held_back.shares
        frames = received.trained
        yaml = export(frames, dict(inputs.student.names), out / "export")
        train = partial(
            ultralytics, yaml=yaml, n=len(frames), side=inputs.side, seed=cell.seed, lean=False
        )
        teacher = train(inputs.teacher, steps=plan.teacher.recipe(cell.frames, cell.seed).steps)
        teacher = part_way(inputs.teacher, teacher, received.held_back, shares).model
        steps = plan.student.recipe(cell.frames, cell.seed).steps
        student = train(inputs.student, steps=steps, teacher=teacher)
        student = part_way(inputs.student, student, received.held_back, shares).model
        base = None if plan.downlink.mode == "full" else inputs.student
        packed = pack(student, cell.budget_bytes, base=base, frames=frames.images[:32])
        decoded = unpack(packed.data, base=inputs.student)
        return {"map": evaluate(decoded, inputs.evaluation_batch, inputs.evaluation).map}

    node = runner.store.node("alone", {"version": 3, "cell": row["cell"]}, make)
    seconds = cpu_seconds(runner.store.folder, ["alone"])[node.key]
    return {"cell": cell, "map": node.record["map"], "ours": row["decoded_map"], "seconds": seconds}


def compared(runner: CellRunner, cells: Sequence[Cell], n: int, out: Path) -> dict[str, Any]:
    """Part 2: the sampled cells, and the sum over all."""
    uploads = sorted({c.frames for c in cells})
    chosen = [uploads[i] for i in np.unique(np.linspace(0, len(uploads) - 1, n).astype(int))]
    most = max(c.budget_bytes for c in cells)
    sampled = [
        alone(runner, next(c for c in cells if c.frames == f and c.budget_bytes == most), out)
        for f in chosen
    ]
    sizes = np.array([s["cell"].frames for s in sampled], float)
    costs = np.array([s["seconds"] for s in sampled])
    total = float(sum(np.interp(c.frames, sizes, costs) for c in cells))
    rows = {c: runner.measure(c) for c in cells}
    spread = [
        np.ptp([rows[c]["decoded_map"] for c in cells if (c.frames, c.budget_bytes) == point])
        for point in {(c.frames, c.budget_bytes) for c in cells}
    ]
    return {"sampled": sampled, "total": total, "spread": float(np.mean(spread))}


def replay(config: Config, rows: Sequence[Row]) -> list[dict[str, float]]:
    """Part 3: cells revealed one by one. Regret: mean over bandwidths, to the best mean mAP of
    the full grid that fits; of the full grid itself, the same with all cells known."""
    by_cell = {Cell(r["seed"], r["frames"], r["codec"], r["budget_bytes"]): r for r in rows}
    cells = list(by_cell)
    points = [c for c in cells if c.seed == cells[0].seed]
    sizes = {c: float(by_cell[c]["upload_bytes"]) for c in points}
    links = links_over(config.link, sizes)
    truth = np.array(
        [
            np.mean(
                [
                    by_cell[c]["map"]
                    for c in cells
                    if (c.frames, c.codec, c.budget_bytes) == (p.frames, p.codec, p.budget_bytes)
                ]
            )
            for p in points
        ]
    )

    def trunk(cell: Cell) -> float:
        return float(by_cell[cell]["seconds_teacher"] + by_cell[cell]["seconds_student"])

    def leaf(cell: Cell) -> float:
        return float(by_cell[cell]["seconds_pack"] + by_cell[cell]["seconds_eval"])

    def cost(asked: Sequence[Cell]) -> float:
        trunks = {(c.seed, c.frames, c.codec): trunk(c) for c in asked}
        return sum(trunks.values()) + sum(leaf(c) for c in asked)

    def judged(width: float, asked: Sequence[Cell]) -> dict[str, float]:
        outlook = Outlook.of([by_cell[c] for c in asked], points, sizes, links)
        losses = []
        for fits in outlook.fits:
            at = np.flatnonzero(fits)
            losses.append(truth[at].max() - truth[at[outlook.draws.mean(0)[at].argmax()]])
        error = outlook.draws.mean(0) - truth  # of the whole surface, for comparison
        return {
            "width": width,
            "reached": outlook.width,
            "cells": len(asked),
            "seconds": cost(asked),
            "regret": float(np.mean(losses)),
            "surface_rmse": float(np.sqrt(np.mean(error**2))),
        }

    found = [judged(0.0, cells)]
    for width in WIDTHS:
        asked = adaptive(
            cells,
            lambda some: [by_cell[c] for c in some],
            sizes,
            links,
            width=width,
            trunk_seconds=trunk,
            leaf_seconds=lambda: float(np.mean([leaf(c) for c in cells])),
        )
        found.append(judged(width, asked))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("config", help="a configuration, or a finished results folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cells", type=int, default=4, help="trained by YOLO.train (0: none)")
    parser.add_argument("overrides", nargs="*")
    o, rest = parser.parse_known_args()
    torch.set_num_threads(1)
    config = load_config(o.config, ["workers=1", *o.overrides, *rest])
    with Progress() as progress:
        rows = sweep(config, o.out, progress)
    cells = grid(config)
    stages = cpu_seconds(o.out, ["start", "upload", "teacher", "student", "package", "cell"])
    ours = sum(stages.values())
    result: dict[str, Any] = {"cells": len(cells), "ours_cpu_seconds": ours}
    print(f"{len(cells)} cells, our sweep: {ours:.0f} CPU s")
    if o.cells:
        runner = CellRunner(Inputs.of(config, o.out), Store(o.out), lambda message: None)
        other = compared(runner, cells, o.cells, o.out)
        print(f"{'by itself with YOLO.train':32}{'CPU s':>8}{'mAP':>8}{'ours':>8}")
        for s in other["sampled"]:
            print(f"{s['cell']!s:32}{s['seconds']:8.1f}{100 * s['map']:8.2f}{100 * s['ours']:8.2f}")
        print(f"range of our seeds, mean over points: {100 * other['spread']:.2f} mAP points")
        print(
            f"all {len(cells)} cells by themselves, extrapolated: {other['total']:.0f} CPU s, "
            f"{other['total'] / ours:.1f} times ours"
        )
        result |= {
            "alone_cpu_seconds": other["total"],
            "seed_range_map": other["spread"],
            "sampled": [s | {"cell": str(s["cell"])} for s in other["sampled"]],
        }
    result["adaptive"] = replay(config, rows)
    full = result["adaptive"][0]
    columns = ("cells", "s", "saving", "regret", "rmse")
    print(f"\n{'adaptive, to a width of':26}" + "".join(f"{name:>8}" for name in columns))
    for step in result["adaptive"]:
        name = f"{100 * step['width']:.1f} mAP points" if step["width"] else "full grid"
        print(
            f"{name:26}{step['cells']:8}{step['seconds']:8.0f}"
            f"{full['seconds'] / step['seconds']:8.2f}{100 * step['regret']:8.2f}"
            f"{100 * step['surface_rmse']:8.2f}"
        )
    write_atomic(o.out / "sweep.json", json.dumps(result, indent=1).encode())


if __name__ == "__main__":
    main()
