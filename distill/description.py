"""Descriptions of detectors from outside: what may stand in one, and what it would cost.

Ultralytics makes layers from a description by looking names up, by evaluating its
``activation`` and by interpreting strings among the arguments. So a description passes
:func:`check_spec` first, which knows every key, layer and word that may occur, and
:func:`plan_of`, which lays the layers out on PyTorch's meta device, where they take no
memory. :func:`endedge.distill.model.build_detector` asks both, whatever the source.
"""

from __future__ import annotations

import functools
import json
import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from endedge.data.errors import BadInput
from endedge.distill.adapter import InputAdapter
from endedge.distill.layers import MAX_CHANNELS, MAX_PARAMETERS, set_widths, widths
from endedge.distill.network import Conv, parse_model

__all__ = ["ACTIVATIONS", "PROBE_SIDE", "SpecSummary", "check_spec", "plan_of", "resolved", "using"]

PROBE_SIDE = 256  #: px; the picture on which Ultralytics finds the strides of a detector
_MAX_LAYERS, _MAX_REPEATS, _MAX_CLASSES = 200, 24, 2000
_MAX_MODULES = 5_000  # all of them, however deep
_MAX_FLOPS = 200e9  # of one pass at PROBE_SIDE
_MAX_ELEMENTS = 400_000_000  # of all feature maps of that pass together

_MODULES = frozenset(
    (
        "A2C2f",
        "AConv",
        "ADown",
        "Bottleneck",
        "BottleneckCSP",
        "C1",
        "C2",
        "C2PSA",
        "C2f",
        "C2fCIB",
        "C2fPSA",
        "C3",
        "C3Ghost",
        "C3k2",
        "C3x",
        "Concat",
        "Conv",
        "ConvTranspose",
        "DWConv",
        "Detect",
        "ELAN1",
        "Focus",
        "GhostBottleneck",
        "GhostConv",
        "PSA",
        "RepC3",
        "RepNCSPELAN4",
        "SCDown",
        "SPP",
        "SPPELAN",
        "SPPF",
        "nn.Identity",
        "nn.MaxPool2d",
        "nn.Upsample",
        "v10Detect",
    )
)
_HEADS = ("Detect", "v10Detect")
_OTHER_TASKS = {  # heads of networks that are no detectors, or not of fixed classes
    "RTDETRDecoder": "RT-DETR",
    "Segment": "segmentation",
    "Segment26": "segmentation",
    "SemanticSegment": "segmentation",
    "Pose": "pose",
    "Pose26": "pose",
    "OBB": "oriented-box",
    "OBB26": "oriented-box",
    "Classify": "classification",
    "WorldDetect": "YOLO-World",
    "YOLOEDetect": "YOLOE",
    "YOLOESegment": "YOLOE",
    "YOLOESegment26": "YOLOE",
    "Depth": "depth",
}
_WORDS = frozenset({"nc", "None", "nearest", "bilinear", "True", "False"})
ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    f"{prefix}nn.{name}()": kind
    for prefix in ("", "torch.")
    for name, kind in {
        "SiLU": nn.SiLU,
        "ReLU": nn.ReLU,
        "ReLU6": nn.ReLU6,
        "Hardswish": nn.Hardswish,
        "GELU": nn.GELU,
        "Identity": nn.Identity,
    }.items()
}  #: what may be written as ``activation``, beside ``nn.LeakyReLU(0.1)``
_LEAKY = ("nn.LeakyReLU(0.1)", "torch.nn.LeakyReLU(0.1)")


def check_spec(spec: Any) -> None:
    """Raise :class:`BadInput` unless ``spec`` is a detector description within bounds.

    Only layer names, numbers and a fixed set of words pass. Nothing of ``spec`` that is not
    known to be short is put into a message: it may be nested to explode when printed.
    """
    if not isinstance(spec, dict) or set(spec) - {"adapter"} != {"yaml", "names"}:
        raise BadInput("model description: expected the keys 'yaml' and 'names'")
    if "adapter" in spec:
        InputAdapter.of(spec["adapter"])
    names, config = spec["names"], spec["yaml"]
    if not isinstance(names, dict) or not 1 <= len(names) <= _MAX_CLASSES:
        raise BadInput(f"model description: expected 1..{_MAX_CLASSES} class names")
    numbers = set()
    for key, name in names.items():
        if not _is_class(key) or not (
            isinstance(name, str) and 1 <= len(name) <= 80 and name.isprintable()
        ):
            raise BadInput("model description: class names must be short text under whole numbers")
        numbers.add(int(key))
    if numbers != set(range(len(names))):
        raise BadInput("model description: classes must be numbered from 0 on, each once")
    if not isinstance(config, dict):
        raise BadInput("model description: 'yaml' must be a mapping")
    for entry, value in config.items():
        _check_entry(entry, value)
    rows = [*_list(config.get("backbone"), "backbone"), *_list(config.get("head"), "head")]
    if not 1 <= len(rows) <= _MAX_LAYERS:
        raise BadInput(f"model description: {len(rows)} layers; at most {_MAX_LAYERS} are allowed")
    for i, row in enumerate(rows):
        _check_row(i, row)
    if rows[-1][2] not in _HEADS or any(row[2] in _HEADS for row in rows[:-1]):
        raise BadInput("model description: the last layer, and no other, must be Detect")


def _is_class(key: Any) -> bool:
    if isinstance(key, str):
        return len(key) < 6 and key.isascii() and key.isdecimal()
    return type(key) is int and 0 <= key < _MAX_CLASSES


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadInput(f"model description: {what} must be a list")
    return value


def _said(value: Any) -> str:
    """``value`` for a message: text cut short, anything else by its type."""
    return repr(value[:40]) if isinstance(value, str) else f"a {type(value).__name__}"


def _number(value: Any, low: float, high: float) -> bool:
    return type(value) in (int, float) and low < value <= high


def _check_entry(key: Any, value: Any) -> None:
    if key in ("backbone", "head"):
        return
    if key in ("ch", "channels"):
        if type(value) is int and value != 3:
            raise BadInput(
                f"model description: it takes pictures of {value} channels; only 3 are supported"
            )
        good = type(value) is int
    elif key in ("nc", "reg_max", "max_channels"):
        limit = {"nc": _MAX_CLASSES, "reg_max": 64}.get(key, MAX_CHANNELS)
        good = type(value) is int and 1 <= value <= limit
    elif key in ("depth_multiple", "width_multiple"):
        good = _number(value, 0, 4)
    elif key == "end2end":
        good = type(value) is bool or value is None
    elif key == "activation":
        good = value is None or (
            isinstance(value, str) and (value in ACTIVATIONS or value in _LEAKY)
        )
    elif key == "scale":
        good = value is None or (isinstance(value, str) and len(value) <= 8)
    elif key == "scales":
        good = isinstance(value, dict) and len(value) <= 16 and all(map(_is_scale, value.items()))
    else:
        good = False
    if not good:
        raise BadInput(f"model description: the entry {_said(key)} is unknown or out of range")


def _is_scale(item: tuple[Any, Any]) -> bool:
    key, value = item
    if not (isinstance(key, str) and len(key) <= 8 and isinstance(value, list) and len(value) == 3):
        return False
    return (
        _number(value[0], 0, 4) and _number(value[1], 0, 4) and _number(value[2], 0, MAX_CHANNELS)
    )


def _check_row(i: int, row: Any) -> None:
    if not (isinstance(row, list) and len(row) == 4):
        raise BadInput(f"model description: layer {i} must be [from, repeats, module, arguments]")
    source, repeats, module, arguments = row
    sources = source if isinstance(source, list) else [source]
    if not (
        1 <= len(sources) <= 16 and all(type(x) is int and -1 - i <= x < max(i, 1) for x in sources)
    ):
        raise BadInput(f"model description: layer {i} reads from a layer that is not before it")
    if type(repeats) is not int or not 1 <= repeats <= _MAX_REPEATS:
        raise BadInput(f"model description: layer {i} repeats must be 1..{_MAX_REPEATS}")
    if isinstance(module, str) and module in _OTHER_TASKS:
        raise BadInput(
            f"model description: {module} is the head of a {_OTHER_TASKS[module]} network; "
            "endedge takes detectors whose last layer is Detect"
        )
    if not isinstance(module, str) or module not in _MODULES:
        raise BadInput(f"model description: layer {i} names {_said(module)}, no known layer")
    for x in _list(arguments, f"arguments of layer {i}"):
        word = isinstance(x, str) and x in _WORDS
        number = type(x) in (int, float) and abs(x) <= MAX_CHANNELS and math.isfinite(x)
        if not (x is None or type(x) is bool or word or number) or len(arguments) > 8:
            raise BadInput(f"model description: layer {i} has an argument that is not allowed")


def resolved(spec: dict[str, Any]) -> dict[str, Any]:
    """The Ultralytics model dict of a checked ``spec`` with nothing left to evaluate: words are
    values already, and the activation is not in it (see :func:`using`)."""
    words: dict[str, Any] = {"None": None, "True": True, "False": False, "nc": len(spec["names"])}

    def rows(part: str) -> list[Any]:
        return [
            [
                list(source) if isinstance(source, list) else source,
                repeats,
                module,
                [words.get(a, a) if isinstance(a, str) else a for a in arguments],
            ]
            for source, repeats, module, arguments in spec["yaml"][part]
        ]

    config = {k: v for k, v in spec["yaml"].items() if k not in ("activation", "ch", "channels")}
    return {**config, "nc": len(spec["names"]), "backbone": rows("backbone"), "head": rows("head")}


@contextmanager
def using(activation: str | None) -> Iterator[None]:
    """Ultralytics' layers get this activation (one that :func:`check_spec` lets pass) inside."""
    before = Conv.default_act
    if activation:
        kind = ACTIVATIONS.get(activation)
        Conv.default_act = nn.LeakyReLU(0.1) if kind is None else kind()
    try:
        yield
    finally:
        Conv.default_act = before


@dataclass(frozen=True)
class SpecSummary:
    """What a description comes to: ``parameters``; ``heights`` of the head's feature maps for a
    picture of ``PROBE_SIDE`` px; ``widths`` (output, input channels) of its convolutions."""

    parameters: int
    heights: tuple[int, ...]
    widths: dict[str, tuple[int, int]]


def plan_of(spec: Any, wanted: Mapping[str, tuple[int, int]] | None = None) -> SpecSummary:
    """The plan of ``spec`` with convolutions of the widths ``wanted``, at bounded cost and without
    memory for a single weight. Raises :class:`BadInput` for a description that is not allowed,
    does not fit together, or costs too much to hold or to run."""
    check_spec(spec)
    return _plan(json.dumps(spec), tuple(sorted((wanted or {}).items())))


@functools.lru_cache(maxsize=64)
def _plan(text: str, wanted: tuple[tuple[str, tuple[int, int]], ...]) -> SpecSummary:
    spec = json.loads(text)
    try:
        with torch.device("meta"), using(spec["yaml"].get("activation")), _few_modules():
            holder = nn.Module()
            sequence, _ = parse_model(resolved(spec), ch=3, verbose=False)
            holder.model = sequence
            set_widths(holder, dict(wanted))
            count = sum(p.numel() for p in holder.parameters())
            if count > MAX_PARAMETERS:
                raise BadInput(f"model description: more than {MAX_PARAMETERS:,} parameters")
            heights = _run(sequence, len(spec["names"]))
        return SpecSummary(int(count), heights, widths(holder))
    except BadInput:
        raise
    except RecursionError:
        raise BadInput("model description cannot be built: it is nested too deep") from None
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"model description cannot be built: {first[:200]}") from None


@contextmanager
def _few_modules() -> Iterator[None]:
    """Ends the building of a network of too many parts: the arguments of some layers are counts
    of parts, so a short description may name a million of them."""
    mine, left = threading.get_ident(), _MAX_MODULES

    def count(module: nn.Module, name: str, part: nn.Module | None) -> None:
        nonlocal left
        if threading.get_ident() == mine:
            left -= 1
            if left < 0:
                raise BadInput(f"model description: more than {_MAX_MODULES:,} modules")

    handle = register_module_module_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


class _Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Elements of all results together, and the comparisons of pooling, which count as
    arithmetic: no other operation of these layers costs more than its result and its flops."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements, self.pooled = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        n = sum(t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor))
        self.elements += n
        if "max_pool" in str(func):
            self.pooled += n * math.prod(args[1])
        if self.elements > _MAX_ELEMENTS:
            raise BadInput("model description: its feature maps are too large")
        if self.pooled > _MAX_FLOPS:
            raise BadInput("model description: one forward pass costs too much arithmetic")
        return out


def _run(sequence: nn.Sequential, classes: int) -> tuple[int, ...]:
    """Ultralytics' forward loop on the meta device; the heights of the head's feature maps."""
    counter = FlopCounterMode(display=False)
    outputs: list[Any] = []
    x: Any = torch.zeros(1, 3, PROBE_SIDE, PROBE_SIDE)
    sequence.eval()
    head: Any = sequence[-1]
    head.training = True  # raw predictions: decoding needs the strides, which are not known yet
    with counter, _Meter(), torch.no_grad():
        for module in sequence:
            source: Any = module.f
            if source != -1:
                x = (
                    outputs[source]
                    if isinstance(source, int)
                    else [x if j == -1 else outputs[j] for j in source]
                )
            x = module(x)
            outputs.append(x)
    if counter.get_total_flops() > _MAX_FLOPS:
        raise BadInput("model description: one forward pass costs too much arithmetic")
    heights: tuple[int, ...] = ()
    for raw in (x["one2many"], x["one2one"]) if "one2many" in x else (x,):
        places = sum(maps.shape[2] * maps.shape[3] for maps in raw["feats"])
        heights = tuple(int(maps.shape[2]) for maps in raw["feats"])
        if raw["scores"].shape[1:] != (classes, places):
            raise BadInput(f"model description: its head does not score {classes} classes")
        if raw["boxes"].shape[1:] != (4 * head.reg_max, places):
            raise BadInput("model description: its head gives boxes of another shape")
    if any(h < 1 or PROBE_SIDE % h for h in heights):
        raise BadInput("model description: the strides of its head are no whole numbers")
    return heights
