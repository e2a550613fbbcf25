"""Checkpoints as Ultralytics' own trainer writes them, one nano model a family.

    python benchmarks/make_checkpoints.py --out /tmp/checkpoints --families v5u 8 11

Each model starts with 80 classes and random weights (a ``.pt`` that Ultralytics saves) and is
fine-tuned by ``YOLO(start).train(data=…)`` on a few generated frames, which show another number
of classes: an epoch at 64 px. What remains in the folder of a family:

* ``finished.pt``: ``best.pt`` or ``last.pt`` of the run that ended, stripped of its optimizer;
* ``epoch.pt``: what ``save_period=1`` leaves; ``interrupted.pt``: ``last.pt`` of a run that was
  stopped. Both hold the optimizer and the trainer's arguments.

Nothing touches the network, and the user's own Ultralytics settings stay as they are.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from endedge.data.generated import generate

FAMILIES = {
    "v5u": "yolov5n",
    "v8": "yolov8n",
    "v9": "yolov9t",
    "10": "yolov10n",
    "11": "yolo11n",
    "12": "yolo12n",
    "26": "yolo26n",
}
_SIDE = 64


def yolo_frames(folder: Path, n: int = 8) -> Path:
    """``n`` generated frames in YOLO's layout under ``folder``; its ``data.yaml``."""
    frames = generate(folder / "generated", domain="field", split="pool", n=n, seed=0, size=_SIDE)
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for frame in frames.frames:
        shutil.copy(frame.path, folder / "images" / frame.path.name)
        rows = []
        for (x, y, w, h), label in zip(frame.boxes.tolist(), frame.labels.tolist(), strict=True):
            middle = ((x + w / 2) / frame.width, (y + h / 2) / frame.height)
            rows.append(f"{label} {middle[0]} {middle[1]} {w / frame.width} {h / frame.height}")
        (folder / "labels" / f"{frame.path.stem}.txt").write_text("\n".join(rows))
    data = folder / "data.yaml"
    described = {"path": str(folder), "train": "images", "val": "images"}
    data.write_text(yaml.safe_dump({**described, "names": dict(enumerate(frames.names))}))
    return data


def make(family: str, data: Path, out: Path) -> list[Path]:
    """The three checkpoints of ``family`` in the folder ``out``."""
    from ultralytics import YOLO

    import endedge.distill.model  # noqa: F401 (first: it keeps Ultralytics offline)

    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    start = out / "start.pt"
    YOLO(f"{FAMILIES[family]}.yaml").save(start)
    run = _train(start, data, out / "whole", epochs=1, save_period=1)
    shutil.copy(run / "last.pt", out / "finished.pt")
    shutil.copy(run / "epoch0.pt", out / "epoch.pt")
    shutil.copy(
        _train(start, data, out / "cut", epochs=3, stop=True) / "last.pt", out / "interrupted.pt"
    )
    for folder in ("whole", "cut"):
        shutil.rmtree(out / folder)
    return [start, *(out / f"{name}.pt" for name in ("finished", "epoch", "interrupted"))]


class _Stop(Exception):  # noqa: N818 (somebody's Ctrl-C)
    pass


def _train(start: Path, data: Path, project: Path, *, stop: bool = False, **options: Any) -> Path:
    """The folder of weights of one training by Ultralytics."""
    from ultralytics import YOLO

    def on_save(trainer: Any) -> None:
        raise _Stop

    model = YOLO(start)
    if stop:
        model.add_callback("on_model_save", on_save)
    settings: dict[str, Any] = {
        "imgsz": _SIDE,
        "batch": 4,
        "workers": 0,
        "device": "cpu",
        "amp": False,
        "plots": False,
        "verbose": False,
        "project": str(project),
        "name": "run",
        "exist_ok": True,
        "val": False,
    }
    with contextlib.suppress(_Stop):
        model.train(data=str(data), **settings, **options)
    return project / "run" / "weights"


def private_settings(folder: Path) -> None:
    """Ultralytics' settings in ``folder``, with a font that it would else download."""
    import matplotlib

    os.environ["YOLO_CONFIG_DIR"] = str(folder)
    place = folder / "Ultralytics"
    place.mkdir(parents=True, exist_ok=True)
    font = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    for name in ("Arial.ttf", "Arial.Unicode.ttf"):
        shutil.copy(font, place / name)


def main(argv: Sequence[str] | None = None) -> None:
    """Make them and say what each file weighs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    here = str(Path(__file__).resolve().parent)
    sys.path[:] = [p for p in sys.path if p != here]  # packaging.py in it hides a library's name
    private_settings(args.out / "settings")
    data = yolo_frames(args.out / "frames")
    for family in args.families:
        began = time.process_time()
        for path in make(family, data, args.out / family):
            print(f"{path} {path.stat().st_size:,} B", flush=True)
        print(f"{family}: {time.process_time() - began:.0f} s of processor time", flush=True)


if __name__ == "__main__":
    main()
