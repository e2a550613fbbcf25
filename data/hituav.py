"""HIT-UAV, thermal frames from a drone: the authors' repository to folders that endedge reads.

J. Suo, T. Wang, X. Zhang, H. Chen, W. Zhou, W. Shi, *HIT-UAV: A high-altitude infrared thermal
dataset for Unmanned Aerial Vehicle-based object detection*, Scientific Data 10:227 (2023), CC BY
4.0. Of its 2,898 frames 1,154 are taken, split by flight: pool and evaluation are other days.

The frames come by git, at one commit: its name is a hash of everything in it, so what arrives is
what was pinned, file by file.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from itertools import accumulate
from pathlib import Path
from typing import Any

from PIL import Image

from endedge.data.errors import BadInput

__all__ = ["COMMIT", "FRAMES", "SOURCE", "fetch_hituav"]

SOURCE = "https://github.com/suojiashun/HIT-UAV-Infrared-Thermal-Dataset"
COMMIT = "f8100db7ce3ab602005dd9f32854bb57d4de9b87"
_FOLDER = "normal_json"  # of upright boxes; its train, val and test are mixed here
_LONG_SIDE, _QUALITY = 416, 90  # px, JPEG
_GIT_S = 3600.0

# Numbers of the frames (the last field of a file's name), each as its distance from the one before.
_STEPS = {
    "pool": """
        0 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3
        3 3 3 3 3 134 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3
        3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3
        3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 3 5 3 3
        3 3 3 3 3 3 3 3 3 3 3 3 5 4 4 4 5 137 5 7 7 13 7 1 3 6 3 8 5 3 7 2 3 3 6 4 4 5 11 8 1 4 4
        4 5 5 9 3 6 4 4 4 3 4 9 3 8 3 6 3 5 4 7 2 2 5 7 6 5 3 7 1 5 5 6 5 4 6 4 5 10 7 3 7 2 5 4 6
        5 5 6 1 7 4 5 7 3 5 4 2 4 3 4 5 2 7 3 5 2 2 4 3 3 3 3 3 3 3 4 2 1 4 3 3 4 3 2 3 8 4 4 7 3
        4 9 7 1 2 7 8 4 4 4 9 4 7 5 6 8 5 3 4 6 6 7 6 3 1 3 5 6 5 6 3 1 5 3 6 4 9 2 1 3 3 6 5 4 5
        7 4119 4 4 18 2 3 1 3 16 3 5 8 1 2 4 4 6 2 4 7 3 5 5 8 7 3 5 4 2 4 5 10 8 2 3 4 3 2 4 4 11
        2 3 4 3 8 4 5 6 237 2 2 7 9 7 2 5 4 5 6 5 2 5 1 2 3 4 4 3 2 13 4 3 3 1 3 4 10 5 12 2 1 1 3
        2 7 3 4 11 7 2 2 7 5 5 7 4 3 8 9 5 8 3 2 3 4 5 4 2 2 5 2 2 1 2 5 4 4 5 3 2 3 3 3 5 1 4 3 4
        7 4 3 7 2 3 4 4 1 1 3 3 2 2 3 4 2 4 1 4 3 3 6 3 3 3 3 3 4 4 3 3 2 2 4 3 5 2 3 3 4 4 3 3 4
        5 2 5 6 11 12 7 4 5 9 6 3 5 2 5 3 4 4 4 6 6 4 10 5 4 3 3 3 9 9 2 3 3 2 4 3 3 3 7 3 5 3 5 8
        6 2 6 9 3 9 2 5 5 5 6 7 4 3 4 6 3 4 6 7 2 3 8 7 5 9 5 3 3 2 3 4 3 7 4 3 3 3 4 5 3 11 11 4
        4 4 5 226 2 30 2 4 1 1 2 5 4 5 3 3 1 2 2 4 3 2 3 3 2 4 5 3 2 2 1 2 4 5 3 5 6 3 2 3 2 2 2 1
        3 2 3 5 2 1 2 1 7 4 3 2 2 3 4 3 1 2 3 2 3 7 3 2 5 4 3 2 4 4 1 2 2 2 1 1 2 7 1 2 4 5 3 2 2
        4 3 2 5 4 2 5 3 3 2 1 2 1 2 4 4 2 5 2 7 1 3 1 1 2 4 2 2 2 2 5 2 2 7 3 4 2 5 2 2 2 5 5 5 3
        6 7 2 3 4 10 7 4 3 5
    """,
    "eval": """
        1609 5 4 3 5 5 8 4 4 6 4 5 7 3 5 6 8 8 7 6 11 6 8 6 5 7 4 5 4 4 7 6 6 4 5 7 6 4 6 4 6 4 6
        6 8 11 12 7 11 13 7 8 10 9 4 6 6 6 15 7 6 6 14 5 6 6 11 7 7 6 6 8 6 14 8 9 9 8 8 7 14 8 8
        11 6 11 9 9 10 8 6 10 10 8 7 10 989 4 5 3 6 4 4 3 6 5 5 4 7 4 4 5 10 6 7 4 8 7 5 5 4 5 7 7
        22 13 13 12 20 11 14 10 9 10 8 11 6 31 20 23 8 9 5 7 21 6 16 11 12 16 16 22 280 6 13 12 10
        13 3 9 8 9 7 6 24 4 6 12 11 3 12 13 7 5 6 11 12 5 10 17 17 14 10 8 8 21 9 9 9 20 18 19 13
        19 19 20 12 4 7 9 8 2 6 6 5 6 10 5 7 6 1 7 6 7 6 4 11 7 3 1 2 7 2 6 3 7 2 2 8 3 2 7 4 1 3
        15 3 4 7 8 6 7 1 6 3 2 4 3 3 8 7 4 5 6 5 9 1 21 7 7 5 5 1 2 3 2 8 4 8 1 8 6 7 5 6 1 3 2 5
        6 3 6 7 1 9 6 5 5 3504 7 8 4 5 3 3 7 5 8 12 4 6 3 1 1 1 3 5 3 3 5 5 2 6 1 2 5 4 4 4 3 5 7
        2 2 4 2 3 6 3 2 8 2 1 2 7 6 6 2 3 3 3 2 3 5 6 2 1 7 4 4 3 2 2 10 6 8 4 8 3 10 4 2 4 5 4 4
        3 4 6 4 4 5 7 1 4 7 6 7 3 3 2 1 6 24 1 1 2 3 7 12
    """,
}
FRAMES: dict[str, tuple[int, ...]] = {
    split: tuple(accumulate(map(int, steps.split()))) for split, steps in _STEPS.items()
}

# Their categories to COCO's, by which detectors know them. Other vehicles are left out: so many of
# them carry no box that they would teach and count wrongly.
_COCO = {"Person": (1, False), "Bicycle": (2, False), "Car": (3, False), "DontCare": (1, True)}
_CATEGORIES = [
    {"supercategory": "person", "id": 1, "name": "person"},
    {"supercategory": "vehicle", "id": 2, "name": "bicycle"},
    {"supercategory": "vehicle", "id": 3, "name": "car"},
]


def fetch_hituav(
    folder: Path,
    *,
    source: str = SOURCE,
    commit: str = COMMIT,
    frames: dict[str, tuple[int, ...]] = FRAMES,
    say: Callable[[str], None] = lambda text: None,
) -> list[Path]:
    """``annotations/instances_{pool,eval}.json`` and ``images/{pool,eval}/`` in ``folder``, which
    becomes ``data.root``; the two annotation files are returned.

    Changed from the source: 640 x 512 to 416 x 333 px (Lanczos, JPEG q90), boxes with them;
    ``OtherVehicle`` left out; ``DontCare`` is a crowd region of persons, which COCO's metric
    ignores. Each image record has the frame's flight as its ``group``. ``source`` may be a mirror.
    A split that is there is kept. Raises :class:`BadInput` without git, for a source that does not
    answer or lacks the commit, and for files that are not what they were.
    """
    made = [folder / "annotations" / f"instances_{split}.json" for split in frames]
    if all(path.is_file() for path in made):
        return made
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".source-") as scratch:
        say(f"git fetches {_FOLDER} of {source}")
        _checkout(Path(scratch), source, commit)
        records = _read(Path(scratch) / _FOLDER)
        for split, path in zip(frames, made, strict=True):
            say(f"convert {len(frames[split])} frames of {split}")
            _convert(records, frames[split], folder, split, path)
    return made


def _checkout(where: Path, source: str, commit: str) -> None:
    """The one folder at the one commit; files of others are not fetched where the source allows."""
    if shutil.which("git") is None:
        raise BadInput("downloading hituav needs git, which is not installed here")
    _git(where, source, "init", "--quiet")
    _git(where, source, "sparse-checkout", "set", _FOLDER)
    _git(where, source, "remote", "add", "origin", source)
    _git(where, source, "fetch", "--quiet", "--depth=1", "--filter=blob:none", "origin", commit)
    _git(where, source, "checkout", "--quiet", commit)


def _git(where: Path, source: str, *arguments: str) -> None:
    quiet = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        subprocess.run(
            ["git", "-C", str(where), *arguments],
            check=True,
            capture_output=True,
            text=True,
            env=quiet,
            timeout=_GIT_S,
        )
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise BadInput(f"git {arguments[0]} of {source}: {last}") from None
    except subprocess.TimeoutExpired:
        raise BadInput(f"git {arguments[0]} of {source}: no end after {_GIT_S:.0f} s") from None


def _read(folder: Path) -> dict[int, dict[str, Any]]:
    """Every frame of the source by its number: ``path``, ``record``, and ``boxes`` as pairs of a
    category's name and x, y, width, height in px."""
    found: dict[int, dict[str, Any]] = {}
    try:
        for file in sorted((folder / "annotations").glob("*.json")):
            document = json.loads(file.read_text(encoding="utf-8"))
            names = {c["id"]: c["name"] for c in document["categories"]}
            boxes: dict[int, list[tuple[str, list[float]]]] = {}
            for a in document["annotation"]:
                boxes.setdefault(a["image_id"], []).append((names[a["category_id"]], a["bbox"]))
            for record in document["images"]:
                name = record["filename"]
                path = next(p for p in folder.glob(f"*/{name}") if p.is_file())
                number = int(Path(name).stem.rsplit("_", 1)[1])
                found[number] = {
                    "path": path,
                    "record": record,
                    "boxes": boxes.get(record["id"], []),
                }
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise BadInput(f"{folder.name} is not the HIT-UAV that was pinned: {error!r}") from None
    return found


def _convert(
    records: dict[int, dict[str, Any]],
    numbers: Iterable[int],
    folder: Path,
    split: str,
    to: Path,
) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    pictures = folder / "images" / split
    pictures.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        if number not in records:
            raise BadInput(f"HIT-UAV lacks frame {number}, which was pinned")
        source = records[number]
        width, height = _shrink(source["path"], pictures / f"{number + 1:012d}.jpg")
        record, name = source["record"], source["path"].name
        across, down = width / record["width"], height / record["height"]
        date, (flight, altitude) = record["date_captured"], name.split("_")[:2]
        images.append(
            {
                "id": number + 1,
                "file_name": f"{number + 1:012d}.jpg",
                "width": width,
                "height": height,
                "license": 1,
                "date_captured": date,
                "source_file": f"{_FOLDER}/{source['path'].parent.name}/{name}",
                "group": f"{date}-{flight}-{altitude}",
            }
        )
        for kind, (x, y, w, h) in source["boxes"]:
            if kind not in _COCO:
                continue
            category, crowd = _COCO[kind]
            box = [x * across, y * down, w * across, h * down]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number + 1,
                    "category_id": category,
                    "bbox": [round(v, 2) for v in box],
                    "area": round(box[2] * box[3], 2),
                    "iscrowd": int(crowd),
                }
            )
    document = {
        "info": {
            "description": "HIT-UAV, downscaled and split by flight",
            "url": SOURCE,
            "contributor": "J. Suo et al., Scientific Data 10:227 (2023), CC BY 4.0",
        },
        "licenses": [
            {"id": 1, "name": "CC BY 4.0", "url": "https://creativecommons.org/licenses/by/4.0/"}
        ],
        "images": images,
        "annotations": annotations,
        "categories": _CATEGORIES,
    }
    to.parent.mkdir(parents=True, exist_ok=True)
    part = to.with_name(f".{to.name}.part")
    part.write_text(json.dumps(document), encoding="utf-8")
    os.replace(part, to)  # the last thing: a split whose annotations are there is whole


def _shrink(path: Path, to: Path) -> tuple[int, int]:
    """The picture at ``path`` in the long side wanted, saved; its width and height in px."""
    try:
        with Image.open(path) as image:
            scale = _LONG_SIDE / max(image.size)
            size = (round(image.width * scale), round(image.height * scale))
            small = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    except OSError as error:
        raise BadInput(f"{path.name} of HIT-UAV cannot be read: {error}") from None
    small.save(to, quality=_QUALITY)
    return size
