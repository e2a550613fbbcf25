"""What the device holds, for an inference engine: PyTorch, TorchScript, ONNX, OpenVINO, NCNN.

The tracing and the files are Ultralytics' (what its own ``yolo predict model=…`` reads, metadata
included); here any detector that this package can hold goes in, pruned ones too, and nothing is
called exported before its outputs have been compared with ours.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import os
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from ultralytics import __version__ as _ultralytics_version
from ultralytics.nn.modules import Detect
from ultralytics.utils import LOGGER, YAML

from endedge.data.coco import Dataset
from endedge.data.errors import BadInput, Unfinished
from endedge.data.frames import Batch
from endedge.distill.adapter import adapter_of
from endedge.distill.model import DetectionModel, clone, load_detector
from endedge.end.inference import Network, detect_square
from endedge.end.metric import coco_map
from endedge.end.runtime import load_exported, needed, torch_network

__all__ = ["FORMATS", "Agreement", "agreement", "export", "suffix_of"]

T = TypeVar("T")
FORMATS = ("pt", "torchscript", "onnx", "openvino", "ncnn")
_SUFFIX = {
    "pt": ".pt",
    "torchscript": ".torchscript",
    "onnx": ".onnx",
    "openvino": "_openvino_model",
    "ncnn": "_ncnn_model",
}
_NO_ADAPTER = {
    "pt": "which no .pt of Ultralytics carries",
    "ncnn": "for whose masked border NCNN has no operators",
}
_SCORE_TOLERANCE, _BOX_TOLERANCE_PX = 2e-3, 0.5  # float32 in another order, through 20 layers


@dataclass(frozen=True)
class Agreement:
    """An engine against PyTorch on the same frames: the largest difference of a score and of a
    corner (px of the input) over all anchors that either scores above 0.01; mAP of both, where
    the frames have labels."""

    frames: int
    score: float
    box_px: float
    map: float | None = None
    map_torch: float | None = None

    def __str__(self) -> str:
        said = (
            f"on {self.frames} frames scores differ by at most {self.score:.1g}, boxes by "
            f"{self.box_px:.1g} px"
        )
        if self.map is not None and self.map_torch is not None:
            said += f"; mAP {100 * self.map:.2f} %, in PyTorch {100 * self.map_torch:.2f} %"
        return said


def suffix_of(kind: str) -> str:
    """How a file (or, of OpenVINO and NCNN, a folder) in this format is called at its end."""
    return _SUFFIX[kind]


def export(
    model: DetectionModel,
    kind: str,
    out: Path,
    side: int,
    check: Callable[[Network], T],
    *,
    calibrate: Tensor | None = None,
) -> T:
    """Write ``model`` for an inference engine, load it there, and keep it if it passes.

    Args:
        model: the detector.
        kind: one of :data:`FORMATS`.
        out: file or folder that appears, whole or not at all.
        side: px of the square input, a multiple of the detector's stride; batch 1.
        check: hears the network as the engine runs it; what it returns is returned, and what it
            raises (:func:`agreement` does) leaves no ``out``.
        calibrate: (n, 3, side, side) uint8 frames for whose ranges OpenVINO's 8-bit integers are
            chosen, by NNCF. None: float32.

    Raises :class:`BadInput` for an unknown format, an engine that is not installed, a size the
    detector cannot take, and an ``out`` that exists.
    """
    if kind not in FORMATS:
        raise BadInput(f"unknown format {kind!r}; there are {', '.join(FORMATS)}")
    stride = int(model.stride.max())
    if side < stride or side % stride:
        raise BadInput(f"input of {side} px; this detector takes multiples of {stride}")
    if kind in _NO_ADAPTER and adapter_of(model) is not None:
        raise BadInput(
            f"this detector has an input adapter, {_NO_ADAPTER[kind]}; export torchscript, onnx "
            "or openvino"
        )
    if calibrate is not None and kind != "openvino":
        raise BadInput(f"8-bit integers are made for openvino, not for {kind}")
    if out.exists():
        raise BadInput(f"{out} exists; remove it or give another name (-o)")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export.") as scratch:
        fresh = Path(scratch) / f"model{_SUFFIX[kind]}"
        with _quiet():
            try:
                _write(model, kind, fresh, side, calibrate)
            except (BadInput, OSError):
                raise
            except Exception as error:  # every converter has its own kinds
                text = str(error).splitlines() or [""]
                raise BadInput(
                    f"{kind} cannot be made of this detector: {type(error).__name__}: {text[0]}"
                ) from None
            network = _loaded(fresh, kind)
        checked = check(network)
        os.replace(fresh, out)
    return checked


def _loaded(path: Path, kind: str) -> Network:
    return torch_network(load_detector(path)) if kind == "pt" else load_exported(path, kind)


def agreement(
    model: DetectionModel,
    network: Network,
    frames: Batch,
    truth: Dataset | None = None,
    *,
    exact: bool = True,
) -> Agreement:
    """Compare ``network`` with ``model`` in PyTorch on ``frames``; with ``truth`` (the labels of
    these frames), their mAP too. ``exact``: raises :class:`Unfinished` where they differ by more
    than the order of float32 additions explains."""
    ours = torch_network(model)
    score = box = 0.0
    with torch.inference_mode():
        for image in frames.images[:16]:
            a, b = (run(image[None].float() / 255) for run in (ours, network))
            if a.shape != b.shape:
                raise Unfinished(
                    f"the exported model answers {tuple(b.shape)}, ours {tuple(a.shape)}"
                )
            ds, db = _difference(a, b)
            score, box = max(score, ds), max(box, db)
    agreed = Agreement(min(16, len(frames)), score, box)
    if exact and not (score <= _SCORE_TOLERANCE and box <= _BOX_TOLERANCE_PX):
        raise Unfinished(f"the exported model is not ours: {agreed}")
    if truth is None:
        return agreed
    theirs, mine = (coco_map(truth, detect_square(run, frames)).map for run in (network, ours))
    return Agreement(agreed.frames, score, box, theirs, mine)


def _difference(a: Tensor, b: Tensor) -> tuple[float, float]:
    """The largest difference between what two networks say of one picture. Heads that suppress
    doubles themselves order their answers by score: equal scores may change places, so those are
    compared sorted."""
    if a.shape[-1] == 6:
        a, b = (
            rows[0][rows[0, :, 4].argsort(descending=True, stable=True)].T[None] for rows in (a, b)
        )
        a, b = (torch.cat([r[:, :4], r[:, 4:5]], 1) for r in (a, b))
    if not torch.isfinite(b).all():
        return math.inf, math.inf
    confident = (torch.maximum(a[0, 4:].amax(0), b[0, 4:].amax(0))) > 0.01
    score = float((a[0, 4:] - b[0, 4:]).abs().max())
    box = float((a[0, :4] - b[0, :4])[:, confident].abs().max()) if bool(confident.any()) else 0.0
    return score, box


class _Exported(nn.Module):
    """The network as engines hold it: one tensor in, one out. A fixed input adapter of the
    detector is part of its modules, so it is traced with it."""

    def __init__(self, model: DetectionModel, kind: str) -> None:
        super().__init__()
        self.model = clone(model).eval().fuse(verbose=False).requires_grad_(False)
        for module in self.model.modules():
            if isinstance(module, Detect):
                module.export, module.format, module.dynamic = True, kind, False

    def forward(self, images: Tensor) -> Tensor:
        out = self.model(images)
        first: Tensor = out[0] if isinstance(out, tuple | list) else out
        return first


def _write(
    model: DetectionModel, kind: str, out: Path, side: int, calibrate: Tensor | None
) -> None:
    if kind == "pt":
        _put(out, lambda file: torch.save(_checkpoint(model, side), file))
        return
    whole = _Exported(model, kind)
    image = torch.zeros(1, 3, side, side)
    with torch.no_grad():
        whole(image)  # anchors are made at the first call
    about = _metadata(model, side)
    if kind == "torchscript":
        extra = {"config.txt": json.dumps(about)}  # where Ultralytics looks for it
        traced = _traced(whole, image)
        _put(out, lambda file: torch.jit.save(traced, file, _extra_files=extra))
    elif kind == "onnx":
        _write_onnx(whole, image, out, about)
    elif kind == "openvino":
        runtime = needed("openvino", "openvino")
        from ultralytics.utils.export.openvino import torch2openvino

        integers = {} if calibrate is None else _integers(calibrate)
        made = torch2openvino(whole, image, **integers)
        out.mkdir()
        runtime.save_model(made, str(out / "model.xml"), compress_to_fp16=False)
        YAML.save(out / "metadata.yaml", about)
    else:
        _write_ncnn(whole, image, out, about)


def _traced(whole: nn.Module, image: Tensor) -> Any:
    return torch.jit.trace(whole, image, strict=False, check_trace=False)  # type: ignore[no-untyped-call]


def _put(out: Path, write: Callable[[io.BytesIO], Any]) -> None:
    """What ``write`` writes, as the file ``out``: PyTorch's own writer ends the whole process
    where the disk is full."""
    memory = io.BytesIO()
    write(memory)
    out.write_bytes(memory.getbuffer())


def _write_onnx(whole: nn.Module, image: Tensor, out: Path, about: dict[str, Any]) -> None:
    onnx = needed("onnx", "onnx")
    from ultralytics.utils.export.engine import best_onnx_opset, torch2onnx

    torch2onnx(whole, image, out, opset=best_onnx_opset(onnx))
    made = onnx.load(str(out))
    for key, value in about.items():
        entry = made.metadata_props.add()
        entry.key, entry.value = key, str(value)
    onnx.save(made, str(out))


def _write_ncnn(whole: nn.Module, image: Tensor, out: Path, about: dict[str, Any]) -> None:
    needed("ncnn", "ncnn")
    pnnx = needed("pnnx", "ncnn")
    out.mkdir()
    traced = _traced(whole, image)
    _put(out / "model.pt", lambda file: torch.jit.save(traced, file))
    shape = "[" + ",".join(map(str, image.shape)) + "]f32"
    names = {"ncnnparam": "model.ncnn.param", "ncnnbin": "model.ncnn.bin", "ncnnpy": "n.py"}
    others = {"pnnxparam": "a.param", "pnnxbin": "a.bin", "pnnxpy": "a.py", "pnnxonnx": "a.onnx"}
    done = subprocess.run(
        [pnnx.EXEC_PATH, "model.pt", f"inputshape={shape}", "fp16=0"]
        + [f"{key}={name}" for key, name in {**names, **others}.items()],
        cwd=out,
        capture_output=True,
        check=False,
    )
    if done.returncode or not (out / "model.ncnn.bin").is_file():
        raise BadInput(f"PNNX cannot convert this detector (its exit status: {done.returncode})")
    for path in out.iterdir():
        if path.name not in ("model.ncnn.param", "model.ncnn.bin"):
            path.unlink()
    YAML.save(out / "metadata.yaml", about)


def _integers(frames: Tensor) -> dict[str, Any]:
    """8-bit weights and activations after training; the head, whose boxes are px and whose scores
    are shares, stays in floats."""
    nncf = needed("nncf", "int8")
    nncf.set_log_level(logging.ERROR)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # no CUDA: we know
    calibration = nncf.Dataset([image[None].float().numpy() / 255 for image in frames])
    return {"quantize": 8, "calibration_dataset": calibration, "int8_detect": True}


def _metadata(model: DetectionModel, side: int) -> dict[str, Any]:
    """What Ultralytics looks for in an exported file."""
    return {
        "description": "a detector of endedge",
        "author": "Ultralytics",
        "version": _ultralytics_version,
        "license": "AGPL-3.0 License (https://ultralytics.com/license)",
        "stride": int(model.stride.max()),
        "task": "detect",
        "batch": 1,
        "imgsz": [side, side],
        "names": {int(k): str(v) for k, v in model.names.items()},
        "args": {},
        "channels": 3,
        "end2end": bool(getattr(model, "end2end", False)),
    }


def _checkpoint(model: DetectionModel, side: int) -> dict[str, Any]:
    """What ``YOLO(file)`` opens."""
    twin = clone(model).eval()
    arguments = {"task": "detect", "imgsz": side, "model": "endedge"}
    twin.args, twin.task = arguments, "detect"
    for parameter in twin.parameters():
        parameter.requires_grad = False
    return {
        "epoch": -1,
        "best_fitness": None,
        "model": twin,
        "ema": None,
        "updates": None,
        "optimizer": None,
        "train_args": arguments,
        "date": None,
        "version": _ultralytics_version,
        "license": "AGPL-3.0 License (https://ultralytics.com/license)",
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Converters talk; what they say that matters is an exception."""
    level = LOGGER.level
    LOGGER.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        LOGGER.setLevel(level)
