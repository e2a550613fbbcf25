"""Ways to put a detector into bytes: our packages and their peers, each decoded again."""

from __future__ import annotations

import copy
import gzip
import io
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from endedge.distill.layers import layers
from endedge.distill.losses import divergence
from endedge.distill.model import DetectionModel, clone
from endedge.distill.package.format import unpack
from endedge.distill.package.packing import pack
from endedge.distill.package.qat import AWARE_LR
from endedge.distill.training import Recipe


def ours(model: DetectionModel, budget: int, frames: Tensor, seed: int, steps: int = 0) -> Any:
    """A full package, and how far its predictions are from the model's, in nats a frame; its
    integers trained for ``steps``."""
    start = time.process_time()
    aware = Recipe(steps=steps, lr=AWARE_LR, seed=seed) if steps else None
    packed = pack(model, budget, frames=frames, seed=seed, aware=aware)
    middle = time.process_time()
    decoded = unpack(packed.data)
    about = {"encode_s": middle - start, "decode_s": time.process_time() - middle}
    about |= {"nats": divergence(model, decoded, frames[:32]), "seed": seed, "budget": budget}
    return len(packed.data), decoded, about | {"mean_bits": packed.report.mean_bits}


def _rest(model: DetectionModel) -> bytes:
    """Everything but convolution weights, as fp16."""
    convs = {f"{x.name}.weight" for x in layers(model)}
    rest = [v.half().numpy().tobytes() for k, v in model.state_dict().items() if k not in convs]
    return b"".join(rest)


def fp16_zip(model: DetectionModel) -> Any:
    """All tensors as fp16, deflated."""
    twin = clone(model).half().float()
    blob = b"".join(v.half().numpy().tobytes() for v in model.state_dict().values())
    return len(zlib.compress(blob, 9)), twin, {}


def rounded(model: DetectionModel, bits: int) -> Any:
    """Round to nearest, one step a row from its largest magnitude; zstd; the rest fp16."""
    import zstandard

    twin = clone(model)
    codes = [_rest(model)]
    for layer in layers(twin):
        weight = layer.conv.weight.data.flatten(1)
        step = weight.abs().amax(1, keepdim=True).clamp(min=1e-12).half().float()
        step = step / (2 ** (bits - 1) - 1)
        q = (weight / step).round()
        layer.conv.weight.data = (q * step).view_as(layer.conv.weight)
        codes += [q.to(torch.int8).numpy().tobytes(), step.half().numpy().tobytes()]
    return len(zstandard.compress(b"".join(codes), 19)), twin, {}


def masked(model: DetectionModel, share: float) -> Any:
    """Keep the largest ``share`` of all weights as fp16 behind a bit mask, gzipped."""
    twin = clone(model)
    every = torch.cat([x.conv.weight.data.abs().flatten() for x in layers(twin)])
    threshold = every.kthvalue(max(1, round((1 - share) * every.numel()))).values
    masks, values = [], []
    for layer in layers(twin):
        weight = layer.conv.weight.data
        mask = weight.abs() > threshold
        layer.conv.weight.data = torch.where(mask, weight.half().float(), 0.0)
        masks.append(mask.flatten().numpy())
        values.append(weight[mask].half().numpy())
    blob = np.packbits(np.concatenate(masks)).tobytes() + np.concatenate(values).tobytes()
    return len(gzip.compress(blob + _rest(model), 9)), twin, {}


def nncodec(model: DetectionModel, qp: int) -> Any:
    """NNCodec with dependent quantization; it codes everything, batch norms too."""
    from nncodec.nn import decode, encode

    twin = clone(model)
    state = {k: v.numpy() for k, v in twin.state_dict().items() if v.is_floating_point()}
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        stream = encode(state, args={"qp": qp, "use_dq": True, "results": folder, "verbose": False})
        middle = time.process_time()
        back = decode(stream)
    about = {"encode_s": middle - start, "decode_s": time.process_time() - middle, "qp": qp}
    found = {
        k: torch.as_tensor(np.asarray(v)).view_as(twin.state_dict()[k]) for k, v in back.items()
    }
    twin.load_state_dict({**twin.state_dict(), **found})
    return len(stream), twin, about


class Runtime(nn.Module):
    """A network that another runtime executes, in the place of a detector."""

    def __init__(self, run: Callable[[Any], Any], stride: Tensor) -> None:
        super().__init__()
        self.run, self.stride = run, stride

    def __deepcopy__(self, memo: Any) -> Runtime:
        return self

    def fuse(self, verbose: bool = False) -> Runtime:
        return self

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (torch.from_numpy(np.ascontiguousarray(self.run(images.numpy()))),)


def _onnx(model: DetectionModel, file: Path) -> None:
    twin = copy.deepcopy(model).fuse(verbose=False).eval()
    twin.model[-1].export, twin.model[-1].dynamic, twin.model[-1].format = True, True, "onnx"
    axes = {"images": {0: "batch", 2: "height", 3: "width"}, "output0": {0: "batch", 2: "anchors"}}
    torch.onnx.export(
        twin,
        (torch.zeros(1, 3, 320, 320),),
        str(file),
        dynamo=False,
        opset_version=17,
        input_names=["images"],
        output_names=["output0"],
        dynamic_axes=axes,
    )


def _zipped(*files: Path) -> int:
    blob = io.BytesIO()
    with zipfile.ZipFile(blob, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file in files:
            archive.write(file, file.name)
    return len(blob.getvalue())


def onnxruntime_int8(model: DetectionModel, frames: Tensor) -> Any:
    """Static QDQ int8, weights per channel, activations calibrated; the file zipped. The head's
    last concatenations stay in float: in int8, boxes and scores would share one scale."""
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(frames[:64])

        def get_next(self) -> Any:
            image = next(self.left, None)
            return None if image is None else {"images": image[None].float().numpy() / 255}

    with tempfile.TemporaryDirectory() as name:
        whole, clean, small = (Path(name) / f"{x}.onnx" for x in ("whole", "clean", "int8"))
        _onnx(model, whole)
        quant_pre_process(str(whole), str(clean), skip_symbolic_shape=True)
        session = onnxruntime.InferenceSession(str(clean), providers=["CPUExecutionProvider"])
        del session  # it loads: a bad export shows here
        quantize_static(
            str(clean),
            str(small),
            Reader(),
            per_channel=True,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv"],
        )
        size = _zipped(small)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(small.read_bytes(), options)
    return size, Runtime(lambda x: session.run(None, {"images": x})[0], model.stride), {}


def openvino_int8(model: DetectionModel, frames: Tensor) -> Any:
    """NNCF's post-training int8; weights and description zipped."""
    import nncf
    import openvino

    with tempfile.TemporaryDirectory() as name:
        whole, small = Path(name) / "whole.onnx", Path(name) / "int8.xml"
        _onnx(model, whole)
        pictures = [image[None].float().numpy() / 255 for image in frames[:64]]
        quantized = nncf.quantize(
            openvino.Core().read_model(whole),
            nncf.Dataset(pictures),
            ignored_scope=nncf.IgnoredScope(
                patterns=[r".*/model\.22/(dfl|Sub|Add|Mul|Div).*"], validate=False
            ),
        )
        openvino.save_model(quantized, small, compress_to_fp16=True)
        size = _zipped(small, small.with_suffix(".bin"))
        compiled = openvino.compile_model(quantized, "CPU")
    return size, Runtime(lambda x: compiled(x)[0], model.stride), {}
