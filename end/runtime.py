"""The inference engines of devices, as networks that :mod:`endedge.end.inference` can call.

Each takes one picture at a time of the size it was exported for, on a given number of threads.
Engines other than PyTorch are extras: ``endedge[onnx]``, ``endedge[openvino]``, ``endedge[ncnn]``.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from endedge.data.errors import BadInput
from endedge.distill.model import DetectionModel, clone
from endedge.end.inference import Network

__all__ = ["load_exported", "needed", "torch_network", "torch_threads"]


def needed(module: str, extra: str) -> Any:
    """An optional module. Raises :class:`BadInput` that says how to install it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of their own dependencies, at import
            return importlib.import_module(module)
    except ImportError as error:
        raise BadInput(
            f"{module} is not installed ({error}); pip install 'endedge[{extra}]'"
        ) from None


@contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """PyTorch computes with ``n`` threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def torch_network(model: DetectionModel) -> Network:
    """``model`` in PyTorch on the CPU, batch norms folded: what :func:`detect` runs."""
    fused = clone(model).eval().fuse(verbose=False)
    return lambda images: fused(images)[0]


def load_exported(path: Path, kind: str, threads: int = 1) -> Network:
    """The network in a file or folder that :func:`endedge.end.export.export` wrote.

    Raises :class:`BadInput` for an engine that is not installed and a file it cannot read.
    """
    try:
        return _LOADERS[kind](path, threads)
    except BadInput:
        raise
    except Exception as error:  # every engine has its own kinds
        text = str(error).splitlines() or [type(error).__name__]
        raise BadInput(f"{path} does not load as {kind}: {text[0]}") from None


def _torchscript(path: Path, threads: int) -> Network:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still what devices run
        module = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    return lambda images: module(images)


def _onnx(path: Path, threads: int) -> Network:
    runtime = needed("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: torch.from_numpy(session.run(None, {name: images.numpy()})[0])


def _openvino(path: Path, threads: int) -> Network:
    runtime = needed("openvino", "openvino")
    file = path / "model.xml" if path.is_dir() else path
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    hints["INFERENCE_PRECISION_HINT"] = "f32"  # some processors would take bfloat16 by themselves
    compiled = runtime.Core().compile_model(str(file), "CPU", hints)
    request = compiled.create_infer_request()

    def run(images: Tensor) -> Tensor:
        request.infer([images.numpy()])
        return torch.from_numpy(np.array(request.get_output_tensor(0).data))

    return run


def _ncnn(path: Path, threads: int) -> Network:
    runtime = needed("ncnn", "ncnn")
    net = runtime.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    # Half the precision is NCNN's habit on CPUs that have it; asked for, it would be said.
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    if net.load_param(str(path / "model.ncnn.param")) or net.load_model(
        str(path / "model.ncnn.bin")
    ):
        raise BadInput(f"{path} holds no NCNN model (model.ncnn.param and .bin)")

    def run(images: Tensor) -> Tensor:
        with net.create_extractor() as extractor:
            extractor.input(net.input_names()[0], runtime.Mat(images[0].numpy()).clone())
            _, out = extractor.extract(net.output_names()[0])
            return torch.from_numpy(np.array(out))[None]

    return run


_LOADERS: dict[str, Callable[[Path, int], Network]] = {
    "torchscript": _torchscript,
    "onnx": _onnx,
    "openvino": _openvino,
    "ncnn": _ncnn,
}
