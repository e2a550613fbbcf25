"""The update package (``.eeu``) on the wire: opened, checked and decoded.

The format is described in docs/eeu.md; :mod:`.packing` makes packages. ``unpack`` executes nothing
from the wire: a package is a checked description of layers plus integers, and costs bounded time
and memory even when it is hostile. The hash of the decoded model is in the header, so a device
knows that it holds exactly the model the edge measured.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from endedge.data.errors import BadInput
from endedge.distill.adapter import attach
from endedge.distill.layers import Layer, layers
from endedge.distill.model import DetectionModel, clone, model_hash
from endedge.distill.package.description import changed_adapter, read_spec, skeleton_of
from endedge.distill.package.entropy import decode_arrays
from endedge.distill.package.quantization import Coded, Ints, apply_coded

__all__ = ["HEADER_BYTES", "PARAMETERS_PER_BYTE", "inspect", "seal", "unpack", "wire_arrays"]

_MAGIC = b"EEU1"
_HEADER = struct.Struct("<4sB16s16s16sfI")  # magic, mode, checksum, result, base, step, spec bytes
_CHECKED_FROM = 4 + 1 + 16  # the checksum covers the mode byte and all that follows it
_FULL, _DELTA = 0, 1
HEADER_BYTES = _HEADER.size  #: of every package
PARAMETERS_PER_BYTE = 4096  #: a full package of n bytes may describe this many times n parameters


def seal(result: str, base: str | None, step: float, spec: bytes, stream: bytes) -> bytes:
    """A package of its parts: the hash (hex) of the decoded model, that of the ``base`` of a delta,
    the step, the description and the coded integers."""
    body = struct.pack("<fI", step, len(spec)) + spec + stream
    held = bytes(16) if base is None else bytes.fromhex(base)[:16]
    rest = bytes.fromhex(result)[:16] + held + body
    kind = bytes([_FULL if base is None else _DELTA])
    return _MAGIC + kind + hashlib.sha256(_MAGIC + kind + rest).digest()[:16] + rest


def wire_arrays(coded: Sequence[Coded]) -> list[Ints]:
    """All integers in the order they are sent: offsets, vectors, weights."""
    vectors = [v for c in coded for v in (*c.vectors, c.rows, c.columns)]
    offsets = [int(np.median(v)) if v.size else 0 for v in vectors]
    scalars = np.array([c.sigma for c in coded] + offsets, np.int32)
    centred = [v - o for v, o in zip(vectors, offsets, strict=True)]
    return [scalars, *centred, *(c.weights for c in coded)]


def _wire_shapes(found: Sequence[Layer]) -> list[tuple[int, ...]]:
    lengths = [n for layer in found for n in _vector_lengths(layer)]
    kernels = [(*layer.conv.weight.shape[:2], layer.conv.weight[0, 0].numel()) for layer in found]
    return [(len(found) + len(lengths),), *((n,) for n in lengths), *kernels]


def _vector_lengths(layer: Layer) -> list[int]:
    n_out, n_in = layer.conv.weight.shape[:2]
    own = 3 if layer.bn is not None else int(layer.conv.bias is not None)
    return [n_out] * own + [n_out, n_in]


def _from_wire(arrays: Sequence[Ints], found: Sequence[Layer]) -> list[Coded]:
    scalars, rest = arrays[0], iter(arrays[1 : len(arrays) - len(found)])
    sigmas, offsets = scalars[: len(found)], iter(scalars[len(found) :])
    result = []
    for layer, sigma, weights in zip(
        found, sigmas, arrays[len(arrays) - len(found) :], strict=True
    ):
        vectors = [next(rest) + next(offsets) for _ in _vector_lengths(layer)]
        *own, rows, columns = vectors
        result.append(Coded(int(sigma), own, rows, columns, weights))
    return result


def _open(data: bytes) -> tuple[int, bytes, bytes, float, bytes, bytes]:
    if len(data) < _HEADER.size or data[:4] != _MAGIC:
        raise BadInput(
            f"not an update package: expected {_MAGIC!r} and at least {_HEADER.size} bytes"
        )
    magic, mode, checksum, result, base, step, n_spec = _HEADER.unpack_from(data)
    if hashlib.sha256(magic + data[4:5] + data[_CHECKED_FROM:]).digest()[:16] != checksum:
        raise BadInput("corrupt package: the checksum does not match; send it again")
    if mode not in (_FULL, _DELTA):
        raise BadInput(f"package of an unknown mode {mode}; this version reads full and delta")
    if mode == _FULL and base != bytes(16):
        raise BadInput("corrupt package: a full package names a base model")
    if _HEADER.size + n_spec > len(data):
        raise BadInput("corrupt package: the model description is cut short")
    if not (np.isfinite(step) and 0 < step < 2.0**60):
        raise BadInput("corrupt package: the quantization step is out of range")
    spec = data[_HEADER.size : _HEADER.size + n_spec]
    return mode, result, base, step, spec, data[_HEADER.size + n_spec :]


def unpack(data: bytes, *, base: DetectionModel | None = None) -> DetectionModel:
    """The detector in a package, fp32, in eval mode; ``base`` is what a delta builds upon.

    Raises :class:`BadInput` for a package that is corrupt, too large, of another version,
    or made for another base. ``base`` itself is not changed.
    """
    mode, result, base_hash, step, spec, stream = _open(data)
    if mode == _DELTA:
        if base is None:
            raise BadInput(f"a delta package needs the base model {base_hash.hex()}")
        if bytes.fromhex(model_hash(base))[:16] != base_hash:
            raise BadInput(
                f"a delta package for base {base_hash.hex()}, not for {model_hash(base)[:32]}"
            )
        model = clone(base)
        if spec:
            attach(model, changed_adapter(spec))
    else:
        base = None
        model = skeleton_of(spec, PARAMETERS_PER_BYTE * len(data))[1]
    found = layers(model)
    coded = _from_wire(decode_arrays(stream, _wire_shapes(found)), found)
    apply_coded(model, coded, step, base)
    if bytes.fromhex(model_hash(model))[:16] != result:
        raise BadInput("corrupt package: the decoded model is not the one that was packed")
    return model.eval()


def inspect(data: bytes) -> dict[str, Any]:
    """What a package says about itself, without building a model. Raises :class:`BadInput`."""
    mode, result, base_hash, step, blob, stream = _open(data)
    about: dict[str, Any] = {
        "format": "eeu",
        "version": 1,
        "mode": "delta" if mode == _DELTA else "full",
        "bytes": len(data),
        "result": result.hex(),
        "base": base_hash.hex() if mode == _DELTA else None,
        "step": step,
        "header_bytes": _HEADER.size,
        "spec_bytes": len(blob),
        "coded_bytes": len(stream),
    }
    if mode == _DELTA:
        return about | ({"adapter": read_spec(blob, "adapter")[1]} if blob else {})
    spec, narrowed = read_spec(blob)
    about |= {
        "names": spec.get("names"),
        "yaml": spec.get("yaml"),
        "narrowed_layers": len(narrowed),
    }
    return about | ({"adapter": spec["adapter"]} if "adapter" in spec else {})
