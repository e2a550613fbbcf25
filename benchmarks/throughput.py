"""One short training: our loop against Ultralytics' `YOLO.train` with the same settings.

    python -m benchmarks.throughput --out runs/throughput [--frames 64] [--steps 100] [--seeds 3]
    python -m benchmarks.throughput --out … --coco DIR --weights yolov8n.pt --side 320

Same start, frames, labels, batch, AdamW, schedule, flips, all layers trained, batch-norm
following the frames, last weights; 1 thread, fp32. The demo's student and generated frames by
default. `YOLO.train` runs twice: as it comes, and with everything switched off that can be
(validation, plots, saving, workers). Detection loss is measured by one function on the training
frames, mAP on the evaluation frames. Prints a table with the ratio and writes throughput.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from endedge.configs import SHIPPED
from endedge.data.coco import Dataset, load_coco, nested_subset
from endedge.data.frames import Batch, stack_frames
from endedge.data.generated import generate
from endedge.data.storage import write_atomic
from endedge.distill.losses import labels
from endedge.distill.model import DetectionModel, clone, load_detector
from endedge.distill.training import Recipe, train
from endedge.edge.adapt import held_back_loss
from endedge.end.metric import evaluate

LR, FINAL, BATCH = 1e-3, 0.05, 16


def ours(start: DetectionModel, frames: Batch, steps: int, seed: int) -> DetectionModel:
    recipe = Recipe(
        steps=steps,
        batch=BATCH,
        lr=LR,
        final_lr=FINAL,
        layers=None,
        train_norm=True,
        ema=0.0,
        seed=seed,
    )
    return train(start, frames, labels, recipe)


def export(frames: Batch, names: dict[int, str], folder: Path) -> Path:
    """The letterboxed frames as Ultralytics reads them: pictures, label files, a YAML."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for i in range(len(frames)):
        picture = frames.images[i].numpy().transpose(1, 2, 0)
        cv2.imwrite(str(folder / "images" / f"{i:05d}.png"), picture[:, :, ::-1])
        rows = [
            " ".join(map(str, [int(label), *map(float, box)]))
            for label, box in zip(frames.labels[i], frames.boxes[i], strict=True)
        ]
        (folder / "labels" / f"{i:05d}.txt").write_text("\n".join(rows))
    listed = "\n".join(f"  {i}: {json.dumps(name)}" for i, name in names.items())
    yaml = folder / "data.yaml"
    yaml.write_text(f"path: {folder.resolve()}\ntrain: images\nval: images\nnames:\n{listed}\n")
    return yaml


def ultralytics(
    start: DetectionModel,
    yaml: Path,
    n: int,
    steps: int,
    side: int,
    seed: int,
    lean: bool,
    teacher: DetectionModel | None = None,
    settings: Mapping[str, Any] | None = None,
) -> DetectionModel:
    """`YOLO.train` from ``start``, distilled from ``teacher`` where there is one; ``lean``: without
    all that is not training. ``settings`` replace those of our recipe."""
    from ultralytics.models.yolo.detect import DetectionTrainer

    epochs = max(1, round(steps / math.ceil(n / BATCH)))
    arguments: dict[str, Any] = {
        "data": str(yaml),
        "model": "yolov8n.yaml",
        "epochs": epochs,
        "imgsz": side,
        "batch": BATCH,
        "nbs": BATCH,
        "optimizer": "AdamW",
        "lr0": LR,
        "lrf": FINAL,
        "cos_lr": True,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "warmup_epochs": epochs / 10,
        "warmup_bias_lr": 0.0,
        "mosaic": 0.0,
        "hsv_h": 0.0,
        "hsv_s": 0.0,
        "hsv_v": 0.0,
        "translate": 0.0,
        "scale": 0.0,
        "erasing": 0.0,
        "auto_augment": None,
        "fliplr": 0.5,
        "seed": seed,
        "device": "cpu",
        "amp": False,
        "pretrained": False,
        "exist_ok": True,
        "project": str(yaml.parent.resolve()),
        "name": "run",
        "verbose": False,
    }
    if lean:
        arguments |= {"val": False, "plots": False, "save": False, "workers": 0, "cache": "ram"}
    arguments |= settings or {}
    if teacher is not None:
        file = yaml.parent / "teacher.pt"
        torch.save({"model": clone(teacher)}, file)
        arguments["distill_model"] = str(file)
    trainer = DetectionTrainer(overrides=arguments)
    trainer.get_model = lambda **_: clone(start)
    trainer.train()
    torch.set_num_threads(1)
    trained = trainer.ema.ema if trainer.ema is not None else trainer.model
    trained = getattr(trained, "student_model", trained)
    made = clone(start)
    made.load_state_dict(trained.float().state_dict())
    return made.eval()


def measured(
    make: Callable[[], DetectionModel], frames: Batch, truth: Dataset, evaluation: Batch
) -> dict[str, float]:
    wall, cpu = time.perf_counter(), sum(os.times()[:4])  # loaders, too
    model = make()
    wall, cpu = time.perf_counter() - wall, sum(os.times()[:4]) - cpu
    score = evaluate(model, evaluation, truth)
    loss = held_back_loss(model, frames)
    return {"seconds": wall, "cpu_seconds": cpu, "loss": loss, "map": score.map}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--coco", type=Path, help="folder of COCO frames instead of generated ones")
    parser.add_argument("--weights", type=Path, default=SHIPPED / "demo/student.safetensors")
    o = parser.parse_args()
    torch.set_num_threads(1)
    if o.coco:
        pool = load_coco(o.coco / "annotations/instances_pool.json", o.coco / "images/pool")
        truth = load_coco(o.coco / "annotations/instances_eval.json", o.coco / "images/eval")
    else:
        made = o.out / "frames"
        pool = generate(made, domain="field", split="pool", n=256, seed=0, size=o.side)
        truth = generate(made, domain="field", split="eval", n=250, seed=0, size=o.side)
    start = load_detector(o.weights)
    evaluation = stack_frames(truth.frames, o.side, lambda f: f.read())
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(o.seeds):
        chosen = pool.take(nested_subset(len(pool), seed)[: o.frames])
        frames = stack_frames(chosen.frames, o.side, lambda f: f.read())
        yaml = export(frames, dict(start.names), o.out / "export")

        theirs = partial(ultralytics, start, yaml, len(frames), o.steps, o.side, seed)
        ways: dict[str, Callable[[], DetectionModel]] = {
            "ours": partial(ours, start, frames, o.steps, seed),
            "YOLO.train": partial(theirs, lean=False),
            "YOLO.train, lean": partial(theirs, lean=True),
        }
        if not found:  # what is imported and set up at the first use is nobody's
            ours(start, frames, 1, seed)
            ultralytics(start, yaml, len(frames), 1, o.side, seed, lean=True)
        for name, make in ways.items():
            one = measured(make, frames, truth, evaluation)
            found.setdefault(name, []).append(one)
            print(f"seed {seed} {name:17} " + " ".join(f"{k} {v:.3f}" for k, v in one.items()))
    print(f"\n{o.frames} frames, {o.steps} steps, median of {o.seeds} seeds")
    print(f"{'':18}{'s':>8}{'CPU s':>8}{'ratio':>7}{'loss':>8}{'mAP':>7}")
    base = float(np.median([v["cpu_seconds"] for v in found["ours"]]))
    for name, values in found.items():
        m = {k: float(np.median([v[k] for v in values])) for k in values[0]}
        print(
            f"{name:18}{m['seconds']:8.1f}{m['cpu_seconds']:8.1f}{m['cpu_seconds'] / base:7.2f}"
            f"{m['loss']:8.3f}{100 * m['map']:7.2f}"
        )
    write_atomic(o.out / "throughput.json", json.dumps(found, indent=1).encode())


if __name__ == "__main__":
    main()
