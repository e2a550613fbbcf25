"""``endedge export``: a detector for the engine that a device has."""

from __future__ import annotations

import argparse
from pathlib import Path

from endedge.data.errors import BadInput
from endedge.lab.cli.arguments import Verb, add_json, add_model
from endedge.lab.cli.common import one_thread, show
from endedge.lab.cli.held import declare_frames, one_held, seen

__all__ = ["declare"]

_FORMATS = ("pt", "torchscript", "onnx", "openvino", "ncnn")


def declare(verb: Verb) -> None:
    """The verb's arguments."""
    sub = verb(
        "export",
        export_file,
        "export a model to an inference engine, and check it against PyTorch",
        "endedge export update.eeu --base yolov8n.pt --format onnx -o update.onnx\n"
        "  endedge export runs/cam1 --format openvino -o cam1_openvino_model --int8 --frames DIR",
    )
    add_model(sub)
    sub.add_argument(
        "--format",
        required=True,
        choices=_FORMATS,
        metavar="FORMAT",
        help="pt (Ultralytics), torchscript, onnx, openvino, ncnn",
    )
    sub.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help="file, or folder for openvino and ncnn (default: named after the model, here)",
    )
    sub.add_argument(
        "--int8", action="store_true", help="openvino: 8-bit integers, ranges from the frames"
    )
    declare_frames(sub, "to compare on")
    add_json(sub)


def export_file(a: argparse.Namespace) -> None:
    """``endedge export``."""
    one_thread()
    from endedge.distill.adapter import kind_of
    from endedge.end.export import agreement, export, suffix_of

    model = one_held(a.model, a.base)
    out = Path(a.output or f"{Path(a.model).resolve().stem}{suffix_of(a.format)}")
    view = seen(model, a)
    if a.int8 and a.format != "openvino":
        raise BadInput(f"--int8 is for --format openvino, not {a.format}")
    if a.int8 and not (a.frames or a.annotations):
        raise BadInput("--int8 needs frames of the device's camera for its ranges: --frames DIR")
    found = export(
        model,
        a.format,
        out,
        a.imgsz,
        lambda network: agreement(model, network, view.frames, view.truth, exact=not a.int8),
        calibrate=view.frames.images[:300] if a.int8 else None,
    )
    if not a.json:
        within = "" if (kind := kind_of(model)) == "none" else f"; input adapter within: {kind}"
        where = "" if a.frames or a.annotations else f" ({view.what})"
        print(f"{out}: {found}{where}{within}")
        return
    files = [out] if out.is_file() else [p for p in out.rglob("*") if p.is_file()]
    show(
        {
            "file": str(out),
            "format": a.format,
            "bytes": sum(p.stat().st_size for p in files),
            "imgsz": a.imgsz,
            "adapter": kind_of(model),
            **vars(found),
        },
        True,
    )
