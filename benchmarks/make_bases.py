"""Make the checkpoints that ship with the demo: student and teacher, trained on source frames.

    python -m benchmarks.make_bases

writes configs/demo/{student,teacher}.safetensors (fp16) and configs/demo/bases.json: the
recipe, the command, and the mAP that the files have on generated frames of both domains.
One thread and fixed seeds; about half an hour on one core.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from endedge.data.coco import Dataset
from endedge.data.frames import Batch, stack_frames
from endedge.data.generated import generate
from endedge.distill.losses import labels
from endedge.distill.model import (
    DetectionModel,
    build_detector,
    count_parameters,
    load_detector,
    save_detector,
)
from endedge.distill.training import Recipe, train
from endedge.end.metric import evaluate

DEMO = Path(__file__).resolve().parent.parent / "configs" / "demo"
NAMES = ("student", "teacher")
SIZE = 128
SEED = 0
FRAMES = 5000
EVAL_FRAMES = 300
RECIPE = Recipe(
    steps=2500, batch=16, lr=4e-3, final_lr=0.01, layers=None, train_norm=True, ema=0.99, seed=SEED
)
PROBE = replace(RECIPE, steps=4)


def frames_of(folder: Path, domain: str, split: str, n: int) -> tuple[Dataset, Batch]:
    """``n`` generated frames of a split, on disk under ``folder`` and in memory."""
    dataset = generate(folder, domain=domain, split=split, n=n, seed=SEED, size=SIZE)
    return dataset, stack_frames(dataset.frames, SIZE, lambda frame: frame.read())


def make(
    name: str, frames: Batch, recipe: Recipe, tell: Callable[[int, float], None]
) -> DetectionModel:
    """Train configs/demo/<name>.yaml from random weights on ``frames``; ``tell(step, loss)``."""
    torch.manual_seed(recipe.seed)
    start = build_detector(yaml.safe_load((DEMO / f"{name}.yaml").read_text()))
    return train(start, frames, labels, recipe, on_step=tell)


def first_losses(name: str, folder: Path) -> list[float]:
    """The losses of the first steps on few frames: they tell in seconds whether frames, initial
    weights, loss and optimizer are still those that made the shipped file."""
    _, frames = frames_of(folder, "source", "probe", 2 * RECIPE.batch)
    found: list[float] = []
    make(name, frames, PROBE, lambda _, loss: found.append(round(loss, 4)))
    return found


def scores(path: Path, folder: Path) -> dict[str, Any]:
    """What a shipped file is worth, by domain of the frames."""
    model = load_detector(path)
    found: dict[str, Any] = {"parameters": count_parameters(model), "bytes": path.stat().st_size}
    for domain in ("source", "field"):
        dataset, frames = frames_of(folder, domain, "eval", EVAL_FRAMES)
        score = evaluate(model, frames, dataset)
        found[domain] = {"map": round(score.map, 4), "map50": round(score.map50, 4)}
    return found


def _progress(name: str) -> Callable[[int, float], None]:
    began = time.monotonic()

    def tell(step: int, loss: float) -> None:
        if step % 100 == 0:
            seconds = time.monotonic() - began
            print(f"{name} step {step} loss {loss:.3f} {seconds:.0f} s", flush=True)

    return tell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DEMO, help="folder for the files")
    parser.add_argument("--steps", type=int, default=RECIPE.steps)
    parser.add_argument("--frames", type=int, default=FRAMES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recipe = replace(RECIPE, steps=arguments.steps)
    document: dict[str, Any] = {
        "command": f"python -m benchmarks.make_bases --steps {recipe.steps} "
        f"--frames {arguments.frames}",
        "recipe": asdict(recipe),
        "frames": {"train": arguments.frames, "eval": EVAL_FRAMES, "seed": SEED, "size_px": SIZE},
        "torch": torch.__version__,
    }
    print(document["command"], flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        _, frames = frames_of(Path(scratch), "source", "train", arguments.frames)
        for name in NAMES:
            path = arguments.out / f"{name}.safetensors"
            save_detector(make(name, frames, recipe, _progress(name)), path, half=True)
            document[name] = scores(path, Path(scratch))
            document[name]["first_losses"] = first_losses(name, Path(scratch))
            print(name, json.dumps(document[name]), flush=True)
    draft = arguments.out / f".bases.{os.getpid()}.json"
    draft.write_text(json.dumps(document, indent=2) + "\n")
    os.replace(draft, arguments.out / "bases.json")


if __name__ == "__main__":
    main()
