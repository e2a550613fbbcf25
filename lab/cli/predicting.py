"""``endedge predict``: what a detector sees on pictures or in a video."""

from __future__ import annotations

import argparse
from pathlib import Path

from endedge.data.errors import BadInput
from endedge.lab.cli.arguments import Verb, add_base, add_device, add_side
from endedge.lab.cli.common import one_thread
from endedge.lab.cli.held import one_held

__all__ = ["declare"]


def declare(verb: Verb) -> None:
    """The verb's arguments."""
    sub = verb(
        "predict",
        predict_source,
        "draw detections on pictures or a video, and write them as JSON",
        "endedge predict update.eeu street.jpg --out seen --base yolov8n.pt\n"
        "  endedge predict yolov8n.pt day.mp4 --out seen --score 0.4",
    )
    sub.add_argument("model", help=".pt, .safetensors, .eeu, or the folder of a device or a run")
    sub.add_argument("source", help="a picture, a folder of pictures, or a video")
    sub.add_argument("--out", required=True, metavar="DIR", help="a new folder")
    add_base(sub)
    add_side(sub)
    sub.add_argument(
        "--score",
        type=float,
        default=0.25,
        help="lowest score of a box that is kept (default 0.25)",
    )
    add_device(sub)


def predict_source(a: argparse.Namespace) -> None:
    """``endedge predict``."""
    one_thread()
    from endedge.data.importing.writing import free
    from endedge.lab.cli.progress import Progress
    from endedge.lab.devices import pick_device
    from endedge.lab.drawn import predict
    from endedge.lab.inputs import check_side

    if not 0 < a.score < 1:
        raise BadInput(f"--score {a.score} is not between 0 and 1")
    free(Path(a.out))
    model = one_held(a.model, a.base)
    check_side(model, a.imgsz, "--imgsz", a.model)
    with Progress() as progress:
        made = predict(
            model,
            Path(a.source),
            Path(a.out),
            side=a.imgsz,
            min_score=a.score,
            device=pick_device(a.device),
            say=progress,
        )
    print(f"{made.boxes} boxes on {made.pictures} pictures: {a.out}")
    if made.broken:
        print(f"left out: {made.broken} pictures that do not decode")
