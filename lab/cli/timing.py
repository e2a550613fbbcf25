"""``endedge latency``: seconds a frame on this machine, engine by engine."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from endedge.data.errors import BadInput
from endedge.lab.cli.arguments import Verb, add_json, add_model
from endedge.lab.cli.common import one_thread
from endedge.lab.cli.held import declare_frames, one_held, seen

__all__ = ["declare"]

_RUNTIMES = ("torch", "onnx", "openvino", "openvino-int8")


def declare(verb: Verb) -> None:
    """The verb's arguments."""
    sub = verb(
        "latency",
        time_model,
        "seconds a frame on this machine (batch 1), in PyTorch, ONNX Runtime or OpenVINO",
        "endedge latency update.eeu --runtime torch --runtime openvino\n"
        "  endedge latency yolov8n.pt --runtime openvino-int8 --annotations val.json --images val/",
    )
    add_model(sub)
    sub.add_argument(
        "--runtime",
        action="append",
        choices=_RUNTIMES,
        metavar="RUNTIME",
        help="torch (default), onnx, openvino, openvino-int8; may be given several times",
    )
    sub.add_argument("--threads", type=int, default=1, help="threads of the engine (default 1)")
    sub.add_argument(
        "--seconds", type=float, default=3.0, help="seconds of timing for each engine (default 3)"
    )
    sub.add_argument(
        "--into", metavar="DIR", help="results folder: rows for its latency.csv and its report"
    )
    declare_frames(sub, "to time on")
    add_json(sub)


def time_model(a: argparse.Namespace) -> None:
    """``endedge latency``."""
    one_thread()
    import json

    from endedge.end.runtime import torch_threads
    from endedge.lab.config import results_folder
    from endedge.lab.latency_table import Row, add_rows

    if not 1 <= a.threads <= 256:
        raise BadInput(f"--threads {a.threads}: from 1 to 256")
    if not 0 < a.seconds <= 600:
        raise BadInput(f"--seconds {a.seconds}: more than 0, up to 600")
    into = results_folder(Path(a.into)) if a.into else None
    model = one_held(a.model, a.base)
    view = seen(model, a)
    rows: list[Row] = []
    for runtime in dict.fromkeys(a.runtime or ["torch"]):
        if runtime == "openvino-int8" and not (a.frames or a.annotations):
            raise BadInput("openvino-int8 needs frames of the device's camera: --frames DIR")
        with torch_threads(a.threads):
            rows.append(_row(model, runtime, view, a))
    if into:
        add_rows(into, rows)
    if a.json:
        print(json.dumps([vars(row) for row in rows], indent=1))
        return
    for row in rows:
        print(row)


def _row(model: Any, runtime: str, view: Any, a: argparse.Namespace) -> Any:
    from endedge.end.export import export
    from endedge.end.inference import detect_square
    from endedge.end.latency import latency
    from endedge.end.metric import coco_map
    from endedge.end.runtime import load_exported, torch_network
    from endedge.lab.latency_table import Row

    with tempfile.TemporaryDirectory(prefix="endedge-latency-") as scratch:
        if runtime == "torch":
            network = torch_network(model)
        else:
            kind, _, int8 = runtime.partition("-")
            out = Path(scratch) / "model"
            frames = view.frames.images[:300] if int8 else None
            export(model, kind, out, a.imgsz, lambda network: None, calibrate=frames)
            network = load_exported(out, kind, a.threads)
        timed = latency(
            network, view.frames.images, runtime=runtime, threads=a.threads, seconds=a.seconds
        )
        score = coco_map(view.truth, detect_square(network, view.frames)) if view.truth else None
    return Row.of(Path(a.model).name, a.imgsz, timed, score, view.what)
