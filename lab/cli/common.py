"""What several verbs need: the configuration, a progress bar, detectors by name, printing.

Heavy imports live inside the functions, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from endedge.data.errors import BadInput

if TYPE_CHECKING:
    from endedge.lab.config import Config

__all__ = [
    "calibration_frames",
    "config_from",
    "detector",
    "headline",
    "judged_by",
    "one_thread",
    "progress_bar",
    "read_bytes",
    "show",
]


def config_from(a: argparse.Namespace) -> Any:
    from endedge.lab.config import load_config

    engine = getattr(a, "engine", None)
    return load_config(a.config, [*a.overrides, *([f"engine={engine}"] if engine else [])])


def headline(folder: Path) -> str:
    from endedge.lab.benchmark.ranking import summary
    from endedge.lab.config.reading import config_of

    return judged_by(config_of(folder)) + summary(folder / "benchmark.csv")


def judged_by(config: Config) -> str:
    """A line to print first where mAP is not accuracy."""
    if config.data.eval_labels == "truth":
        return ""
    return "evaluated on the teacher's labels: agreement with it, not accuracy\n"


def progress_bar() -> Any:
    from endedge.lab.cli.progress import Progress

    return Progress()


def one_thread() -> None:
    """Unless the user says otherwise: several threads stall each other on a shared machine.
    Before NumPy and PyTorch are loaded, which read this once."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def detector(name: str) -> Any:
    """A detector by its path, or one that ships with the package (``endedge:demo/…``)."""
    from endedge.distill.model import load_detector
    from endedge.lab.inputs import find_weights

    return load_detector(find_weights(name, None))


def read_bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > 2**31:
            raise BadInput(f"{path} is larger than 2 GiB; not an update package")
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None


def calibration_frames(folder: Path, side: int) -> Any:
    import torch

    from endedge.data.coco import read_image
    from endedge.data.frames import letterbox

    paths = sorted(p for p in folder.glob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not paths:
        raise BadInput(f"--frames {folder} holds no .jpg or .png images")
    pictures = [letterbox(read_image(p), side)[0].transpose(2, 0, 1) for p in paths[:64]]
    return torch.stack([torch.from_numpy(p) for p in pictures])


def show(values: dict[str, Any], as_json: bool) -> None:
    """One value a line, or JSON. People read mAP in %, programs in [0, 1]."""
    if as_json:
        print(json.dumps(values, indent=1))
        return
    for key, value in values.items():
        shown = f"{value:,}" if isinstance(value, int) else value
        if isinstance(value, float):
            accuracy = "map" in key.split("_") or key == "map50"
            shown = f"{100 * value:.2f} %" if accuracy else f"{value:.4f}"
        print(f"{key:16} {shown}")
