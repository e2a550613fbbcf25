"""Where networks compute: what a configuration says, what this machine has, and why it has no GPU.

The command that starts a sweep resolves ``auto`` once; only the workers, which compute, check that
the device is there. So a machine without a GPU can start and read what GPUs elsewhere compute.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from endedge.data.errors import BadInput
from endedge.lab.config import Config, load_config, parse_device

__all__ = [
    "Gpu",
    "check_device",
    "device_of",
    "gpus",
    "kind_of_device",
    "masks",
    "pick_device",
    "placed",
    "usable",
    "why_no_gpu",
]

_MASKS = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


@dataclass(frozen=True)
class Gpu:
    """A GPU that PyTorch sees: its ``name``, memory in bytes, and whether this build of PyTorch has
    code for it."""

    name: str
    memory_bytes: int
    architecture: str
    supported: bool


def pick_device(wanted: str) -> str:
    """The device of a command that computes here: ``auto`` is the GPU if there is one. Raises
    :class:`BadInput` for one that is not there, and says why."""
    device = parse_device(wanted)
    if device == "auto":
        return "cuda" if _usable_gpu() else "cpu"
    check_device(device)
    return device


def check_device(device: str) -> None:
    """Raises :class:`BadInput` where ``device`` cannot be computed on here, and says why."""
    if device.startswith("cuda"):
        if reason := why_no_gpu():
            raise BadInput(f"device {device}: {reason}; or use device=cpu")
        seen = torch.cuda.device_count()
        if device != "cuda" and int(device[5:]) >= seen:
            raise BadInput(f"device {device}: PyTorch sees {seen} here, cuda:0 to cuda:{seen - 1}")
    if device == "mps" and not torch.backends.mps.is_available():
        raise BadInput("device mps: PyTorch sees no GPU of a Mac here; use device=cpu")


def usable(device: str) -> str:
    """``device`` where it is there, else the processor: for what any of them may compute."""
    try:
        check_device(device)
    except BadInput:
        return "cpu"
    return device


def kind_of_device(device: str) -> str:
    """What results are named by: ``cuda`` for every NVIDIA GPU, whichever number it has."""
    return device.partition(":")[0]


def device_of(config: Config, folder: Path) -> str:
    """Where the results of ``folder`` are computed: as the configuration says; ``auto`` is what
    made those that are there already, and for a new folder the GPU if there is one here. That the
    device is there is not checked: who reads results needs none."""
    if config.device != "auto":
        return config.device
    return _made_on(folder) or ("cuda" if _usable_gpu() else "cpu")


def placed(config: Config, folder: Path) -> Config:
    """``config`` with its device resolved (see :func:`device_of`), to be written down and handed
    to workers."""
    return config.model_copy(update={"device": device_of(config, folder)})


def _made_on(folder: Path) -> str | None:
    """The kind of device that ``folder`` says, or on which its detectors were evaluated."""
    file = folder / "config.yaml"
    with suppress(BadInput):  # of a version with other keys: its results still tell
        if file.is_file() and (said := load_config(file).device) != "auto":
            return kind_of_device(said)
    for record in sorted((folder / "nodes").glob("start-*/record.json")):
        try:
            made = json.loads(record.read_text(encoding="utf-8"))["determinants"]["device"]
            return kind_of_device(parse_device(made))
        except (OSError, ValueError, KeyError, TypeError, BadInput):
            continue
    return None


def masks(device: str, per_gpu: int) -> list[str]:
    """Which GPU each worker may see, for all that fit, one after the other; empty on others than
    NVIDIA's. A worker that sees one GPU only cannot take memory of another, and calls it
    ``cuda``."""
    if not device.startswith("cuda"):
        return []
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = _visible(seen)
    mine = names if device == "cuda" else names[int(device[5:]) :][:1]
    return mine * per_gpu


def _visible(seen: int) -> list[str]:
    """Names of the GPUs that this process sees, as a mask has them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        return [str(i) for i in range(seen)]
    return [name.strip() for name in given.split(",")][:seen]


def _usable_gpu() -> bool:
    return why_no_gpu() == ""


def gpus() -> list[Gpu]:
    """All that PyTorch sees."""
    if not torch.cuda.is_available():
        return []
    built = torch.cuda.get_arch_list()
    found = []
    for k in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(k)
        major, minor = int(gpu.major), int(gpu.minor)
        able = torch.version.hip is not None or _has_code(built, major, minor)
        found.append(Gpu(gpu.name, int(gpu.total_memory), f"sm_{major}{minor}", able))
    return found


def _has_code(built: Iterable[str], major: int, minor: int) -> bool:
    """Machine code runs on GPUs of its own generation that are as new or newer; ``compute_`` is
    compiled for any that is newer."""
    for name in built:
        kind, _, digits = name.rstrip("af").partition("_")
        if not digits.isdigit():
            continue
        own = divmod(int(digits), 10)
        if own <= (major, minor) and (kind == "compute" or own[0] == major):
            return True
    return False


def why_no_gpu() -> str:
    """Why PyTorch cannot compute on a GPU here, and what helps; '' where it can."""
    if torch.version.cuda is None and torch.version.hip is None:
        return (
            f"this PyTorch ({torch.__version__}) was built for processors only; install one for "
            "CUDA (https://pytorch.org/get-started)"
        )
    if torch.cuda.is_available():
        without = [gpu for gpu in gpus() if not gpu.supported]
        if not without:
            return ""
        return (
            f"this PyTorch ({torch.__version__}) has no code for {without[0].name} "
            f"({without[0].architecture}; it has {', '.join(torch.cuda.get_arch_list())}); install "
            "a build that has"
        )
    said = _said_by_torch()
    if "no nvidia driver" in said:
        return "NVIDIA's driver is not installed here, or not running (nvidia-smi shows it)"
    if "too old" in said:
        return (
            f"NVIDIA's driver is too old for this PyTorch (CUDA {torch.version.cuda}): update the "
            "driver, or install a PyTorch for an older CUDA"
        )
    for name in _MASKS:
        if (mask := os.environ.get(name)) is not None:
            return f"{name} is {mask!r}, which leaves PyTorch no GPU; unset it, or name one that is"
    return f"PyTorch sees no GPU here ({said or 'nvidia-smi shows those that there are'})"


def _said_by_torch() -> str:
    """What PyTorch answers when it is asked for a GPU, in small letters."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return " ".join(str(error).lower().split())[:200]
    return ""
