"""Distillation against its baselines at equal steps: labels alone, Ultralytics' feature
distillation, and ours, on the frames, seeds and recipe of one configuration.

    python -m benchmarks.distillation configs/coco-infrared.yaml --frames 64 --out runs/distil \\
        data.root=DIR weights.root=DIR seeds=[0,1,2]

The first rows change the loss only: everything else is our recipe. The last are what
`YOLO.train(distill_model=...)` does by itself with as many steps, as it comes, and told to train
the same layers at our rate without mosaic.

Prints a table and writes distillation.json. Every training is a node of the results folder:
killed, the same command goes on. On a CPU about (steps x 2 s + evaluation) a row and seed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics.utils import DEFAULT_CFG_DICT

from benchmarks.throughput import export, ultralytics
from endedge.data.errors import BadInput
from endedge.data.frames import Batch
from endedge.data.storage import write_atomic
from endedge.distill.losses import FeatureL2, Objective, TeacherCache, distillation, labels
from endedge.distill.model import DetectionModel, load_detector
from endedge.distill.responses import Responses
from endedge.distill.training import Recipe, train
from endedge.end.metric import evaluate
from endedge.lab.config import load_config
from endedge.lab.inputs import Inputs
from endedge.lab.store import Store
from endedge.lab.sweep.cell import Cell, CellRunner

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


BY_ITSELF = {"YOLO.train": False, "YOLO.train, told": True}
_THEIRS = (  # what our benchmarks set otherwise
    "nbs",
    "optimizer",
    "lr0",
    "lrf",
    "cos_lr",
    "momentum",
    "warmup_epochs",
    "warmup_bias_lr",
    "mosaic",
    "hsv_h",
    "hsv_s",
    "hsv_v",
    "translate",
    "scale",
    "erasing",
    "auto_augment",
)


def by_itself(
    start: DetectionModel,
    teacher: DetectionModel,
    frames: Batch,
    recipe: Recipe,
    told: bool,
    scratch: Path,
) -> DetectionModel:
    """`YOLO.train(distill_model=teacher)` with the steps of ``recipe``; ``told`` its layers and
    rate, too."""
    settings: dict[str, Any] = {k: DEFAULT_CFG_DICT[k] for k in _THEIRS}
    if told:
        settings = {"lr0": recipe.lr, "freeze": list(range(recipe.layers or 0, len(start.model)))}
    yaml = export(frames, dict(start.names), scratch / "export")
    return ultralytics(
        start,
        yaml,
        len(frames),
        recipe.steps,
        frames.images.shape[-1],
        recipe.seed,
        True,
        teacher,
        settings,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("config")
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("overrides", nargs="*")
    arguments, rest = parser.parse_known_args()
    torch.set_num_threads(1)
    config = load_config(arguments.config, [*arguments.overrides, *rest])
    inputs = Inputs.of(config, arguments.out)
    store = Store(arguments.out)
    runner = CellRunner(inputs, store, lambda message: print(f"  {message}", flush=True))
    found: dict[str, list[float]] = {}
    for seed in config.seeds:
        cell = Cell(seed, arguments.frames, config.uplink.codecs[0], 0)
        node = runner.teacher(cell, runner.upload(cell))
        teacher = load_detector(node.folder / "teacher.safetensors")
        gains = config.distillation
        if not isinstance(gains, Responses):
            raise BadInput("this benchmark is about the loss 'responses'")
        losses = methods(
            teacher, inputs.device, (gains.label_gain, gains.score_gain, gains.box_gain)
        )
        recipe = config.student.recipe(arguments.frames, seed)
        for name in [*losses, *BY_ITSELF]:

            def make(
                folder: Path,
                name: str = name,
                cell: Cell = cell,
                recipe: Recipe = recipe,
                teacher: DetectionModel = teacher,
                losses: dict[str, Make] = losses,
            ) -> dict[str, Any]:
                torch.manual_seed(recipe.seed)  # the baseline's projections start at random
                began = time.perf_counter()
                frames, start = runner.received(cell).trained, inputs.student
                if name in losses:
                    student = train(start, frames, losses[name], recipe, device=inputs.device)
                else:
                    student = by_itself(start, teacher, frames, recipe, BY_ITSELF[name], folder)
                    shutil.rmtree(folder)
                    folder.mkdir()
                score = evaluate(student, inputs.evaluation_batch, inputs.evaluation, inputs.device)
                return {"map": score.map, "seconds": time.perf_counter() - began}

            determinants = {
                "teacher": node.key,
                "student": inputs.hashes["student"],
                "method": name,
                "recipe": asdict(recipe),
                "gains": gains.model_dump() if name == "ours" else None,
            }
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
