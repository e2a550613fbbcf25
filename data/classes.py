"""Class lists of frames and detectors brought together: by name, whatever the order or the ids."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from endedge.data.coco import Dataset
from endedge.data.errors import BadInput

__all__ = ["match_classes", "same_classes"]

_log = logging.getLogger("endedge")


def match_classes(dataset: Dataset, names: Sequence[str], *, what: str, detector: str) -> Dataset:
    """``dataset`` with its classes numbered as in ``names``, those of a detector.

    Categories that the detector does not know and that have no box (tools write a group, or a
    dummy with id 0) are left out, with a note. ``what`` and ``detector`` name the two in
    messages. Raises :class:`BadInput` with the first class that only one of them has, and for
    detectors that give one name to two classes.
    """
    names = tuple(names)
    if dataset.names == names:
        return dataset
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise BadInput(f"{detector} has two classes named {twice!r}; classes are told by name")
    boxes = np.bincount(
        np.concatenate([f.labels for f in dataset.frames]), minlength=len(dataset.names)
    )
    unused = []
    for index, name in enumerate(dataset.names):
        if name not in names:
            if boxes[index]:
                raise BadInput(
                    f"{what} has {boxes[index]} boxes of {name!r}, which {detector} does not "
                    f"detect{_near(name, names)}"
                )
            unused.append(name)
    for name in names:
        if name not in dataset.names:
            raise BadInput(
                f"{detector} detects {name!r}, which the categories of {what} do not "
                f"list{_near(name, dataset.names)}"
            )
    if unused:
        _log.warning("note: %s: no box of %s; left out", what, ", ".join(map(repr, unused)))
    new = np.array([names.index(n) if n in names else -1 for n in dataset.names], np.int64)
    ids = dict(zip(dataset.names, dataset.category_ids, strict=True))
    frames = tuple(replace(f, labels=new[f.labels]) for f in dataset.frames)
    return replace(dataset, frames=frames, names=names, category_ids=tuple(ids[n] for n in names))


def same_classes(a: Sequence[str], b: Sequence[str], *, what: str, other: str) -> None:
    """Raises :class:`BadInput` with the first difference unless two detectors name the same
    classes in the same order: one learns from the other by class number."""
    for index in range(max(len(a), len(b))):
        left, right = (repr(n[index]) if index < len(n) else "nothing" for n in (a, b))
        if left != right:
            raise BadInput(
                f"{what} and {other} must have the same classes in the same order; class "
                f"{index} is {left} in one and {right} in the other"
            )


def _near(name: str, known: Sequence[str]) -> str:
    folded = {k.casefold(): k for k in known}
    near = difflib.get_close_matches(name.casefold(), folded, n=1)
    if near:
        return f"; is it {folded[near[0]]!r} there? names have to be the same"
    return f"; that has {', '.join(known[:5])}{', …' if len(known) > 5 else ''}"
