"""Classes of the labels → classes of the detector, by name."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from endedge.data.errors import BadInput

__all__ = ["map_classes", "parse_map"]

REST = "*"
# What Pascal VOC and others call COCO's classes: suggested, never assumed.
_OTHERWISE = {
    "aeroplane": "airplane",
    "plane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "tvmonitor": "tv",
    "pedestrian": "person",
    "people": "person",
    "human": "person",
    "bike": "bicycle",
    "cyclist": "person",
    "lorry": "truck",
    "van": "car",
    "vehicle": "car",
    "othervehicle": "truck",
}


def parse_map(words: Sequence[str]) -> dict[str, str]:
    """``old=new`` words → a mapping. ``old=`` leaves a class out, ``*=`` all that match nothing."""
    mapping: dict[str, str] = {}
    for word in words:
        old, equals, new = (part.strip() for part in word.partition("="))
        if not equals or not old or (old == REST and new):
            raise BadInput(f"--map {word!r} is not OLD=NEW, OLD= (leave out) or *= (the rest)")
        if old in mapping:
            raise BadInput(f"--map names {old!r} twice")
        mapping[old] = new
    return mapping


def map_classes(
    found: Counter[str], names: Sequence[str], mapping: Mapping[str, str]
) -> dict[str, str | None]:
    """The detector's class for each class ``found`` (boxes by name); None: left out.

    What ``mapping`` does not name goes to the class of the same name, whatever the case and the
    spaces. Raises :class:`BadInput`, with the ``--map`` that would be right, for classes that
    match nothing, a mapping of a class that is not there, or to one the detector has not.
    """
    by_plain = {_plain(name): name for name in reversed(names)}
    for old, new in mapping.items():
        if old not in found and old != REST:
            listed = ", ".join(sorted(found)) or "none"
            raise BadInput(
                f"--map {old}={new}: the labels have no class {old!r}; they have {listed}"
            )
        if new and new not in names:
            raise BadInput(
                f"--map {old}={new}: the detector has no class {new!r}{_meant(new, names)}"
            )
    out: dict[str, str | None] = {}
    lost = []
    for name in found:
        target = mapping[name] or None if name in mapping else by_plain.get(_plain(name))
        out[name] = target
        if target is None and name not in mapping and REST not in mapping:
            lost.append(name)
    if lost:
        shown = ", ".join(
            f"{n!r} ({found[n]} boxes{_meant(n, names)})" for n in sorted(lost)[:5]
        ) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
        example = f"--map {_quoted(lost[0])}={_quoted(_nearest(lost[0], names) or names[0])}"
        raise BadInput(
            f"the detector does not know {shown}; say what they are ({example}), leave one out "
            f"(--map {_quoted(lost[0])}=) or all of them (--map '*='), or give detectors of your "
            "classes (--teacher, --student)"
        )
    if found and not any(out.values()):
        raise BadInput("no class is left; the detector knows " + ", ".join(names[:12]) + ", …")
    return out


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _nearest(name: str, names: Sequence[str]) -> str | None:
    plain = {_plain(n): n for n in names}
    if (other := _OTHERWISE.get(_plain(name))) in names:
        return other
    near = difflib.get_close_matches(_plain(name), list(plain), n=1, cutoff=0.6)
    return plain[near[0]] if near else None


def _meant(name: str, names: Sequence[str]) -> str:
    near = _nearest(name, names)
    return f"; did you mean {near!r}?" if near else ""


def _quoted(name: str) -> str:
    return f"'{name}'" if re.search(r"\s", name) else name
