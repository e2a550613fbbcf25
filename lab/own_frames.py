"""Frames of one's own → a folder that ``endedge run`` takes as it is.

Read any known format, label what has no labels with the teacher (marked as such), bring classes
to the detector's by name, put look-alikes on one side, and write COCO files with a configuration
whose sizes fit the set and the detector.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from endedge.data.coco import Frame
from endedge.data.errors import BadInput
from endedge.data.frames import stack_frames
from endedge.data.groups import LEAST_FRAMES
from endedge.data.importing.classes import map_classes
from endedge.data.importing.detect import read_source
from endedge.data.importing.found import EVAL, POOL, Found, LabelledObject, Picture
from endedge.data.importing.sides import look, split
from endedge.data.importing.writing import Side, free, write_set
from endedge.distill.model import DetectionModel, count_parameters, load_detector
from endedge.end.inference import detect
from endedge.lab.devices import pick_device
from endedge.lab.inputs import find_weights

__all__ = ["TEACHER_LABELS", "Wishes", "import_frames"]

TEACHER_LABELS = ("none", "pool", "all")
_BYTES_A_PARAMETER = 0.006  # of the smallest package worth sending; measured on real frames
_LEAST_BUDGET_BYTES = 4000
_CHUNK = 64  # pictures that are in memory at a time while the teacher labels

Say = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Wishes:
    """What the user may ask of an import. ``weights``: folder of the detectors; ``mapping``: old
    class name → new (empty: left out); ``group``: what stays together; ``eval_share`` of the
    pictures, or ``eval_from`` another source; ``teacher_labels``: for ``pool``, ``all`` or
    ``none``, above ``score``; ``every_s`` between two frames of a video; ``side_px`` of the
    detector's square input (None: by the pictures); ``near_bits``: how alike two pictures of
    different sides may not be."""

    teacher: str = "yolov8s.pt"
    student: str = "yolov8n.pt"
    weights: str | None = None
    mapping: Mapping[str, str] | None = None
    group: str = "auto"
    eval_share: float = 0.25
    eval_from: Path | None = None
    teacher_labels: str = "none"
    score: float = 0.25
    every_s: float = 1.0
    side_px: int | None = None
    near_bits: int = 4
    seed: int = 0
    link: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        if not 0 < self.eval_share < 1:
            raise BadInput(f"--eval-share {self.eval_share} is not between 0 and 1")
        if not 0 < self.score < 1:
            raise BadInput(f"--score {self.score} is not between 0 and 1")
        if not self.every_s > 0:
            raise BadInput(f"--every {self.every_s}: seconds between two frames, more than 0")
        if not 0 <= self.near_bits <= 64:
            raise BadInput(f"--near {self.near_bits}: bits of 256, from 0 to 64")
        if self.side_px is not None and (self.side_px < 32 or self.side_px % 32):
            raise BadInput(f"--imgsz {self.side_px} is not a multiple of 32")


def import_frames(source: Path, out: Path, wishes: Wishes, say: Say) -> dict[str, Any]:
    """Bring ``source`` into the new folder ``out``; returns what ``out/import.json`` says.

    Raises :class:`BadInput`, and writes nothing, for a source in no or several formats, classes
    that match nothing, detectors that are not there or of different classes, and sets that
    cannot be split, or have no labels to evaluate by.
    """
    free(out)
    student = load_detector(find_weights(wishes.student, wishes.weights))
    teacher = load_detector(find_weights(wishes.teacher, wishes.weights))
    names = [str(n) for n in student.names.values()]
    if names != [str(n) for n in teacher.names.values()]:
        raise BadInput(f"{wishes.teacher} and {wishes.student} detect different classes")
    with tempfile.TemporaryDirectory(prefix="endedge-import-") as scratch:
        sources = [(source, "")]
        if wishes.eval_from is not None:
            sources = [(source, POOL), (wishes.eval_from, EVAL)]
        kinds, pictures, left_out = [], [], Counter[str]()
        for number, (path, side) in enumerate(sources):
            found = read_source(path, Path(scratch) / str(number), every_s=wishes.every_s, say=say)
            kinds.append(found.kind)
            left_out += found.left_out
            pictures += [replace(p, side=side or p.side) for p in found.pictures]
            _wanted(found, path, side, wishes)
        pictures, hashes = _looked_at(pictures, left_out, say)
        if wishes.teacher_labels == "none":
            keep = [i for i, p in enumerate(pictures) if p.labelled]
            left_out["pictures without labels"] += len(pictures) - len(keep)
            pictures, hashes = [pictures[i] for i in keep], hashes[keep]
        if len(pictures) < 4:
            raise BadInput(f"{source} has {len(pictures)} pictures that can be used; 4 are needed")
        targets = map_classes(
            Counter(b.name for p in pictures for b in p.boxes), names, wishes.mapping or {}
        )
        pictures = [_renamed(p, targets, left_out) for p in pictures]
        side_px = wishes.side_px or _side_px(pictures)
        drawn = _teacher_boxes(teacher, pictures, side_px, wishes, say)
        sides, rule = _sides(pictures, hashes, drawn, wishes, left_out)
        report = _report(kinds, sides, names, targets, rule, left_out, wishes)
        texts = {
            "import.json": json.dumps(report, indent=1) + "\n",
            "config.yaml": _config(out, source, sides, student, side_px, wishes),
        }
        write_set(out, sides, names, texts, link=wishes.link, say=say)
    return report


def _wanted(found: Found, path: Path, side: str, wishes: Wishes) -> None:
    """Labels that the source lacks are asked for here, before anything slow begins."""
    if any(p.labelled for p in found.pictures):
        return
    if wishes.teacher_labels == "none":
        raise BadInput(
            f"{path} holds {found.kind}: {len(found.pictures)} without labels; --teacher-labels "
            "pool lets the teacher label what may be uploaded, and --eval-from gives labelled "
            "pictures to evaluate on"
        )
    if wishes.teacher_labels == "pool" and side != POOL:
        raise BadInput(
            f"{path} has no labels to evaluate by; give labelled pictures (--eval-from PATH), or "
            "--teacher-labels all to measure agreement with the teacher, which is not accuracy"
        )


def _looked_at(
    pictures: Sequence[Picture], left_out: Counter[str], say: Say
) -> tuple[list[Picture], NDArray[np.bool_]]:
    """Those that decode to the end and are no copy of an earlier one, with their hashes."""
    kept, hashes = [], []
    seen: dict[tuple[bytes, int], Picture] = {}
    for i, picture in enumerate(pictures):
        say(i, len(pictures), "pictures looked at")
        found = look(picture.path)
        if found is None:
            left_out["pictures that do not decode"] += 1
            continue
        key = (found.tobytes(), picture.path.stat().st_size)
        twin = seen.setdefault(key, picture)
        if twin is not picture and twin.path.read_bytes() == picture.path.read_bytes():
            left_out["copies of another picture"] += 1
            continue
        kept.append(picture)
        hashes.append(found)
    return kept, np.array(hashes, np.bool_).reshape(len(hashes), -1)


def _renamed(
    picture: Picture, targets: Mapping[str, str | None], left_out: Counter[str]
) -> Picture:
    boxes = []
    for box in picture.boxes:
        if (name := targets[box.name]) is None:
            left_out[f"boxes of {box.name!r}"] += 1
        else:
            boxes.append(replace(box, name=name))
    return replace(picture, boxes=tuple(boxes))


def _side_px(pictures: Sequence[Picture]) -> int:
    """320, or what the pictures have where they are smaller."""
    longest = int(np.median([max(p.size) for p in pictures]))
    return min(320, max(64, -(-longest // 32) * 32))


def _teacher_boxes(
    teacher: DetectionModel, pictures: Sequence[Picture], side_px: int, wishes: Wishes, say: Say
) -> dict[str, tuple[LabelledObject, ...]]:
    """The teacher's boxes by picture name, of those without labels."""
    todo = [p for p in pictures if not p.labelled]
    device, names = pick_device(wishes.device), list(teacher.names.values())
    drawn: dict[str, tuple[LabelledObject, ...]] = {}
    for start in range(0, len(todo), _CHUNK):
        say(start, len(todo), f"pictures labelled by {Path(wishes.teacher).name}")
        part = todo[start : start + _CHUNK]
        frames = [_frame(i, p) for i, p in enumerate(part)]
        batch = stack_frames(frames, side_px, lambda f: f.read())
        for picture, found in zip(
            part, detect(teacher, batch, min_score=wishes.score, device=device), strict=True
        ):
            drawn[picture.name] = tuple(
                LabelledObject(names[int(k)], (float(x), float(y), float(w), float(h)))
                for (x, y, w, h), k in zip(found.boxes, found.labels, strict=True)
                if w > 0 and h > 0
            )
    return drawn


def _frame(number: int, picture: Picture) -> Frame:
    return Frame(
        number,
        picture.path,
        *picture.size,
        np.zeros((0, 4), np.float32),
        np.zeros(0, np.int64),
        np.zeros(0, np.bool_),
    )


def _sides(
    pictures: Sequence[Picture],
    hashes: NDArray[np.bool_],
    drawn: Mapping[str, tuple[LabelledObject, ...]],
    wishes: Wishes,
    left_out: Counter[str],
) -> tuple[dict[str, Side], str]:
    """With the teacher's labels in the pool alone, what it labelled may not be evaluated: then
    the labelled pictures are split, and the others go to the pool unless they look like an
    evaluated one."""
    if wishes.teacher_labels == "pool" and drawn and not all(p.side for p in pictures):
        pictures = [p if p.labelled else replace(p, side=POOL) for p in pictures]
        mine = [i for i, p in enumerate(pictures) if p.labelled]
        first = split([pictures[i] for i in mine], hashes[mine], **_rules(wishes))
        side_of = dict(zip(mine, first.eval_of, strict=True))
        pictures = [
            replace(p, side=EVAL if side_of.get(i) else POOL) for i, p in enumerate(pictures)
        ]
    found = split(pictures, hashes, **_rules(wishes))
    left_out += found.left_out
    chosen: dict[str, list[Picture]] = {POOL: [], EVAL: []}
    for picture, kept, evaluated in zip(pictures, found.kept, found.eval_of, strict=True):
        if kept:
            boxes = picture.boxes if picture.labelled else drawn[picture.name]
            chosen[EVAL if evaluated else POOL].append(replace(picture, boxes=boxes))
    if not any(not b.ignored for p in chosen[EVAL] for b in p.boxes):
        raise BadInput(
            f"the {len(chosen[EVAL])} pictures to evaluate on show nothing of the detector's "
            "classes; more of them (--eval-share), or another --seed"
        )
    name = Path(wishes.teacher).name
    sides = {
        key: Side(found, frozenset(p.name for p in found if p.name in drawn), name)
        for key, found in chosen.items()
    }
    return sides, found.rule


def _rules(wishes: Wishes) -> dict[str, Any]:
    return {
        "group": wishes.group,
        "eval_share": wishes.eval_share,
        "near_bits": wishes.near_bits,
        "seed": wishes.seed,
    }


def _report(
    kinds: Sequence[str],
    sides: Mapping[str, Side],
    names: Sequence[str],
    targets: Mapping[str, str | None],
    rule: str,
    left_out: Counter[str],
    wishes: Wishes,
) -> dict[str, Any]:
    boxes = Counter(b.name for s in sides.values() for p in s.pictures for b in p.boxes)
    return {
        "format": " and ".join(dict.fromkeys(kinds)),
        "pictures": {key: len(side.pictures) for key, side in sides.items()},
        "boxes": {key: sum(len(p.boxes) for p in s.pictures) for key, s in sides.items()},
        "labels": {key: side.labels for key, side in sides.items()},
        "teacher": Path(wishes.teacher).name if any(s.by_teacher for s in sides.values()) else None,
        "score": wishes.score if any(s.by_teacher for s in sides.values()) else None,
        "classes": dict(sorted(targets.items())),
        "boxes_by_class": {name: boxes[name] for name in names if boxes[name]},
        "split": rule,
        "left_out": {reason: n for reason, n in sorted(left_out.items()) if n},
    }


def _config(
    out: Path,
    source: Path,
    sides: Mapping[str, Side],
    student: DetectionModel,
    side_px: int,
    wishes: Wishes,
) -> str:
    n = len(sides[POOL].pictures)
    low = max(min(LEAST_FRAMES, n), min(16, n // 4))
    frames = sorted({round(v) for v in np.geomspace(low, min(n, 1000), 4)})
    least = max(_LEAST_BUDGET_BYTES, _BYTES_A_PARAMETER * count_parameters(student))
    budgets = [round(least * k, -2) for k in (1, 2.5, 5, 10)]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", out.name).strip("-._") or "imported"
    where = "" if wishes.weights is None else f"  root: {Path(wishes.weights).resolve()}\n"
    marks = "".join(
        f"  {side}_labels: {sides[side].labels}\n"
        for side in (POOL, EVAL)
        if sides[side].labels != "truth"
    )
    return f"""\
# Frames of {source.name}, brought in by `endedge import`; they lie beside this file.
#   endedge run {out.name} --out runs/{name}
# Every key can be changed here or given after the folder: seeds=[0] uplink.frames=[16,64]
name: {name}
seeds: [0, 1]
data:
  image_side: {side_px}
{marks}weights:
{where}  teacher: {_file(wishes.teacher)}
  student: {_file(wishes.student)}
uplink:
  frames: {frames}
  codecs: [jpeg-q75-{side_px}]
teacher: {{steps: 100, batch: 16, lr: 2.0e-4, few_frames: 128}}
student: {{steps: 100, epochs: 200, batch: 16}}
adaptation: {{policy: chosen}}
downlink:
  budgets_bytes: {[int(b) for b in budgets]}
  mode: delta
"""


def _file(name: str) -> str:
    """A file of the user's by its whole path: the run may start elsewhere."""
    return str(Path(name).resolve()) if Path(name).is_file() else name
