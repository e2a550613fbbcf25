"""The arithmetic of networks: fp32, or one that a processor is made for.

Weights, losses, gradients of weights and optimisers are fp32 in all of them. ``bf16``: the layers
of a network run in bfloat16 where PyTorch holds that safe (autocast). ``tf32``: products of
matrices on a GPU keep 10 bits of the fraction. Which one is fast depends on the processor alone:
without units for it, bf16 takes ten times as long as fp32.

    with computing("bf16"):
        student = train(start, frames, objective, recipe)

Detections, and so every mAP, are computed in fp32 whatever is set.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from endedge.data.errors import BadInput

__all__ = ["PRECISIONS", "autocast", "check_precision", "computing"]

PRECISIONS = ("fp32", "tf32", "bf16")

_current = ContextVar("precision", default="fp32")


def check_precision(precision: str, device: str) -> None:
    """Raises :class:`BadInput` for a precision that there is not, or not on ``device``."""
    if precision not in PRECISIONS:
        raise BadInput(f"precision {precision!r}; there are {', '.join(PRECISIONS)}")
    if precision == "tf32" and torch.device(device).type != "cuda":
        raise BadInput(
            f"precision tf32 is one of NVIDIA's GPUs, the device is {device}; "
            "use precision=fp32, bf16 or auto"
        )


@contextmanager
def computing(precision: str, device: str = "cpu") -> Iterator[None]:
    """Inside, networks that are trained, imitated or judged on ``device`` compute so.
    Raises :class:`BadInput` as :func:`check_precision` does."""
    check_precision(precision, device)
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    mark = _current.set(precision)
    if torch.device(device).type == "cuda":  # PyTorch's own default takes tf32 in convolutions
        _allow_tf32(precision == "tf32", precision == "tf32")
    try:
        yield
    finally:
        _current.reset(mark)
        if torch.device(device).type == "cuda":
            _allow_tf32(*before)


def autocast(device: str) -> torch.autocast:
    """Around one forward pass: in bf16 if that is the precision. The predictions are then bf16."""
    return torch.autocast(
        torch.device(device).type, torch.bfloat16, enabled=_current.get() == "bf16"
    )


def _allow_tf32(products: bool, convolutions: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = products
    torch.backends.cudnn.allow_tf32 = convolutions
