"""How a package describes its detector: deflated JSON with a dictionary of its own.

A full package holds the whole description, the channels left by pruning and the input adapter
included. A delta holds nothing, or the input adapter where that changes.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

import torch

from endedge.data.errors import BadInput
from endedge.distill.adapter import InputAdapter, adapter_of
from endedge.distill.description import plan_of
from endedge.distill.layers import MAX_PARAMETERS, widths
from endedge.distill.model import DetectionModel, build_detector, spec_of
from endedge.distill.package.spec_dictionary import SPEC_DICTIONARY

__all__ = ["changed_adapter", "describe", "read_spec", "skeleton_of"]

_MAX_SPEC_BYTES = 1 << 20


def describe(model: DetectionModel, base: DetectionModel | None) -> tuple[bytes, DetectionModel]:
    """The description as sent (in delta mode: a changed input adapter, or nothing) and what a
    device would build from it."""
    if base is not None:
        new, old = (adapter_of(m) for m in (model, base))
        about = [None if a is None else a.description for a in (new, old)]
        return b"" if about[0] == about[1] else _deflated({"adapter": about[0]}), model
    spec = spec_of(model)
    full, own = plan_of(spec).widths, widths(model)
    narrowed = [[i, *own[n]] for i, n in enumerate(full) if own.get(n, full[n]) != full[n]]
    if set(full) != set(own):
        raise BadInput("this detector has layers that its description does not name")
    blob = _deflated({**spec, "widths": narrowed})
    return blob, skeleton_of(blob)[1]


def _deflated(about: dict[str, Any]) -> bytes:
    text = json.dumps(about, separators=(",", ":"), sort_keys=True)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=SPEC_DICTIONARY)
    return deflate.compress(text.encode()) + deflate.flush()


def read_spec(blob: bytes, part: str = "widths") -> tuple[dict[str, Any], Any]:
    """The description, and the ``part`` that is taken out of it."""
    inflate = zlib.decompressobj(-15, zdict=SPEC_DICTIONARY)
    try:
        text = inflate.decompress(blob, _MAX_SPEC_BYTES)
        spec = json.loads(text)
        taken = spec.pop(part)
    except (zlib.error, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise BadInput("corrupt package: the model description cannot be read") from None
    if part == "widths" and not isinstance(taken, list):
        raise BadInput("corrupt package: the list of widths cannot be read")
    return spec, taken


def changed_adapter(blob: bytes) -> InputAdapter | None:
    """The adapter that a delta package carries; None where it takes away the one there was."""
    rest, about = read_spec(blob, "adapter")
    if rest:
        raise BadInput("corrupt package: a delta describes nothing but an input adapter")
    return None if about is None else InputAdapter.of(about)


def skeleton_of(
    blob: bytes, max_parameters: int = MAX_PARAMETERS
) -> tuple[dict[str, Any], DetectionModel]:
    """The description in ``blob`` and an eval-mode detector of its layers and widths; the global
    random state is left as it was. Raises :class:`BadInput` for one that cannot be read, or is
    larger than ``max_parameters``."""
    spec, narrowed = read_spec(blob)
    names = list(plan_of(spec).widths)
    wanted = {}
    if len(narrowed) > len(names):
        raise BadInput("corrupt package: the list of widths cannot be read")
    for row in narrowed:
        good = isinstance(row, list) and len(row) == 3 and all(type(x) is int for x in row)
        if not good or not 0 <= row[0] < len(names):
            raise BadInput("corrupt package: the list of widths cannot be read")
        wanted[names[row[0]]] = (row[1], row[2])
    most = min(MAX_PARAMETERS, max_parameters)
    with torch.random.fork_rng(devices=[]):
        return spec, build_detector(spec, wanted, max_parameters=most).eval()
