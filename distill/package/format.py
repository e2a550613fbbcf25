"""The update package (``.eeu``): a detector in at most so many bytes, and back.

The format is described in docs/eeu.md. ``unpack`` executes nothing from the wire: a package
is a checked description of layers plus integers, and costs bounded time and memory even when
it is hostile. The hash of the decoded model is in the header, so a device knows that it
holds exactly the model the edge measured.
"""

from __future__ import annotations

import copy
import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from endedge.data.errors import BadInput
from endedge.distill.adapter import adapter_of, attach
from endedge.distill.layers import Layer, layers
from endedge.distill.losses import divergence
from endedge.distill.model import DetectionModel, clone, count_parameters, model_hash, spec_of
from endedge.distill.package.byte_budget import first_guess, fit_step
from endedge.distill.package.description import changed_adapter, describe, read_spec, skeleton_of
from endedge.distill.package.entropy import decode_arrays, encode_arrays
from endedge.distill.package.qat import train_integers
from endedge.distill.package.quantization import Coded, Ints, Target, apply_coded, steps, targets
from endedge.distill.package.rounding import Grid, level_grids, make_grid, quantize
from endedge.distill.package.sensitivity import Sensitivity, measure, synthetic_frames
from endedge.distill.structure import build_checked
from endedge.distill.training import Recipe

__all__ = ["PARAMETERS_PER_BYTE", "Packed", "Report", "Watch", "inspect", "pack", "unpack"]

_MAGIC = b"EEU1"
_HEADER = struct.Struct("<4sB16s16s16sfI")  # magic, mode, checksum, result, base, step, spec bytes
_CHECKED_FROM = 4 + 1 + 16  # the checksum covers the mode byte and all that follows it
_FULL, _DELTA = 0, 1
_ROOM = 0.99  # of the budget is filled where integers are then trained: it grows a little
_MOST_FRAMES = 128  # more tell the packer little and cost seconds
Watch = Callable[[float, str], None]
PARAMETERS_PER_BYTE = 4096  #: a full package of n bytes may describe this many times n parameters


@dataclass(frozen=True)
class Report:
    """What the packer chose.

    ``mean_bits``: bytes of coded weights times 8 over their number. ``kept``: parameters
    over those of the unpruned architecture. ``expected_loss``: second-order
    estimate of what rounding costs, in nats of the predictive distribution a frame; it
    compares packages of one model on the same frames.
    The package is header + spec + coded bytes long.
    """

    mode: str
    mean_bits: float
    parameters: int
    kept: float
    step: float
    expected_loss: float
    header_bytes: int
    spec_bytes: int
    coded_bytes: int


@dataclass(frozen=True)
class Packed:
    """A package and how it came about; ``len(data)`` is what crosses the link."""

    data: bytes
    report: Report


def pack(
    model: DetectionModel,
    budget_bytes: int,
    *,
    base: DetectionModel | None = None,
    frames: torch.Tensor | None = None,
    seed: int = 0,
    mode: str = "auto",
    aware: Recipe | None = None,
    watch: Watch | None = None,
) -> Packed:
    """Code ``model`` in at most ``budget_bytes``, as accurately as that allows.

    ``base`` is the model the device holds already: then a delta against it competes with a
    full package (``mode`` ``"auto"``; ``"full"`` and ``"delta"`` decide). ``frames`` (N, 3, S, S)
    uint8 need no labels; they tell the packer which weights matter (128 are used).
    ``aware`` trains the integers of a full package by that recipe on ``frames``, all of them (see
    :func:`~endedge.distill.package.qat.train_integers`); a fifth of them decides whether the
    result is used. ``watch(share, message)`` hears of progress. Raises :class:`BadInput` if the
    budget is below the smallest reachable size, and says it.
    """
    if mode not in ("auto", "full", "delta"):
        raise BadInput(f"mode {mode!r}; choose auto, full or delta")
    fits = base is not None and _same_kind(model, base)
    if mode == "delta" and not fits:
        raise BadInput("mode 'delta' needs a base model of the same layers, widths and classes")
    if aware is not None and (frames is None or len(frames) < 2):
        raise BadInput("integers are trained on frames; give at least 2")
    pictures = synthetic_frames(seed=seed) if frames is None else frames[:_MOST_FRAMES]
    say: Watch = watch or (lambda share, message: None)
    measured = measure(
        model, pictures, seed, lambda share: say(0.7 * share, "which weights matter")
    )
    packed: list[Packed] = []
    refused: list[BadInput] = []
    references: list[DetectionModel | None] = []
    if mode != "delta":
        references.append(None)
    if mode != "full" and fits:
        references.append(base)
    for reference in references:
        try:
            taught = None
            if aware is not None and frames is not None and reference is None:
                taught = aware, frames
            packed.append(_pack_one(model, budget_bytes, reference, measured, taught, say))
        except BadInput as error:
            refused.append(error)
    if not packed:
        raise refused[-1]
    return min(packed, key=lambda p: p.report.expected_loss)


def _same_kind(a: DetectionModel, b: DetectionModel) -> bool:
    shapes = [
        {k: v.shape for k, v in m.state_dict().items() if not k.startswith("input_adapter.")}
        for m in (a, b)
    ]
    return shapes[0] == shapes[1] and dict(a.names) == dict(b.names)


def _pack_one(
    model: DetectionModel,
    budget_bytes: int,
    base: DetectionModel | None,
    measured: Mapping[str, Sensitivity],
    taught: tuple[Recipe, torch.Tensor] | None,
    say: Watch,
) -> Packed:
    goals = targets(model, base)
    grids = [make_grid(goal, measured[goal.name]) for goal in goals]
    level_grids(goals, grids)
    spec, skeleton = describe(model, base)

    def code(step: float) -> tuple[list[Coded], bytes]:
        step = float(np.float32(step))
        coded = [quantize(goal, grid, step) for goal, grid in zip(goals, grids, strict=True)]
        stream = encode_arrays(_wire_arrays(coded))
        kind = "full" if base is None else "delta"
        say(0.8, f"{kind} package of {overhead + len(stream):,} bytes for {budget_bytes:,}")
        return coded, stream

    overhead = _HEADER.size + len(spec)
    n_weights = sum(goal.weights.size for goal in goals)
    live = sum(int(np.count_nonzero(g.weights.any(axis=(1, 2)))) * g.weights[0].size for g in goals)
    step, (coded, stream) = fit_step(
        code,
        lambda result: overhead + len(result[1]),
        budget_bytes if taught is None else round(_ROOM * budget_bytes),
        first_guess(8 * (budget_bytes - overhead) / max(1, live)),
    )
    decoded = clone(base) if base is not None else skeleton
    attach(decoded, copy.deepcopy(adapter_of(model)))
    apply_coded(decoded, coded, step, base)
    if taught is not None:
        recipe, frames = taught
        held = max(1, len(frames) // 5)
        trained = train_integers(
            model,
            decoded,
            coded,
            step,
            frames[:-held],
            recipe,
            on_step=lambda i, loss: say(0.8, f"integers, step {i}/{recipe.steps}, {loss:.2f} nats"),
        )
        better = clone(decoded)
        apply_coded(better, trained, step, base)
        longer = encode_arrays(_wire_arrays(trained))
        one, other = (divergence(model, m, frames[-held:]) for m in (decoded, better))
        if other < one and overhead + len(longer) <= budget_bytes:
            decoded, coded, stream = better, trained, longer
    body = struct.pack("<fI", step, len(spec)) + spec + stream
    rest = (
        bytes.fromhex(model_hash(decoded))[:16]
        + (bytes.fromhex(model_hash(base))[:16] if base is not None else bytes(16))
        + body
    )
    kind = bytes([_FULL if base is None else _DELTA])
    checksum = hashlib.sha256(_MAGIC + kind + rest).digest()[:16]
    data = _MAGIC + kind + checksum + rest
    return Packed(
        data,
        Report(
            mode="full" if base is None else "delta",
            mean_bits=8 * len(stream) / n_weights,
            parameters=count_parameters(model),
            kept=_kept(model, spec_of(model)),
            step=step,
            expected_loss=_expected_loss(goals, coded, grids, step),
            header_bytes=_HEADER.size,
            spec_bytes=len(spec),
            coded_bytes=len(stream),
        ),
    )


def _kept(model: DetectionModel, spec: dict[str, Any]) -> float:
    return count_parameters(model) / count_parameters(build_checked(spec))


def _expected_loss(
    goals: Sequence[Target], coded: Sequence[Coded], grids: Sequence[Grid], step: float
) -> float:
    """Second-order estimate in nats a frame, without the correlations between inputs."""
    total = 0.0
    for goal, c, grid in zip(goals, coded, grids, strict=True):
        error = goal.weights - c.weights * steps(c.rows, c.columns, step)
        total += float((grid.importance * (error**2).sum(axis=(1, 2))).sum())
    return total / 2


# --- the wire ----------------------------------------------------------------------------


def _wire_arrays(coded: Sequence[Coded]) -> list[Ints]:
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
