"""An adapter of the input: a few numbers before the first convolution.

Much of what separates one camera from another is tone and colour: an inverted picture, a veil, a
display curve. A detector meets it again at no cost when the picture is brought back first. Two
kinds, which may be joined. *fixed*: a tone curve for each channel and a 3 × 3 colour matrix, the
same for all frames. *per frame*: the grey levels of each frame are stretched between two of its
percentiles before that.

The adapter is a part of the detector: it is copied, hashed, saved and packed with it, and works
wherever the detector is called. Its numbers are fixed-point, so they cross the link exactly.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from endedge.data.errors import BadInput

__all__ = ["KNOTS", "STARTS", "InputAdapter", "adapter_of", "attach", "kind_of", "start_adapter"]

KNOTS = 9  #: of a tone curve, equally spaced over [0, 1]
_UNIT = 512  # of every number on the wire: 1/512
_LIMIT = 8  # largest magnitude of a number
_LOW, _HIGH = 0.01, 0.99  # percentiles that are stretched to 0 and 1
_LEAST_RANGE = 0.02  # of grey: a frame of one tone is not blown up to noise
_STRIDE = 4  # every fourth pixel in each direction tells the percentiles
_PAD, _PAD_SLACK = 114 / 255, 0.5 / 255  # grey of the letterbox

_CURVES = {"identity": lambda x: x, "inverted": lambda x: 1 - x}
_CURVES |= {"gamma-0.5": lambda x: x**0.5, "gamma-2": lambda x: x**2}
STARTS: tuple[str, ...] = tuple(_CURVES)  #: where a learned curve may begin


class InputAdapter(nn.Module):
    """Pictures (n, 3, h, w) in [0, 1] to the same, as the detector was trained to see them.

    ``curve`` (3, 9): output of each channel at the inputs 0, 1/8, …, 1, linear between;
    ``matrix`` (3, 3) mixes the channels after it; ``per_frame``: levels are first stretched
    between the first and the last percentile of the frame's grey. The grey border of a
    letterboxed picture stays as it is. Raises :class:`BadInput` for numbers that are not finite
    or too large, and for other shapes.
    """

    curve: Tensor
    matrix: Tensor
    stretched: Tensor

    def __init__(self, curve: Tensor, matrix: Tensor, *, per_frame: bool = False) -> None:
        super().__init__()
        for name, numbers, shape in (("curve", curve, (3, KNOTS)), ("matrix", matrix, (3, 3))):
            if tuple(numbers.shape) != shape:
                raise BadInput(f"input adapter: {name} has shape {tuple(numbers.shape)}, {shape}")
            if not torch.isfinite(numbers).all() or numbers.abs().max() > _LIMIT:
                raise BadInput(f"input adapter: {name} must be finite, between ±{_LIMIT}")
        self.per_frame = per_frame
        self.register_buffer("curve", _rounded(curve))
        self.register_buffer("matrix", _rounded(matrix))
        self.register_buffer("stretched", torch.tensor(int(per_frame), dtype=torch.uint8))

    def forward(self, images: Tensor) -> Tensor:
        """Adapted pictures, clipped to [0, 1]."""
        return self.with_numbers(images, self.curve, self.matrix)

    def with_numbers(self, images: Tensor, curve: Tensor, matrix: Tensor) -> Tensor:
        """The same with other numbers, differentiable in them."""
        inside = _content(images)
        stretched = _stretch(images, inside) if self.per_frame else images
        return torch.where(inside, _toned(stretched, curve, matrix), images)

    @property
    def description(self) -> dict[str, Any]:
        """What crosses the link: whole numbers in 1/512, JSON-able; see :meth:`of`."""
        return {
            "per_frame": self.per_frame,
            "curve": [round(v) for v in (self.curve * _UNIT).flatten().tolist()],
            "matrix": [round(v) for v in (self.matrix * _UNIT).flatten().tolist()],
        }

    @classmethod
    def of(cls, description: Any) -> InputAdapter:
        """The adapter of a :attr:`description`, which may come from anywhere: raises
        :class:`BadInput` for one that is not exactly such a thing."""
        good = isinstance(description, dict) and set(description) == {
            "per_frame",
            "curve",
            "matrix",
        }
        if not good or type(description["per_frame"]) is not bool:
            raise BadInput("input adapter: expected per_frame (true, false), curve and matrix")
        parts = []
        for name, shape in (("curve", (3, KNOTS)), ("matrix", (3, 3))):
            row = description[name]
            if not (
                isinstance(row, list)
                and len(row) == shape[0] * shape[1]
                and all(type(v) is int and abs(v) <= _LIMIT * _UNIT for v in row)
            ):
                raise BadInput(
                    f"input adapter: {name} must be {shape[0] * shape[1]} whole numbers "
                    f"between ±{_LIMIT * _UNIT}"
                )
            parts.append(torch.tensor(row, dtype=torch.float32).view(shape) / _UNIT)
        return cls(*parts, per_frame=description["per_frame"])


def start_adapter(curve: str = "identity", *, per_frame: bool = False) -> InputAdapter:
    """An adapter with one of :data:`STARTS` in every channel and no mixing of colours."""
    if curve not in _CURVES:
        raise BadInput(f"no adapter start {curve!r}; one of {', '.join(STARTS)}")
    knots = _CURVES[curve](torch.linspace(0, 1, KNOTS))
    return InputAdapter(knots.repeat(3, 1), torch.eye(3), per_frame=per_frame)


def _toned(images: Tensor, curve: Tensor, matrix: Tensor) -> Tensor:
    """Tone curves, then the colour matrix, clipped to [0, 1]; differentiable in both.

    The curve is a sum of ramps, one between each pair of knots: no look-up, so that it can be
    learned and exported."""
    rise = curve[:, 1:] - curve[:, :-1]  # (no aten::diff: ONNX has none)
    toned = curve[:, 0].view(1, 3, 1, 1).expand_as(images)
    for k in range(KNOTS - 1):
        ramp = (images * (KNOTS - 1) - k).clamp(0, 1)
        toned = toned + ramp * rise[:, k].view(1, 3, 1, 1)
    return torch.einsum("nchw,dc->ndhw", toned, matrix).clamp(0, 1)


def attach(model: nn.Module, adapter: InputAdapter | None) -> None:
    """Let ``adapter`` see every picture before ``model`` does, in place; None takes one away."""
    if hasattr(model, "input_adapter"):
        del model.input_adapter
    hooks = model._forward_pre_hooks
    for key in [k for k, hook in hooks.items() if hook is _before]:
        del hooks[key]
    if adapter is not None:
        model.input_adapter = adapter
        model.register_forward_pre_hook(_before)


def adapter_of(model: nn.Module) -> InputAdapter | None:
    """The input adapter of ``model``, if it has one."""
    adapter = getattr(model, "input_adapter", None)
    return adapter if isinstance(adapter, InputAdapter) else None


def kind_of(model: nn.Module) -> str:
    """``none``, ``fixed`` (curve and matrix), ``per-frame`` (stretch), or both joined by ``+``."""
    adapter = adapter_of(model)
    if adapter is None:
        return "none"
    plain = start_adapter()
    fixed = not (
        torch.equal(adapter.curve, plain.curve) and torch.equal(adapter.matrix, plain.matrix)
    )
    kinds = ["per-frame"] * adapter.per_frame + ["fixed"] * fixed
    return "+".join(kinds) or "none"


def _before(model: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    images, *rest = arguments
    if not isinstance(images, Tensor):
        return arguments
    return (model.input_adapter(images), *rest)  # type: ignore[operator]


def _rounded(numbers: Tensor) -> Tensor:
    return (numbers.detach().float() * _UNIT).round() / _UNIT


def _content(images: Tensor) -> Tensor:
    """(n, 1, h, w) bool: inside of the rows and columns that are not all border."""
    drawn = (images - _PAD).abs().amax(1) > _PAD_SLACK
    return (drawn.any(2)[:, :, None] & drawn.any(1)[:, None, :])[:, None]


def _stretch(images: Tensor, inside: Tensor) -> Tensor:
    grey = images.mean(1)[:, ::_STRIDE, ::_STRIDE].flatten(1)
    counted = inside[:, 0, ::_STRIDE, ::_STRIDE].flatten(1)
    ordered = torch.where(counted, grey, torch.full_like(grey, 2.0)).sort(1).values
    last = (counted.sum(1, keepdim=True) - 1).clamp(min=0)
    low, high = (
        ordered.gather(1, (share * last).round().long()).view(-1, 1, 1, 1)
        for share in (_LOW, _HIGH)
    )
    return ((images - low) / (high - low).clamp(min=_LEAST_RANGE)).clamp(0, 1)
