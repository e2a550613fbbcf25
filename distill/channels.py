"""Which channels belong together: channel names passed through an Ultralytics detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn
from ultralytics.nn.modules import (
    C3,
    SPPF,
    Bottleneck,
    C2f,
    Concat,
    Conv,
    Detect,
)
from ultralytics.nn.modules.block import C2PSA, Attention, PSABlock

from endedge.data.errors import BadInput
from endedge.distill.layers import layers
from endedge.distill.model import DetectionModel

__all__ = ["Channels", "trace"]

Scores = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Channels:
    """Group of every output and input channel, by convolution name; groups of ``pinned``
    (the picture, the predictions, attention) must stay."""

    outputs: dict[str, list[int]]
    inputs: dict[str, list[int]]
    pinned: set[int]


def trace(model: DetectionModel, scores: Scores | None = None) -> Channels:
    """Follow the channels of ``model``. ``scores`` (C,) by convolution pair the halves of a
    C2f by rank, so that unimportant channels of both can go together. Raises
    :class:`BadInput` for a layer type whose channels are not known."""
    tracer = _Tracer({x.conv: x.name for x in layers(model)}, scores or {})
    outputs: list[list[int]] = []
    x = tracer.fresh(3, pinned=True)
    for module in model.model:
        if module.f == -1:
            source = [x]
        else:
            froms = [module.f] if isinstance(module.f, int) else module.f
            source = [x if j == -1 else outputs[j] for j in froms]
        x = tracer.through(module, source)
        outputs.append(x)
    return tracer.channels()


class _Tracer:
    def __init__(self, names: Mapping[nn.Conv2d, str], scores: Scores) -> None:
        self.names, self.scores = names, scores
        self.parent: list[int] = []
        self.pinned: set[int] = set()
        self.outputs: dict[str, list[int]] = {}
        self.inputs: dict[str, list[int]] = {}

    def fresh(self, n: int, pinned: bool = False) -> list[int]:
        ids = list(range(len(self.parent), len(self.parent) + n))
        self.parent += ids
        if pinned:
            self.pinned.update(ids)
        return ids

    def root(self, i: int) -> int:
        while self.parent[i] != i:
            self.parent[i] = self.parent[self.parent[i]]
            i = self.parent[i]
        return i

    def join(self, a: Sequence[int], b: Sequence[int]) -> None:
        for i, j in zip(a, b, strict=True):
            self.parent[self.root(i)] = self.root(j)

    def channels(self) -> Channels:
        return Channels(
            {k: [self.root(i) for i in v] for k, v in self.outputs.items()},
            {k: [self.root(i) for i in v] for k, v in self.inputs.items()},
            {self.root(i) for i in self.pinned},
        )

    def conv(self, conv: nn.Conv2d, x: list[int]) -> list[int]:
        name = self.names[conv]
        self.inputs[name] = x
        if conv.groups == 1:
            self.outputs[name] = self.fresh(conv.out_channels)
        elif conv.groups == conv.in_channels == conv.out_channels:
            self.outputs[name] = x
        else:  # other grouped convolutions keep their widths
            self.outputs[name] = self.fresh(conv.out_channels, pinned=True)
            self.pinned.update(x)
        return self.outputs[name]

    def through(self, module: nn.Module, source: list[list[int]]) -> list[int]:
        """Groups of the output channels of ``module`` from those of its inputs."""
        x = source[0]
        if isinstance(module, Conv):
            return self.conv(module.conv, x)
        if isinstance(module, nn.Conv2d):
            return self.conv(module, x)
        if isinstance(module, Bottleneck):
            y = self.chain([module.cv1, module.cv2], x)
            return self.added(x, y) if module.add else y
        if isinstance(module, C2f):
            return self.c2f(module, x)
        if isinstance(module, C3):
            left = self.chain([module.cv1, module.m], x)
            return self.through(module.cv3, [left + self.through(module.cv2, [x])])
        if isinstance(module, C2PSA):
            first, second = self.halves(module.cv1, x)
            return self.through(module.cv2, [first + self.through(module.m, [second])])
        if isinstance(module, PSABlock):
            y = self.attention(module.attn, x)
            y = self.added(x, y) if module.add else y
            z = self.through(module.ffn, [y])
            return self.added(y, z) if module.add else z
        if isinstance(module, SPPF):
            hidden = self.through(module.cv1, [x])
            y = self.through(module.cv2, [hidden * (getattr(module, "n", 3) + 1)])
            return self.added(x, y) if getattr(module, "add", False) else y
        if isinstance(module, Detect):
            return self.detect(module, source)
        if isinstance(module, Concat):
            return [i for ids in source for i in ids]
        if isinstance(module, nn.Sequential | nn.ModuleList):
            return self.chain(list(module), x)
        if isinstance(module, nn.Upsample | nn.Identity | nn.MaxPool2d | nn.AvgPool2d):
            return x
        raise BadInput(f"pruning does not know the channels of a {type(module).__name__} layer")

    def chain(self, modules: Sequence[nn.Module], x: list[int]) -> list[int]:
        for module in modules:
            x = self.through(module, [x])
        return x

    def added(self, x: list[int], y: list[int]) -> list[int]:
        self.join(y, x)
        return x

    def halves(self, cv1: nn.Module, x: list[int]) -> tuple[list[int], list[int]]:
        """The two halves of a convolution that is split: as many must go from each."""
        y = self.through(cv1, [x])
        half = len(y) // 2
        first, second = y[:half], y[half:]
        score = self.scores.get(self.names[cv1.conv])  # type: ignore[index]
        if score is None:
            self.join(first, second)
        else:
            a, b = np.argsort(score[:half], kind="stable"), np.argsort(score[half:], kind="stable")
            self.join([first[i] for i in a], [second[i] for i in b])
        return first, second

    def c2f(self, module: C2f, x: list[int]) -> list[int]:
        parts = list(self.halves(module.cv1, x))
        for block in module.m:
            parts.append(self.through(block, [parts[-1]]))
        return self.through(module.cv2, [[i for part in parts for i in part]])

    def attention(self, module: Attention, x: list[int]) -> list[int]:
        """Heads view channels by position, so nothing inside attention may go."""
        qkv = self.conv(module.qkv.conv, x)
        value = self.fresh(len(x), pinned=True)
        self.conv(module.pe.conv, value)
        y = self.conv(module.proj.conv, value)
        self.pinned.update(x, qkv, y)
        return y

    def detect(self, module: Detect, source: list[list[int]]) -> list[int]:
        for heads in ("cv2", "cv3", "one2one_cv2", "one2one_cv3"):
            for head, x in zip(getattr(module, heads, None) or [], source, strict=False):
                self.pinned.update(self.through(head, [x]))
        return []
