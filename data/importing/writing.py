"""An imported set on disk: two COCO instances files, their pictures, and what became of the rest.

Everything is made in a folder beside the target and renamed, so a set is whole or absent.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endedge.data.errors import BadInput
from endedge.data.importing.found import Picture

__all__ = ["Side", "free", "write_set"]


@dataclass(frozen=True)
class Side:
    """The pictures of one side. Boxes carry the detector's class names; ``by_teacher`` are the
    names of pictures whose boxes a detector drew, which is called ``teacher``."""

    pictures: Sequence[Picture]
    by_teacher: frozenset[str] = frozenset()
    teacher: str = ""

    @property
    def labels(self) -> str:
        """``truth``, ``teacher``, or ``mixed``."""
        if not self.by_teacher:
            return "truth"
        return "teacher" if len(self.by_teacher) == len(self.pictures) else "mixed"


def free(out: Path) -> None:
    """Raises :class:`BadInput` unless ``out`` is not there, or is an empty folder."""
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists():
        raise BadInput(f"{out} exists; remove it or import into another folder")


def write_set(
    out: Path,
    sides: Mapping[str, Side],
    names: Sequence[str],
    texts: Mapping[str, str],
    *,
    link: bool = False,
    say: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> None:
    """Write ``out/annotations/instances_SIDE.json`` and ``out/images/SIDE/`` for each side, and
    ``texts`` by file name. Categories are all of ``names``, in order, from 1. ``link``: symbolic
    links to the pictures instead of copies. ``say(done, total, what)`` hears of the progress.

    Raises :class:`BadInput` when ``out`` is taken; OSError (a full disk) leaves nothing behind.
    """
    free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    total = sum(len(side.pictures) for side in sides.values())
    done = 0
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        fresh = Path(scratch) / "set"
        for name, side in sides.items():
            for picture in side.pictures:
                copy = fresh / "images" / name / picture.name
                copy.parent.mkdir(parents=True, exist_ok=True)
                if link:
                    copy.symlink_to(picture.path.resolve())
                else:
                    shutil.copyfile(picture.path, copy)
                done += 1
                say(done, total, "pictures copied" if not link else "pictures linked")
            listed = fresh / "annotations" / f"instances_{name}.json"
            listed.parent.mkdir(parents=True, exist_ok=True)
            listed.write_text(json.dumps(_document(side, names)), encoding="utf-8")
        for name, text in texts.items():
            (fresh / name).write_text(text, encoding="utf-8")
        if out.is_dir():
            out.rmdir()
        os.replace(fresh, out)


def _document(side: Side, names: Sequence[str]) -> dict[str, Any]:
    ids = {name: i for i, name in enumerate(names, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, picture in enumerate(side.pictures, 1):
        record = {
            "id": image_id,
            "file_name": picture.name,
            "width": picture.size[0],
            "height": picture.size[1],
        }
        if picture.name in side.by_teacher:
            record["labels"] = "teacher"
        images.append(record)
        for box in picture.boxes:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": ids[box.name],
                    "bbox": [round(v, 3) for v in box.xywh],
                    "area": round(box.xywh[2] * box.xywh[3], 3),
                    "iscrowd": int(box.ignored),
                }
            )
    about = {"labels": side.labels, "teacher": side.teacher if side.by_teacher else None}
    return {
        "info": {"description": "imported by endedge", "endedge": about},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for name, i in ids.items()],
    }
