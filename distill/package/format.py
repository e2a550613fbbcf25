"""The update package (``.eeu``) on the wire: opened, checked and decoded.

The format is described in docs/eeu.md; :mod:`.packing` makes packages. ``unpack`` executes nothing
from the wire: a package is a checked description of layers plus integers, and costs bounded time
and memory even when it is hostile. The hash of the decoded model is in the header, so a device
knows that it holds exactly the model the edge measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from endedge.data.errors import BadInput
from endedge.distill.adapter import attach
from endedge.distill.envelope import HEADER_BYTES, Envelope, opened
from endedge.distill.layers import Layer, layers
from endedge.distill.model import DetectionModel, clone, model_hash
from endedge.distill.package.description import changed_adapter, read_spec, skeleton_of
from endedge.distill.package.entropy import decode_arrays
from endedge.distill.package.quantization import Coded, Ints, apply_coded

__all__ = ["PARAMETERS_PER_BYTE", "inspect", "unpack", "wire_arrays"]

PARAMETERS_PER_BYTE = 4096  #: a full package of n bytes may describe this many times n parameters


def wire_arrays(coded: Sequence[Coded]) -> list[Ints]:
    """All integers in the order they are sent: offsets, vectors, weights."""
    vectors = [v for c in coded for v in (*c.vectors, c.rows, c.columns)]
    offsets = [int(np.median(v)) if v.size else 0 for v in vectors]
    scalars = np.array([c.sigma for c in coded] + offsets, np.int32)
    centred = [v - o for v, o in zip(vectors, offsets, strict=True)]
    return [scalars, *centred, *(c.weights for c in coded)]


def _wire_shapes(weighted: Sequence[Layer]) -> list[tuple[int, ...]]:
    lengths = [n for layer in weighted for n in _vector_lengths(layer)]
    kernels = [
        (*layer.conv.weight.shape[:2], layer.conv.weight[0, 0].numel()) for layer in weighted
    ]
    return [(len(weighted) + len(lengths),), *((n,) for n in lengths), *kernels]


def _vector_lengths(layer: Layer) -> list[int]:
    n_out, n_in = layer.conv.weight.shape[:2]
    own = 3 if layer.bn is not None else int(layer.conv.bias is not None)
    return [n_out] * own + [n_out, n_in]


def _from_wire(arrays: Sequence[Ints], weighted: Sequence[Layer]) -> list[Coded]:
    scalars, rest = arrays[0], iter(arrays[1 : len(arrays) - len(weighted)])
    sigmas, offsets = scalars[: len(weighted)], iter(scalars[len(weighted) :])
    result = []
    for layer, sigma, weights in zip(
        weighted, sigmas, arrays[len(arrays) - len(weighted) :], strict=True
    ):
        vectors = [next(rest) + next(offsets) for _ in _vector_lengths(layer)]
        *own, rows, columns = vectors
        result.append(Coded(int(sigma), own, rows, columns, weights))
    return result


def unpack(data: bytes, *, base: DetectionModel | None = None) -> DetectionModel:
    """The detector in a package, fp32, in eval mode; ``base`` is what a delta builds upon.

    Raises :class:`BadInput` for a package that is corrupt, too large, of another version,
    or made for another base. ``base`` itself is not changed.
    """
    package = opened(data)
    if package.mode == "full":
        base = None
        model = skeleton_of(package.spec, PARAMETERS_PER_BYTE * len(data))[1]
    else:
        model = clone(_needed(package, base))
        if package.mode == "reuse":
            return model.eval()
        if package.spec:
            attach(model, changed_adapter(package.spec))
    weighted = layers(model)
    coded = _from_wire(decode_arrays(package.stream, _wire_shapes(weighted)), weighted)
    apply_coded(model, coded, package.step, base)
    if model_hash(model)[:32] != package.result:
        raise BadInput("corrupt package: the decoded model is not the one that was packed")
    return model.eval()


def _needed(package: Envelope, base: DetectionModel | None) -> DetectionModel:
    """``base``, if it is what the package builds upon."""
    what, needed = "a delta package needs the base model", package.base
    if package.mode == "reuse":
        what, needed = "the package goes back to the model", package.result
    if base is None:
        raise BadInput(f"{what} {needed}")
    if (given := model_hash(base)[:32]) != needed:
        if package.mode == "reuse":
            raise BadInput(f"{what} {needed}, which is not {given}")
        raise BadInput(f"a delta package for base {needed}, not for {given}")
    return base


def inspect(data: bytes) -> dict[str, Any]:
    """What a package says about itself, without building a model. Raises :class:`BadInput`."""
    package = opened(data)
    about: dict[str, Any] = {
        "format": "eeu",
        "version": 1,
        "mode": package.mode,
        "bytes": len(data),
        "result": package.result,
        "base": package.base if package.mode == "delta" else None,
        "step": package.step,
        "header_bytes": HEADER_BYTES,
        "spec_bytes": len(package.spec),
        "coded_bytes": len(package.stream),
    }
    if package.mode == "reuse":
        return about
    if package.mode == "delta":
        blob = package.spec
        return about | ({"adapter": read_spec(blob, "adapter")[1]} if blob else {})
    spec, narrowed = read_spec(package.spec)
    about |= {
        "names": spec.get("names"),
        "yaml": spec.get("yaml"),
        "narrowed_layers": len(narrowed),
    }
    return about | ({"adapter": spec["adapter"]} if "adapter" in spec else {})
