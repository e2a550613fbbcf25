"""Distillation against its baselines at equal steps: labels alone, Ultralytics' feature
distillation, and ours, on the frames, seeds and recipe of one configuration.

    python benchmarks/distillation.py configs/coco-infrared.yaml --frames 64 --out runs/distil \\
        data.root=DIR weights.root=DIR seeds=[0,1,2]

Prints a table and writes distillation.json. Every training is a node of the results folder:
killed, the same command goes on. On a CPU about (steps x 2 s + evaluation) a row and seed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from endedge.data.storage import write_atomic
from endedge.distill.losses import FeatureL2, Objective, TeacherCache, distillation, labels
from endedge.distill.model import DetectionModel, load_detector
from endedge.distill.training import train
from endedge.end.metric import evaluate
from endedge.lab.cell import Cell, Rounds
from endedge.lab.config import load_config
from endedge.lab.store import Store
from endedge.lab.world import World

Make = Callable[[DetectionModel], Objective]


def methods(teacher: DetectionModel, device: str, gains: tuple[float, ...]) -> dict[str, Make]:
    """The losses that compete; ``teacher`` is the adapted one."""
    cache = TeacherCache(teacher, device)
    label, score, box = gains
    return {
        "labels": labels,
        "ultralytics (dis 6)": lambda m: FeatureL2(m, teacher, gain=6.0, device=device),
        "ultralytics (dis 1)": lambda m: FeatureL2(m, teacher, gain=1.0, device=device),
        "ours": distillation(cache, label_gain=label, score_gain=score, box_gain=box),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("config")
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("overrides", nargs="*")
    arguments, rest = parser.parse_known_args()
    torch.set_num_threads(1)
    config = load_config(arguments.config, [*arguments.overrides, *rest])
    world = World.of(config, arguments.out)
    store = Store(arguments.out)
    rounds = Rounds(world, store, lambda message: print(f"  {message}", flush=True))
    found: dict[str, list[float]] = {}
    for seed in config.seeds:
        cell = Cell(seed, arguments.frames, config.uplink.codecs[0], 0)
        node = rounds.teacher(cell, rounds.upload(cell))
        teacher = load_detector(node.folder / "teacher.safetensors")
        gains = config.distillation
        for name, objective in methods(
            teacher, world.device, (gains.label_gain, gains.score_gain, gains.box_gain)
        ).items():
            recipe = config.student.recipe(arguments.frames, seed)

            def make(
                folder: Path, cell: Cell = cell, objective: Make = objective, seed: int = seed
            ) -> dict[str, Any]:
                torch.manual_seed(seed)  # the baseline's projections start at random
                began = time.perf_counter()
                frames = rounds.received(cell).trained
                recipe = config.student.recipe(cell.frames, seed)
                student = train(world.student, frames, objective, recipe, device=world.device)
                score = evaluate(student, world.evaluation_batch, world.evaluation, world.device)
                return {"map": score.map, "seconds": time.perf_counter() - began}

            determinants = {
                "teacher": node.key, "student": world.hashes["student"], "method": name,
                "recipe": asdict(recipe), "gains": gains.model_dump() if name == "ours" else None,
            }  # fmt: skip
            record = store.node("distillation", determinants, make).record
            found.setdefault(name, []).append(record["map"])
            print(f"seed {seed} {name:20} mAP {100 * record['map']:.2f}", flush=True)
    print(f"\n{arguments.frames} frames, {len(config.seeds)} seeds: mAP, mean and each")
    for name, values in found.items():
        each = " ".join(f"{100 * v:.2f}" for v in values)
        print(f"{name:20} {100 * np.mean(values):6.2f}   {each}")
    text = json.dumps({"frames": arguments.frames, "map": found}, indent=1)
    write_atomic(arguments.out / "distillation.json", text.encode())


if __name__ == "__main__":
    main()
