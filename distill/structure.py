"""Descriptions of detectors that come over the wire, checked before anything is built."""

from __future__ import annotations

import functools
import json
import math
from typing import Any

import torch
from torch import nn

from endedge.data.errors import BadInput
from endedge.distill.adapter import InputAdapter
from endedge.distill.model import DetectionModel, build_detector

__all__ = [
    "MAX_PARAMETERS",
    "build_checked",
    "check_spec",
]

MAX_PARAMETERS = 100_000_000  #: most parameters a described detector may have
_MAX_LAYERS, _MAX_REPEATS, _MAX_CHANNELS, _MAX_CLASSES = 200, 24, 4096, 2000
_MAX_BUILD_FLOPS = 200e9  # of the one forward pass at 256 px that Ultralytics makes to find strides
_MAX_ACTIVATION = 64_000_000  # elements of the largest feature map in that pass

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
    )
)
_WORDS = frozenset({"nc", "None", "nearest", "bilinear", "True", "False"})
_ACTIVATIONS = frozenset(
    f"{prefix}nn.{name}"
    for prefix in ("", "torch.")
    for name in (
        "SiLU()",
        "ReLU()",
        "ReLU6()",
        "LeakyReLU(0.1)",
        "Hardswish()",
        "GELU()",
        "Identity()",
    )
)


# --- descriptions from outside --------------------------------------------------------------


def check_spec(spec: Any) -> None:
    """Raise :class:`BadInput` unless ``spec`` is a detector description within bounds.

    Only layer names, numbers and a fixed set of words pass: Ultralytics evaluates some
    strings of a model description, so no other string may reach it.
    """
    if not isinstance(spec, dict) or set(spec) - {"adapter"} != {"yaml", "names"}:
        raise BadInput("model description: expected the keys 'yaml' and 'names'")
    if "adapter" in spec:
        InputAdapter.of(spec["adapter"])
    names, config = spec["names"], spec["yaml"]
    if not isinstance(names, dict) or not 1 <= len(names) <= _MAX_CLASSES:
        raise BadInput(f"model description: expected 1..{_MAX_CLASSES} class names")
    for key, name in names.items():
        if not (
            str(key).isdecimal() and len(str(key)) < 6 and isinstance(name, str) and len(name) <= 80
        ):
            raise BadInput("model description: class names must be short text under whole numbers")
    if not isinstance(config, dict):
        raise BadInput("model description: 'yaml' must be a mapping")
    for key, value in config.items():
        _check_entry(key, value)
    rows = [*_list(config.get("backbone"), "backbone"), *_list(config.get("head"), "head")]
    if not 1 <= len(rows) <= _MAX_LAYERS:
        raise BadInput(f"model description: {len(rows)} layers; at most {_MAX_LAYERS} are allowed")
    for i, row in enumerate(rows):
        _check_row(i, row)
    if rows[-1][2] != "Detect":
        raise BadInput("model description: the last layer must be Detect")


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadInput(f"model description: {what} must be a list")
    return value


def _check_entry(key: Any, value: Any) -> None:
    if key in ("backbone", "head"):
        return
    if key in ("nc", "reg_max", "ch", "channels"):
        limit = {"nc": _MAX_CLASSES, "reg_max": 64}.get(key, 3)
        good = type(value) is int and 1 <= value <= limit
    elif key in ("depth_multiple", "width_multiple"):
        good = type(value) in (int, float) and 0 < value <= 4
    elif key == "max_channels":
        good = type(value) is int and 1 <= value <= _MAX_CHANNELS
    elif key == "end2end":
        good = type(value) is bool or value is None
    elif key == "activation":
        good = value is None or value in _ACTIVATIONS
    elif key == "scale":
        good = value is None or (isinstance(value, str) and len(value) <= 8)
    elif key == "scales":
        good = (
            isinstance(value, dict)
            and len(value) <= 16
            and all(
                isinstance(v, list)
                and len(v) == 3
                and all(type(x) in (int, float) and 0 < x <= _MAX_CHANNELS for x in v)
                and v[0] <= 4
                and v[1] <= 4
                for v in value.values()
            )
        )
    else:
        good = False
    if not good:
        raise BadInput(f"model description: {str(key)[:40]!r} is unknown or out of range")


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
    if not isinstance(module, str) or module not in _MODULES:
        raise BadInput(f"model description: layer {i} names {str(module)[:40]!r}, no known layer")
    for x in _list(arguments, f"arguments of layer {i}"):
        word = isinstance(x, str) and x in _WORDS
        number = type(x) in (int, float) and math.isfinite(x) and abs(x) <= _MAX_CHANNELS
        if not (x is None or type(x) is bool or word or number) or len(arguments) > 8:
            raise BadInput(f"model description: layer {i} has an argument that is not allowed")


def build_checked(spec: Any, max_parameters: int = MAX_PARAMETERS) -> DetectionModel:
    """Build ``spec`` from outside, at bounded cost. Raises :class:`BadInput`.

    The layers are first laid out on PyTorch's meta device, where they take no memory; only
    if parameters, the largest feature map and the arithmetic of one forward pass at 256 px
    stay within bounds are they really made. The global random state is left as it was.
    """
    check_spec(spec)
    if _count_parameters(json.dumps(spec)) > max_parameters:
        raise BadInput(f"model description: more than {max_parameters} parameters")
    with torch.random.fork_rng(devices=[]):
        return build_detector(spec).eval()


@functools.lru_cache(maxsize=64)
def _count_parameters(text: str) -> int:
    """Parameters of the description ``text``, after checking what building it would cost."""
    from torch.utils.flop_counter import FlopCounterMode
    from ultralytics.nn.modules import Conv
    from ultralytics.nn.tasks import parse_model

    spec = json.loads(text)
    config = spec["yaml"]
    config["nc"] = len(spec["names"])
    default_act = Conv.default_act  # a parse that fails would leave its own behind
    try:
        with torch.device("meta"):
            sequence, _ = parse_model(config, ch=3, verbose=False)
            count = sum(p.numel() for p in sequence.parameters())
            if count > MAX_PARAMETERS:
                raise BadInput(f"model description: more than {MAX_PARAMETERS} parameters")
            counter = FlopCounterMode(display=False)
            with counter, torch.no_grad():
                _layout(sequence, torch.zeros(1, 3, 256, 256))
            if counter.get_total_flops() > _MAX_BUILD_FLOPS:
                raise BadInput("model description: one forward pass costs too much arithmetic")
        return int(count)
    except BadInput:
        raise
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"model description cannot be built: {first[:200]}") from None
    finally:
        Conv.default_act = default_act


def _layout(sequence: nn.Sequential, x: Any) -> None:
    """Ultralytics' forward loop up to the head, on the meta device."""
    outputs: list[Any] = []
    for module in list(sequence.children())[:-1]:
        source: Any = module.f
        if source != -1:
            x = (
                outputs[source]
                if isinstance(source, int)
                else [x if j == -1 else outputs[j] for j in source]
            )
        x = module(x)
        if x.numel() > _MAX_ACTIVATION:
            raise BadInput("model description: a feature map is too large")
        outputs.append(x)
