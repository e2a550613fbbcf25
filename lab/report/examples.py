"""``examples.json`` read back and drawn: detections before and after an update, gained and lost."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from endedge.data.errors import BadInput
from endedge.lab.report.markup import part
from endedge.lab.report.tabular import Column, ReportTable

__all__ = ["changes", "counts", "gallery", "read_examples"]

_MAX_FILE_BYTES = 8 * 2**20
_SAID = {
    "gained": "gained: only found after the update",
    "lost": "lost: only found before it",
    "alarm": "new false alarm",
    "calmed": "false alarm that is gone",
}


def read_examples(path: Path) -> dict[str, Any] | None:
    """``examples.json``, or None where there is none. Raises :class:`BadInput` for a broken
    one; everything in it is checked before it reaches a page."""
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ValueError(f"larger than {_MAX_FILE_BYTES} bytes")
        document: dict[str, Any] = json.loads(path.read_bytes())
        for frame in document["frames"]:
            _check_frame(frame)
        for crop in document.get("changes", ()):
            _check_crop(crop)
        for count in document.get("counts", ()):
            _check_numbers(count["objects"], *(count[kind] for kind in _SAID))
            str(count["name"])
        _check_numbers(document["score"], document["of"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(
            f"{path} holds no examples ({error}); remove it and run 'endedge measure' again"
        ) from None
    return document


def _check_frame(frame: Mapping[str, Any]) -> None:
    _check_jpeg(frame["jpeg"])
    seen = [*frame["before"], *frame["after"]]
    for one in (*frame["objects"], *seen):
        _check_box(one["box"])
        str(one["name"])
    _check_numbers(frame["width"], frame["height"], frame["scale"])
    _check_numbers(*(one["score"] for one in seen), *(bool(one["right"]) for one in seen))
    str(frame["rank"])


def _check_crop(crop: Mapping[str, Any]) -> None:
    _check_jpeg(crop["jpeg"])
    _check_box(crop["box"])
    if crop["object"] is not None:
        _check_box(crop["object"])
    _check_numbers(crop["score"], crop["side"])
    if crop["kind"] not in _SAID:
        raise ValueError("a change of no known kind")
    str(crop["name"])


def _check_jpeg(text: Any) -> None:
    if not re.fullmatch(r"[A-Za-z0-9+/=]+", text):
        raise ValueError("a frame that is not base64")


def _check_box(box: Any) -> None:
    if len(box) != 4:
        raise ValueError("a box that is not x, y, width, height")
    _check_numbers(*box)


def _check_numbers(*values: Any) -> None:
    if not all(math.isfinite(float(v)) for v in values):
        raise ValueError("a number that is not finite")


def gallery(examples: Mapping[str, Any]) -> Markup:
    """The frames as HTML: before and after side by side, objects dashed, boxes drawn as SVG."""
    frames = [
        {
            "rank": frame["rank"],
            "panels": [_panel(frame, when) for when in ("before", "after")],
        }
        for frame in examples["frames"]
    ]
    return part("gallery", frames)


def _panel(frame: Mapping[str, Any], when: str) -> dict[str, Any]:
    width, height, scale = float(frame["width"]), float(frame["height"]), float(frame["scale"])
    line = max(width, height) / 160  # the same on the screen, however small the frame
    boxes = []
    for one in reversed(frame[when]):  # the surest on top
        box = [float(v) * scale for v in one["box"]]
        end = box[0] > 0.6 * width  # else the label would leave the picture
        x = box[0] + box[2] - line if end else box[0] + line
        label = f"{one['name']} {100 * float(one['score']):.0f}"
        kind = "right" if one["right"] else "false"
        y = max(box[1], 6 * line) - line
        boxes.append({"kind": kind, "box": box, "end": end, "x": x, "y": y, "label": label})
    hits = sum(bool(one["right"]) for one in frame[when])
    wrong = len(frame[when]) - hits
    return {
        "width": f"{width:g}",
        "height": f"{height:g}",
        "line": line,
        "jpeg": frame["jpeg"],
        "objects": [[float(v) * scale for v in one["box"]] for one in frame["objects"]],
        "boxes": boxes,
        "says": f"{when}: {hits} of {len(frame['objects'])} found, {wrong} false",
    }


def changes(examples: Mapping[str, Any]) -> Markup:
    """The crops of what changed, with the means to browse them by kind and class."""
    crops = [
        {
            **crop,
            "side": f"{float(crop['side']):g}",
            "box": [float(v) for v in crop["box"]],
            "object": crop["object"] and [float(v) for v in crop["object"]],
            "short": f"{crop['name']} {100 * float(crop['score']):.0f}",
            "says": f"{crop['name']}, {_SAID[crop['kind']]}",
        }
        for crop in examples["changes"]
    ]
    kinds = Counter(crop["kind"] for crop in crops)
    return part(
        "changes",
        crops,
        [(kind, says, kinds[kind]) for kind, says in _SAID.items() if kinds[kind]],
        sorted(Counter(str(crop["name"]) for crop in crops).items()),
    )


def counts(examples: Mapping[str, Any]) -> ReportTable:
    """What changed by class, the most gained first."""
    listed: Iterable[Mapping[str, Any]] = examples["counts"]
    rows = [
        (c["name"], c["objects"], c["gained"], c["lost"], c["alarm"], c["calmed"])
        for c in sorted(listed, key=lambda c: c["lost"] - c["gained"])
    ]
    return ReportTable(
        "changes",
        (
            Column("class", "class"),
            Column("objects", "objects"),
            Column("gained", "gained"),
            Column("lost", "lost"),
            Column("false alarms, new", "new_false_alarms"),
            Column("false alarms, gone", "gone_false_alarms"),
        ),
        rows,
        note=f"In the first {examples['of']} evaluation frames with objects, detections of "
        f"{100 * float(examples['score']):.0f} % and surer. Gained: an object that only the "
        "updated model finds (right class, IoU 0.5); lost: one that only the old model found.",
    )
