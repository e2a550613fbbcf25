"""What label tools write, in small: the same frames and boxes as each tool would export them.

Each function takes an empty folder and a data set, and writes the tool's own layout with the
oddities that its exports have. Read from ``tests/conftest.py`` (the fixture ``exports``).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from endedge.data.coco import Dataset, Frame


def _boxes(frame: Frame, frames: Dataset) -> list[tuple[str, list[float]]]:
    return [
        (frames.names[int(k)], [float(v) for v in box])
        for box, k in zip(frame.boxes, frame.labels, strict=True)
    ]


def _copy(frame: Frame, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(frame.path, to)


def _jpeg(frame: Frame, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(frame.path) as image:
        image.convert("RGB").save(to, quality=95)


def cvat(root: Path, frames: Dataset) -> None:
    """``COCO 1.0``: annotations/instances_default.json, images/default, attributes, rotation."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i, frame in enumerate(frames.frames, 1):
        _copy(frame, root / "images" / "default" / frame.path.name)
        images.append(
            {
                "id": i,
                "width": frame.width,
                "height": frame.height,
                "file_name": frame.path.name,
                "license": 0,
                "flickr_url": "",
                "coco_url": "",
                "date_captured": 0,
            }
        )
        for name, box in _boxes(frame, frames):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": frames.names.index(name) + 1,
                    "segmentation": [],
                    "area": box[2] * box[3],
                    "bbox": box,
                    "iscrowd": 0,
                    "attributes": {"occluded": False, "rotation": 0.0},
                }
            )
    _json(
        root / "annotations" / "instances_default.json",
        {
            "licenses": [{"name": "", "id": 0, "url": ""}],
            "info": {"contributor": "", "date_created": "", "description": "", "version": ""},
            "categories": [
                {"id": i, "name": n, "supercategory": ""} for i, n in enumerate(frames.names, 1)
            ],
            "images": images,
            "annotations": annotations,
        },
    )


def label_studio(root: Path, frames: Dataset) -> None:
    """``COCO with Images``: result.json, ids from 0, classes in the alphabet's order, uploads
    under a hash, paths with the folder (and the server's slashes)."""
    names = sorted(frames.names)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i, frame in enumerate(frames.frames):
        name = f"{i:08x}-{frame.path.name}"
        _copy(frame, root / "images" / name)
        written = f"images\\{name}" if i % 2 else f"images/{name}"
        images.append({"width": frame.width, "height": frame.height, "id": i, "file_name": written})
        for label, box in _boxes(frame, frames):
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": i,
                    "category_id": names.index(label),
                    "segmentation": [],
                    "bbox": box,
                    "ignore": 0,
                    "iscrowd": 0,
                    "area": box[2] * box[3],
                }
            )
    _json(
        root / "result.json",
        {
            "images": images,
            "categories": [{"id": i, "name": n} for i, n in enumerate(names)],
            "annotations": annotations,
            "info": {
                "year": 2026,
                "version": "1.0",
                "description": "",
                "contributor": "Label Studio",
                "url": "",
                "date_created": "2026-03-01 10:00:00.000000",
            },
        },
    )


def roboflow(root: Path, frames: Dataset) -> None:
    """``COCO JSON``: a folder a split, its file in it, a category 0 that names the project."""
    parts = {"train": frames.frames[::2], "valid": frames.frames[1::4], "test": frames.frames[3::4]}
    for split, part in parts.items():
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for i, frame in enumerate(part):
            name = f"{frame.path.stem}_png.rf.{i:032x}.jpg"
            _jpeg(frame, root / split / name)
            images.append(
                {
                    "id": i,
                    "license": 1,
                    "file_name": name,
                    "height": frame.height,
                    "width": frame.width,
                    "date_captured": "2026-03-01T10:00:00+00:00",
                    "extra": {"name": frame.path.name},
                }
            )
            for label, box in _boxes(frame, frames):
                annotations.append(
                    {
                        "id": len(annotations),
                        "image_id": i,
                        "category_id": frames.names.index(label) + 1,
                        "bbox": box,
                        "area": box[2] * box[3],
                        "segmentation": [],
                        "iscrowd": 0,
                    }
                )
        _json(
            root / split / "_annotations.coco.json",
            {
                "info": {
                    "year": "2026",
                    "version": "1",
                    "description": "Exported from roboflow.com",
                    "contributor": "",
                    "url": "https://public.roboflow.com/object-detection/undefined",
                    "date_created": "2026-03-01T10:00:00+00:00",
                },
                "licenses": [{"id": 1, "url": "", "name": "Private"}],
                "categories": [
                    {"id": 0, "name": "shapes-abcd", "supercategory": "none"},
                    *(
                        {"id": i, "name": n, "supercategory": "shapes-abcd"}
                        for i, n in enumerate(frames.names, 1)
                    ),
                ],
                "images": images,
                "annotations": annotations,
            },
        )
    (root / "README.roboflow.txt").write_text("shapes - v1\n")


def yolo(root: Path, frames: Dataset) -> None:
    """Ultralytics' layout as Roboflow writes it: ``../train/images`` that lies beside the file;
    a picture without boxes has an empty label file."""
    parts = {
        "train": frames.frames[: 2 * len(frames) // 3],
        "valid": frames.frames[2 * len(frames) // 3 :],
    }
    for split, part in parts.items():
        for frame in part:
            _copy(frame, root / split / "images" / frame.path.name)
            lines = []
            for label, (x, y, w, h) in _boxes(frame, frames):
                values = (
                    (x + w / 2) / frame.width,
                    (y + h / 2) / frame.height,
                    w / frame.width,
                    h / frame.height,
                )
                shown = " ".join(f"{v:.6f}" for v in values)
                lines.append(f"{frames.names.index(label)} {shown}")
            labels = root / split / "labels" / f"{frame.path.stem}.txt"
            labels.parent.mkdir(parents=True, exist_ok=True)
            labels.write_text("\n".join(lines))
    (root / "data.yaml").write_text(
        yaml.safe_dump(
            {
                "train": "../train/images",
                "val": "../valid/images",
                "nc": len(frames.names),
                "names": list(frames.names),
            },
            sort_keys=False,
        )
    )


def voc(root: Path, frames: Dataset) -> None:
    """VOCdevkit: Annotations, JPEGImages, ImageSets/Main; corners are whole pixels."""
    for frame in frames.frames:
        _jpeg(frame, root / "JPEGImages" / f"{frame.path.stem}.jpg")
        objects = "".join(
            f"<object><name>{label}</name><pose>Unspecified</pose><truncated>0</truncated>"
            f"<difficult>0</difficult><bndbox><xmin>{round(x)}</xmin><ymin>{round(y)}</ymin>"
            f"<xmax>{round(x + w)}</xmax><ymax>{round(y + h)}</ymax></bndbox></object>"
            for label, (x, y, w, h) in _boxes(frame, frames)
        )
        file = root / "Annotations" / f"{frame.path.stem}.xml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            f"<annotation><folder>VOC2012</folder><filename>{frame.path.stem}.jpg</filename>"
            f"<size><width>{frame.width}</width><height>{frame.height}</height><depth>3</depth>"
            f"</size><segmented>0</segmented>{objects}</annotation>"
        )
    sets = root / "ImageSets" / "Main"
    sets.mkdir(parents=True)
    stems = [f.path.stem for f in frames.frames]
    for name, part in (("train", stems[::2]), ("val", stems[1::2]), ("trainval", stems)):
        (sets / f"{name}.txt").write_text("".join(f"{s}\n" for s in part))


def _json(to: Path, document: Any) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(json.dumps(document), encoding="utf-8")


TOOLS = {
    "cvat": cvat,
    "label-studio": label_studio,
    "roboflow": roboflow,
    "yolo": yolo,
    "voc": voc,
}
