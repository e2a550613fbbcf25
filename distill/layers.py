"""The shape of a detector as the packer and the pruner see it: its convolutions, their widths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from endedge.data.errors import BadInput

__all__ = ["Layer", "layers", "set_widths", "widths"]

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Layer:
    """One convolution and the batch norm that follows it directly, by module name."""

    name: str
    conv: nn.Conv2d
    bn_name: str | None
    bn: nn.BatchNorm2d | None


def layers(model: nn.Module) -> list[Layer]:
    """All learnable convolutions of ``model`` in module order (DFL's fixed one is left out)."""
    found, seen = [], set()
    for name, module in model.named_modules():
        conv = getattr(module, "conv", None)
        bn = getattr(module, "bn", None)
        if isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d):
            found.append(Layer(f"{name}.conv", conv, f"{name}.bn", bn))
            seen.add(f"{name}.conv")
        elif isinstance(module, nn.Conv2d) and name not in seen and not name.endswith("dfl.conv"):
            found.append(Layer(name, module, None, None))
    return found


def widths(model: nn.Module) -> dict[str, tuple[int, int]]:
    """(output channels, input channels) of every learnable convolution."""
    return {x.name: (x.conv.out_channels, x.conv.in_channels) for x in layers(model)}


def set_widths(model: Network, wanted: Mapping[str, tuple[int, int]]) -> Network:
    """Give convolutions other channel counts, in place; changed tensors are zero.

    Depthwise convolutions stay depthwise. Raises :class:`BadInput` for unknown names and
    for counts outside 1..the present width (pruning only ever narrows).
    """
    known = {x.name: x for x in layers(model)}
    for name, (n_out, n_in) in wanted.items():
        layer = known.get(name)
        if layer is None:
            raise BadInput(f"no convolution {name!r} in this detector")
        conv = layer.conv
        if (n_out, n_in) == (conv.out_channels, conv.in_channels):
            continue
        if not (1 <= n_out <= conv.out_channels and 1 <= n_in <= conv.in_channels):
            raise BadInput(
                f"width of {name} is {n_out} x {n_in}; it must lie within "
                f"1..{conv.out_channels} x 1..{conv.in_channels}"
            )
        depthwise = conv.groups == conv.in_channels and conv.groups > 1
        if conv.groups > 1 and (not depthwise or n_out != n_in):
            raise BadInput(f"width of grouped convolution {name} cannot be {n_out} x {n_in}")
        if depthwise:
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
    for module in model.modules():  # C2f, C3k2, C2PSA remember their hidden width
        cv1 = getattr(module, "cv1", None)
        if isinstance(getattr(module, "c", None), int) and cv1 is not None and hasattr(cv1, "conv"):
            module.c = cv1.conv.out_channels // 2
    return model
