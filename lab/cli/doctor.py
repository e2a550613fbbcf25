"""``endedge doctor``: what is installed, what the machine offers, and does a whole round work."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endedge.configs import SHIPPED
from endedge.lab.report.tables import version

__all__ = ["Check", "checks", "self_test"]

_EXTRAS = {
    "cryptography": "serve",
    "pandas": "notebook",
    "shtab": "completion",
    "tensorboard": "tensorboard",
    "mlflow": "mlflow",
}
_LEAST_FREE_BYTES = 5e9  # a sweep over 1,390 frames leaves about this much


@dataclass(frozen=True)
class Check:
    """One line of the report. ``state``: ``ok``, ``note`` (works, but worth knowing) or
    ``bad`` (a round cannot run)."""

    name: str
    state: str
    says: str


def checks(folder: Path, *, test: bool = True) -> list[Check]:
    """All checks, the cheap ones first; ``folder`` is where results would be written."""
    found = [_python(), *_packages(), _gpu(), _threads(), _offline(), _disk(folder)]
    return found + ([_tested()] if test else [])


def _python() -> Check:
    return Check("python", "ok", f"{platform.python_version()} on {platform.platform()}")


def _packages() -> list[Check]:
    needed = ("endedge", "torch", "torchvision", "ultralytics", "pycocotools", "numpy", "scipy")
    versions = {package: version(package) for package in needed}
    missing = [package for package, seen in versions.items() if seen == "none"]
    says = ", ".join(f"{package} {seen}" for package, seen in versions.items())
    extras = {package: version(package) for package in _EXTRAS}
    shown = [
        f"{package} {seen}"
        if seen != "none"
        else f"no {package} (pip install 'endedge[{_EXTRAS[package]}]')"
        for package, seen in extras.items()
    ]
    return [
        Check("packages", "bad" if missing else "ok", says),
        Check("extras", "ok", ", ".join(shown)),
    ]


def _gpu() -> Check:
    import torch

    from endedge.lab.devices import gpus, why_no_gpu

    if torch.backends.mps.is_available():
        return Check("gpu", "note", "a Mac's, which is used where it is asked for (device=mps)")
    if reason := why_no_gpu():
        return Check("gpu", "note", f"{reason}. Everything runs on the CPU (device=cpu)")
    names = ", ".join(f"{gpu.name} {gpu.memory_bytes / 2**30:.0f} GiB" for gpu in gpus())
    return Check("gpu", "ok", f"{names}, CUDA {torch.version.cuda or torch.version.hip}")


def _threads() -> Check:
    has = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has else os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    says = f"{cores} cores for this process, one worker each; load {load:.1f}"
    if load > 1.5 * cores:
        return Check("threads", "note", f"{says}: others keep the machine busy, times will be long")
    return Check("threads", "ok", says)


def _offline() -> Check:
    import endedge.distill.model  # noqa: F401  (it is what keeps Ultralytics offline)

    from ultralytics.utils import SETTINGS  # isort: skip

    if os.environ.get("YOLO_OFFLINE") != "1":
        return Check("offline", "note", "YOLO_OFFLINE is not 1: Ultralytics may use the network")
    where = os.environ.get("YOLO_CONFIG_DIR", "")
    sync = " (its settings allow sync)" if SETTINGS.get("sync") else ""
    return Check("offline", "ok", f"Ultralytics stays off the network{sync}; its files: {where}")


def _disk(folder: Path) -> Check:
    place = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.is_dir())
    free = shutil.disk_usage(place).free
    says = f"{free / 1e9:,.1f} GB free in {place}"
    if not os.access(place, os.W_OK):
        return Check("disk", "bad", f"{place} cannot be written to")
    return Check("disk", "ok" if free > _LEAST_FREE_BYTES else "note", says)


def _tested() -> Check:
    began = time.perf_counter()
    try:
        seconds = self_test()
    except Exception as error:  # whatever breaks here is the answer
        return Check("self-test", "bad", f"{type(error).__name__}: {' '.join(str(error).split())}")
    parts = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
    return Check("self-test", "ok", f"one round in {time.perf_counter() - began:.1f} s ({parts})")


def self_test() -> dict[str, float]:
    """A miniature end-to-end round: frames, four training steps of the shipped student, packing to
    60 kB, decoding, mAP of what was decoded. Returns seconds by step; raises what breaks."""
    from endedge.data.frames import stack_frames
    from endedge.data.generated import generate
    from endedge.distill.losses import labels
    from endedge.distill.model import load_detector
    from endedge.distill.package.format import unpack
    from endedge.distill.package.packing import pack
    from endedge.distill.training import Recipe, train
    from endedge.end.metric import evaluate
    from endedge.lab.devices import pick_device
    from endedge.lab.sweep.workers import one_thread

    seconds: dict[str, float] = {}

    def timed(name: str, step: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        made = step()
        seconds[name] = time.perf_counter() - began
        return made

    device = pick_device("auto")
    with tempfile.TemporaryDirectory() as folder, one_thread():
        truth = timed(
            "frames",
            lambda: generate(Path(folder), domain="field", split="doctor", n=8, seed=0, size=128),
        )
        frames = stack_frames(truth.frames, 128, lambda f: f.read())
        start = load_detector(SHIPPED / "demo/student.safetensors")
        recipe = Recipe(steps=4, batch=4, lr=1e-3)
        model = timed("train", lambda: train(start, frames, labels, recipe, device=device))
        packed = timed("pack", lambda: pack(model, 60_000, frames=frames.images[:4]))
        decoded = timed("unpack", lambda: unpack(packed.data))
        score = timed("mAP", lambda: evaluate(decoded, frames, truth, device))
    if not (len(packed.data) <= 60_000 and 0 <= score.map <= 1 and score.images == 8):
        raise AssertionError(f"{len(packed.data)} bytes, mAP {score.map} of {score.images} frames")
    return seconds
