"""``examples.json`` read back and drawn: frames with detections before and after an update."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from endedge.data.errors import BadInput

__all__ = ["gallery", "read_examples"]

_MAX_FILE_BYTES = 8 * 2**20


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
            if not re.fullmatch(r"[A-Za-z0-9+/=]+", frame["jpeg"]):
                raise ValueError("a frame that is not base64")
            seen = [*frame["before"], *frame["after"]]
            drawn = [*frame["objects"], *seen]
            numbers = [frame["width"], frame["height"], frame["scale"], document["score"]]
            numbers += [document["of"], *(bool(one["right"]) for one in seen)]
            numbers += [v for one in drawn for v in (*one["box"], one.get("score", 0.0))]
            if not all(math.isfinite(float(v)) for v in numbers):
                raise ValueError("a number that is not finite")
            if any(len(one["box"]) != 4 or "name" not in one for one in drawn):
                raise ValueError("a box that is not x, y, width, height with a name")
            if "rank" not in frame or any("score" not in one for one in seen):
                raise ValueError("a frame without its rank or scores")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(
            f"{path} holds no examples ({error}); remove it and run 'endedge measure' again"
        ) from None
    return document


def gallery(examples: dict[str, Any]) -> str:
    """The frames as HTML: before and after side by side, objects dashed, boxes drawn as SVG."""
    return f"<div class=gallery>{''.join(_pair(frame) for frame in examples['frames'])}</div>"


def _pair(frame: dict[str, Any]) -> str:
    panels = []
    for when in ("before", "after"):
        hits = sum(bool(one["right"]) for one in frame[when])
        wrong = len(frame[when]) - hits
        said = f"{when}: {hits} of {len(frame['objects'])} found, {wrong} false"
        panels.append(
            f"<figure>{_drawn(frame, when)}<figcaption>{escape(said)}</figcaption></figure>"
        )
    return (
        f"<div><h4>{escape(str(frame['rank']))}</h4><div class=pair>{''.join(panels)}</div></div>"
    )


def _drawn(frame: dict[str, Any], when: str) -> str:
    width, height, scale = float(frame["width"]), float(frame["height"]), float(frame["scale"])
    line = max(width, height) / 160  # the same on the screen, however small the frame
    source = f"data:image/jpeg;base64,{frame['jpeg']}"
    parts = [f'<image width="{width:g}" height="{height:g}" href="{source}"/>']
    for one in frame["objects"]:
        parts.append(_rectangle(one["box"], scale, "object", line))
    for one in reversed(frame[when]):  # the surest on top
        kind = "right" if one["right"] else "false"
        parts.append(_rectangle(one["box"], scale, kind, line))
        x, y = float(one["box"][0]) * scale, max(float(one["box"][1]) * scale, 6 * line)
        anchor = ""
        if x > 0.6 * width:  # else the label would leave the picture
            x, anchor = x + float(one["box"][2]) * scale - 2 * line, ' text-anchor="end"'
        label = escape(f"{one['name']} {100 * float(one['score']):.0f}")
        parts.append(
            f'<text class={kind}{anchor} x="{x + line:.1f}" y="{y - line:.1f}" '
            f'font-size="{5.5 * line:.1f}" stroke-width="{1.2 * line:.1f}">{label}</text>'
        )
    label = escape(f"detections {when} the update")
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )


def _rectangle(box: Sequence[float], scale: float, kind: str, line: float) -> str:
    x, y, w, h = (float(v) * scale for v in box)
    dash = f' stroke-dasharray="{3 * line:.1f}"' if kind == "object" else ""
    return (
        f'<rect class={kind} x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" '
        f'stroke-width="{line * (1.0 if kind == "object" else 1.5):.1f}"{dash}/>'
    )
