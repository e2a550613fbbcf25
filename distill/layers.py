"""The shape of a detector as seen by the packer and the pruner: its convolutions and their
widths.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from endedge.data.errors import BadInput

__all__ = ["MAX_CHANNELS", "MAX_PARAMETERS", "Layer", "layers", "set_widths", "widths"]

MAX_PARAMETERS = 100_000_000  #: most parameters a described detector may have
MAX_CHANNELS = 4096  #: of one convolution
_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True)
class Layer:
    """One convolution and the batch norm that follows it directly, by module name."""

    name: str
    conv: nn.Conv2d
    bn_name: str | None
    bn: nn.BatchNorm2d | None


def layers(model: nn.Module) -> list[Layer]:
    """All learnable convolutions of ``model`` in module order (DFL's fixed one is left out)."""
    listed, listed_convs = [], set()
    for name, module in model.named_modules():
        conv = getattr(module, "conv", None)
        bn = getattr(module, "bn", None)
        if isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d):
            listed.append(Layer(f"{name}.conv", conv, f"{name}.bn", bn))
            listed_convs.add(f"{name}.conv")
        elif (
            isinstance(module, nn.Conv2d)
            and name not in listed_convs
            and not name.endswith("dfl.conv")
        ):
            listed.append(Layer(name, module, None, None))
    return listed


def widths(model: nn.Module) -> dict[str, tuple[int, int]]:
    """(output channels, input channels) of every learnable convolution."""
    return {x.name: (x.conv.out_channels, x.conv.in_channels) for x in layers(model)}


def set_widths(model: _Module, wanted: Mapping[str, tuple[int, int]]) -> _Module:
    """Give convolutions other channel counts, in place; changed tensors are zero.

    Depthwise convolutions stay depthwise. Pruning narrows; Ultralytics widens: a detector
    fine-tuned from 80 classes to three keeps the class branch of the 80. Raises
    :class:`BadInput`, before anything is made, for unknown names, for counts outside
    1..``MAX_CHANNELS`` and for more parameters than ``MAX_PARAMETERS``.
    """
    by_name = {x.name: x for x in layers(model)}
    changed = []
    weights = 0
    for name, (n_out, n_in) in wanted.items():
        if name not in by_name:
            raise BadInput(f"no convolution {name!r} in this detector")
        conv = by_name[name].conv
        depthwise = conv.groups == conv.in_channels and conv.groups > 1
        if not (1 <= n_out <= MAX_CHANNELS and 1 <= n_in <= MAX_CHANNELS):
            raise BadInput(
                f"width of {name} is {n_out} x {n_in}; it must lie within 1..{MAX_CHANNELS}"
            )
        same = (n_out, n_in) == (conv.out_channels, conv.in_channels)
        if not same and conv.groups > 1 and (not depthwise or n_out != n_in):
            raise BadInput(f"width of grouped convolution {name} cannot be {n_out} x {n_in}")
        inputs = 1 if depthwise else n_in // conv.groups
        weights += n_out * inputs * conv.kernel_size[0] * conv.kernel_size[1]
        if not same:
            changed.append((by_name[name], n_out, n_in))
    if weights > MAX_PARAMETERS:
        raise BadInput(f"widths of {weights:,} weights; at most {MAX_PARAMETERS:,} are allowed")
    for layer, n_out, n_in in changed:
        _set_width(layer, n_out, n_in)
    for module in model.modules():  # C2f, C3k2, C2PSA remember their hidden width
        cv1 = getattr(module, "cv1", None)
        if isinstance(getattr(module, "c", None), int) and cv1 is not None and hasattr(cv1, "conv"):
            module.c = cv1.conv.out_channels // 2
    return model


def _set_width(layer: Layer, n_out: int, n_in: int) -> None:
    conv = layer.conv
    if conv.groups > 1:
        conv.groups = n_in
    conv.out_channels, conv.in_channels = n_out, n_in
    conv.weight = nn.Parameter(torch.zeros(n_out, n_in // conv.groups, *conv.kernel_size))
    if conv.bias is not None:
        conv.bias = nn.Parameter(torch.zeros(n_out))
    if layer.bn is not None and layer.bn.num_features != n_out:
        layer.bn.num_features = n_out
        layer.bn.weight = nn.Parameter(torch.ones(n_out))
        layer.bn.bias = nn.Parameter(torch.zeros(n_out))
        layer.bn.running_mean = torch.zeros(n_out)
        layer.bn.running_var = torch.ones(n_out)
