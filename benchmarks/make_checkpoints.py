"""Checkpoints as Ultralytics' own trainer writes them, one nano model a family.

    python -m benchmarks.make_checkpoints --out /tmp/checkpoints --families v5u 8 11

Each model starts with 80 classes and random weights (a ``.pt`` that Ultralytics saves) and is
fine-tuned by ``YOLO(start).train(data=…)`` on a few generated frames, which show another number
of classes: an epoch at 64 px. What remains in the folder of a family:

* ``finished.pt``: ``best.pt`` or ``last.pt`` of the run that ended, stripped of its optimizer;
* ``epoch.pt``: what ``save_period=1`` leaves; ``interrupted.pt``: ``last.pt`` of a run that was
  stopped. Both hold the optimizer and the trainer's arguments.

With ``--check`` each of them then goes through endedge, as student and as teacher: loaded (the
output is that of Ultralytics' own loading, bit by bit), evaluated, fine-tuned and distilled for
two steps, packed to 600 kB and decoded; then through the verbs ``eval``, ``pack`` and ``distill``.
A line each says what came of it.

Nothing touches the network, and the user's own Ultralytics settings stay as they are.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from endedge.data.coco import Dataset, read_image
from endedge.data.frames import Batch, stack_frames
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
_FRAMES: dict[str, Any] = {"domain": "field", "split": "pool", "n": 8, "seed": 0, "size": _SIDE}


def yolo_frames(folder: Path) -> Path:
    """Eight generated frames in YOLO's layout under ``folder``; its ``data.yaml``."""
    frames = generate(folder / "generated", **_FRAMES)
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


def check(path: Path, frames: Batch, truth: Dataset) -> str:
    """What becomes of one checkpoint, in every stage; raises what any of them raises."""
    from endedge.distill.losses import TeacherCache, distillation, labels
    from endedge.distill.model import load_detector
    from endedge.distill.package.format import unpack
    from endedge.distill.package.packing import pack
    from endedge.distill.recipe import Recipe
    from endedge.distill.training import train
    from endedge.edge.adapt import held_back_loss
    from endedge.end.metric import evaluate

    model = load_detector(path)
    saved = torch.load(path, map_location="cpu", weights_only=False)  # made here a moment ago
    theirs = (saved.get("ema") or saved["model"]).float().eval()
    picture = frames.images[:1].float() / 255
    with torch.no_grad():
        same = bool((model(picture)[0] == theirs(picture)[0]).all())
    recipe = Recipe(steps=2, batch=2, layers=None)
    tuned = train(model, frames, labels, recipe)
    taught = train(model, frames, distillation(TeacherCache(tuned)), recipe)
    loss = held_back_loss(taught, frames)
    decoded = unpack(pack(taught, 600_000, frames=frames.images[:1]).data)
    score = evaluate(decoded, frames, truth).map
    return f"{'same' if same else 'OTHER'} output, loss {loss:.2f}, packed, mAP {score:.3f}"


def verbs(path: Path, frames: Path) -> str:
    """The same checkpoint through ``endedge eval``, ``pack`` and ``distill``, as student and
    teacher; raises where one of them does not end well."""
    from endedge.lab.cli.main import main as endedge

    folder, labelled = path.parent, frames / "field-pool.json"
    common = ["--annotations", str(labelled), "--images", str(frames / "field-pool")]
    config = {
        "name": "one",
        "data": {
            "source": "coco",
            "root": str(frames),
            "image_side": _SIDE,
            **{f"{which}_annotations": f"field-{which}.json" for which in ("pool", "eval")},
            **{f"{which}_images": f"field-{which}" for which in ("pool", "eval")},
        },
        "weights": {"teacher": str(path), "student": str(path)},
        "uplink": {"frames": [4, 8], "codecs": [f"jpeg-q75-{_SIDE}"]},
        "teacher": {"steps": 2, "batch": 2},
        "student": {"steps": 2, "batch": 2},
        "downlink": {"budgets_bytes": [400_000, 600_000]},
    }
    (folder / "one.yaml").write_text(yaml.safe_dump(config))
    package = folder / "update.eeu"
    for words in (
        ["eval", str(path), *common, "--imgsz", str(_SIDE)],
        ["pack", str(path), "--budget", "600kB", "-o", str(package)],
        ["eval", str(package), *common, "--imgsz", str(_SIDE)],
        ["distill", str(folder / "one.yaml"), "--frames", "8", "--out", str(folder / "one")],
    ):
        with contextlib.redirect_stdout(io.StringIO()):
            if (status := endedge(words)) != 0:
                raise SystemExit(f"endedge {' '.join(words)}: status {status}")
    return "eval, pack, eval of the package, distill"


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
    parser.add_argument("--check", action="store_true", help="and send them through endedge")
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
            if args.check and path.name == "finished.pt":
                truth = generate(args.out / "frames/generated", **_FRAMES)
                pictures = stack_frames(truth.frames, _SIDE, lambda f: read_image(f.path))
                print(f"{family}: {check(path, pictures, truth)}", flush=True)
                generate(args.out / "frames/generated", **(_FRAMES | {"split": "eval"}))
                print(f"{family}: {verbs(path, args.out / 'frames/generated')}", flush=True)
        print(f"{family}: {time.process_time() - began:.0f} s of processor time", flush=True)


if __name__ == "__main__":
    main()
