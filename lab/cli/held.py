"""Detectors as the command line names them, and the frames that a verb looks at them with."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endedge.data.errors import BadInput
from endedge.lab.cli.arguments import add_side

__all__ = ["Seen", "declare_frames", "one_held", "seen"]


@dataclass(frozen=True, eq=False)
class Seen:
    """Letterboxed frames (a :class:`~endedge.data.frames.Batch`), their labels where there are
    any (a :class:`~endedge.data.coco.Dataset`), and what they are in words."""

    frames: Any
    truth: Any
    what: str


def one_held(name: str, base: str | None) -> Any:
    """The detector in a checkpoint, in a package (a delta needs ``base``), in use on a device
    (the folder of ``endedge device --out``), or on the device of a measured folder after the
    update with the highest mAP (``endedge run --out``).

    Raises :class:`BadInput` for what is none of these, a device without an update, and a folder
    in which none was worth sending.
    """
    from endedge.distill.package.format import unpack
    from endedge.lab.cli.common import detector, read_bytes

    path = Path(name)
    if (path / "surface.csv").is_file():
        package, start = _best_measured(path)
        return unpack(read_bytes(package), base=detector(base or str(start)))
    if path.is_dir():
        return detector(str(_in_use(path)))
    if path.suffix == ".eeu":
        return unpack(read_bytes(path), base=detector(base) if base else None)
    return detector(name)


def _best_measured(folder: Path) -> tuple[Path, Path]:
    """The package that reached the highest mAP in a folder of results, and what it was sent to."""
    from endedge.allocator.csv_files import read_csv
    from endedge.lab.config import load_config
    from endedge.lab.inputs import find_weights
    from endedge.lab.store import Store

    rows = [row for row in read_csv(folder / "surface.csv") if row.get("sent") == "1"]
    if not rows:
        raise BadInput(f"{folder}: no update was worth sending there, so its device runs the start")
    best = max(rows, key=lambda row: (float(row["map"]), -int(row["update_bytes"])))
    node = Store(folder).open(best["cell"])
    record = {} if node is None else json.loads((node.folder / "record.json").read_text())
    key = str(record.get("determinants", {}).get("package", ""))
    package = Store(folder).open(key) if key else None
    if package is None:
        raise BadInput(
            f"{folder}: the package of its best cell is gone; `endedge measure {folder}` makes it"
        )
    print(
        f"{folder}: the update of {int(best['update_bytes']):,} B after {best['frames']} frames, "
        f"seed {best['seed']}: mAP {float(best['map']):.3f}",
        file=sys.stderr,
    )
    weights = load_config(folder).weights  # the device began with the first
    return package.folder / "update.eeu", find_weights(weights.student[0], weights.root)


def _in_use(folder: Path) -> Path:
    """The model file that a device's state names, looked at without touching that state."""
    place = folder / "models" if (folder / "models" / "current.json").is_file() else folder
    current = place / "current.json"
    if not current.is_file():
        raise BadInput(
            f"{folder} is no device's folder with an update in use (no models/current.json); "
            "until the first one a device runs the student of its configuration"
        )
    try:
        file = json.loads(current.read_text())["file"]
        model = place / Path(str(file)).name
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{current} is damaged: {error}") from None
    return model


def seen(model: Any, a: Any) -> Seen:
    """The frames of ``--annotations`` and ``--images``, of ``--frames``, or made-up ones, at
    ``--imgsz``. Raises :class:`BadInput` for one without the other, and other classes."""
    from endedge.data.classes import match_classes
    from endedge.data.coco import check_boxes, check_pictures, load_coco
    from endedge.data.frames import stack_frames, unlabelled
    from endedge.distill.package.sensitivity import synthetic_frames
    from endedge.lab.cli.common import calibration_frames
    from endedge.lab.inputs import check_side

    check_side(model, a.imgsz, "--imgsz", a.model)
    if bool(a.annotations) != bool(a.images):
        raise BadInput("--annotations and --images belong together")
    if a.annotations:
        truth = load_coco(a.annotations, a.images)
        names = tuple(model.names.values())
        truth = match_classes(truth, names, what=a.annotations, detector=a.model)
        check_boxes(truth, a.annotations)
        check_pictures(truth)
        frames = stack_frames(truth.frames, a.imgsz, lambda f: f.read())
        by = "" if truth.labels == "truth" else f" (labels: {truth.labels})"
        return Seen(frames, truth, f"{len(truth)} labelled frames{by}")
    if a.frames:
        pictures = calibration_frames(Path(a.frames), a.imgsz)
        return Seen(unlabelled(pictures), None, f"{len(pictures)} frames")
    return Seen(unlabelled(synthetic_frames(16, a.imgsz)), None, "16 made-up frames (noise)")


def declare_frames(sub: Any, what: str) -> None:
    """The arguments that :func:`seen` reads."""
    add_side(sub)
    sub.add_argument("--annotations", metavar="JSON", help=f"labelled frames {what}: mAP, too")
    sub.add_argument("--images", metavar="DIR", help="their pictures")
    sub.add_argument("--frames", metavar="DIR", help=f"unlabelled frames {what}")
