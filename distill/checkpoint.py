"""Ultralytics' ``.pt`` checkpoints, read without running anything that they name.

A checkpoint is a ZIP file of tensors and a pickle, and a pickle is a program: it looks names up
and calls them. This reader has a list of names that may be *looked up*; each stands for an
inert record, so no class of PyTorch or Ultralytics is ever made by a file. A much shorter
list may be *called*, and those calls are answered here: ordered dictionaries, sets, sizes,
tensors. What comes out is a description and tensors, and
:func:`endedge.distill.model.build_detector` decides about the description.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch

from endedge.data.errors import BadInput

__all__ = ["read_checkpoint"]

_MAX_PICKLE_BYTES = 16 * 2**20
_MAX_PARTS, _MAX_DEPTH = 20_000, 32  # modules of a network, and how deep they are nested
_MODEL = "ultralytics.nn.tasks.DetectionModel"

_OTHER_TASKS = {
    "RTDETRDetectionModel": "an RT-DETR",
    "SegmentationModel": "a segmentation",
    "SemanticSegmentationModel": "a segmentation",
    "PoseModel": "a pose",
    "OBBModel": "an oriented-box",
    "ClassificationModel": "a classification",
    "WorldModel": "a YOLO-World",
    "YOLOEModel": "a YOLOE",
    "YOLOESegModel": "a YOLOE",
    "DepthModel": "a depth",
}

# The parts of Ultralytics' detectors. Older releases kept all of them in ultralytics.nn.modules.
_ULTRALYTICS_LAYERS = {
    "block": "A2C2f AAttn ABlock AConv ADown Attention Bottleneck BottleneckCSP C1 C2 C2PSA C2f "
    "C2fCIB C2fPSA C3 C3Ghost C3k C3k2 C3x CIB DFL ELAN1 GhostBottleneck PSA PSABlock "
    "RepBottleneck RepC3 RepCSP RepNCSPELAN4 RepVGGDW SCDown SPP SPPELAN SPPF",
    "conv": "Concat Conv Conv2 ConvTranspose DWConv DWConvTranspose2d Focus GhostConv LightConv "
    "RepConv",
    "head": "Detect v10Detect",
}
_TORCH_LAYERS = {
    "activation": "GELU Hardswish LeakyReLU ReLU ReLU6 SiLU Sigmoid",
    "batchnorm": "BatchNorm2d",
    "container": "ModuleList Sequential",
    "conv": "Conv2d ConvTranspose2d",
    "linear": "Identity",
    "pooling": "AdaptiveAvgPool2d AvgPool2d MaxPool2d",
    "upsampling": "Upsample",
}
_STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
}
_LOSSES = {  # a model that is being trained holds its criterion
    "loss": "BboxLoss DFLoss E2ELoss v8DetectionLoss",
    "tal": "TaskAlignedAssigner",
}

_LOOKED_UP = frozenset(
    [
        _MODEL,
        "torch.device",
        "numpy.dtype",
        *(f"torch.{name}" for name in _STORAGES),
        *(f"torch.{name}" for name in ("float16", "float32", "bfloat16")),
        *(f"torch.nn.modules.{m}.{n}" for m, names in _TORCH_LAYERS.items() for n in names.split()),
        "torch.nn.modules.loss.BCEWithLogitsLoss",
        *(f"ultralytics.utils.{m}.{n}" for m, names in _LOSSES.items() for n in names.split()),
        *(
            f"ultralytics.nn.modules{module}.{name}"
            for file, names in _ULTRALYTICS_LAYERS.items()
            for module in ("", f".{file}")
            for name in names.split()
        ),
        "ultralytics.utils.IterableSimpleNamespace",
        "ultralytics.yolo.utils.IterableSimpleNamespace",
    ]
)


@dataclass(frozen=True)
class _Name:
    """What a pickle looked up: its name and nothing else."""

    text: str


@dataclass(eq=False)
class _Record:
    """An object as a file tells it: the name of its class and its attributes."""

    kind: str
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Storage:
    dtype: torch.dtype
    key: str
    numel: int


@dataclass(frozen=True)
class _View:
    """A tensor: where its numbers lie in a storage."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class _Call:
    """One of the few things that a pickle may call, with its answer."""

    text: str
    answer: Callable[..., Any]


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**40


def _view(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _View:
    wholes = [offset, *size, *stride] if isinstance(size, tuple) else [None]
    if not isinstance(storage, _Storage) or len(size) != len(stride) or len(size) > 8:
        raise BadInput("a tensor is not described as PyTorch does")
    if not all(_whole(x) for x in wholes):
        raise BadInput("a tensor has a size that is no number")
    return _View(storage, offset, size, stride)


def _nothing(*_: Any) -> _Record:
    return _Record("value")


def _elements(values: Any = ()) -> set[Any]:
    if not isinstance(values, list | tuple) or not all(isinstance(v, str | int) for v in values):
        raise BadInput("a set of other things than words and numbers")
    return set(values)


def _sizes(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple):
        raise BadInput("a size that is no tuple")
    return values


_CALLED: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": lambda: OrderedDict(),
    "builtins.set": _elements,
    "__builtin__.set": _elements,
    "torch.Size": _sizes,
    "torch._utils._rebuild_tensor_v2": _view,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "numpy.core.multiarray.scalar": _nothing,  # figures that a trainer noted: of no use here
    "numpy._core.multiarray.scalar": _nothing,
    "_codecs.encode": _nothing,
    "torch.device": _nothing,
    "numpy.dtype": _nothing,
    "ultralytics.utils.IterableSimpleNamespace": lambda: _Record("arguments"),
    "ultralytics.yolo.utils.IterableSimpleNamespace": lambda: _Record("arguments"),
}

# Opcodes of the protocol in which PyTorch writes, but for those that no checkpoint needs.
_OPCODES = (
    *(pickle.PROTO, pickle.STOP, pickle.MARK, pickle.GLOBAL, pickle.REDUCE, pickle.BUILD),
    *(pickle.NEWOBJ, pickle.BINPERSID, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE),
    *(pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT),
    *(pickle.BINUNICODE, pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_TUPLE),
    *(pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.EMPTY_DICT),
    *(pickle.SETITEM, pickle.SETITEMS, pickle.BINGET, pickle.LONG_BINGET, pickle.BINPUT),
    pickle.LONG_BINPUT,
)


class _Reader(pickle._Unpickler):
    """Python's own unpickler with a short list of instructions, and every one that looks up,
    calls or fills an object replaced."""

    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        code[0]: pickle._Unpickler.dispatch[code[0]] for code in _OPCODES
    }
    stack: list[Any]

    def find_class(self, module: str, name: str) -> Any:
        text = f"{module}.{name}"
        if module == "ultralytics.nn.tasks" and name in _OTHER_TASKS:
            raise BadInput(
                f"it holds {_OTHER_TASKS[name]} model; endedge takes detectors (task 'detect')"
            )
        if text in _CALLED:
            return _Call(text, _CALLED[text])
        if text in _LOOKED_UP:
            return _Name(text)
        shown = text[:100] if text.isprintable() else "a name that cannot be printed"
        raise BadInput(f"it names {shown}, which is not a network layer")

    def persistent_load(self, pid: Any) -> _Storage:
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage"):
            raise BadInput("a tensor is not described as PyTorch does")
        _, kind, key, _, numel = pid
        name = kind.text.removeprefix("torch.") if isinstance(kind, _Name) else ""
        if name not in _STORAGES or not isinstance(key, str) or not _whole(numel):
            raise BadInput("a tensor is not described as PyTorch does")
        return _Storage(_STORAGES[name], key, numel)

    def load_reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack[-1]
        if not isinstance(function, _Call) or not isinstance(arguments, tuple):
            called = function.text if isinstance(function, _Name) else type(function).__name__
            raise BadInput(
                f"it calls {called}, which is not a network layer to be read but to be run"
            )
        self.stack[-1] = function.answer(*arguments)

    dispatch[pickle.REDUCE[0]] = load_reduce

    def load_newobj(self) -> None:
        arguments, kind = self.stack.pop(), self.stack[-1]
        text = kind.text if isinstance(kind, _Name | _Call) else ""
        if arguments != () or text not in _LOOKED_UP:
            raise BadInput("it makes an object that is not a network layer")
        self.stack[-1] = _Record(text)

    dispatch[pickle.NEWOBJ[0]] = load_newobj

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, _Record) and isinstance(state, dict):
            target.attributes = state
        elif not isinstance(target, _Record | OrderedDict):
            raise BadInput("it fills an object that is not a network layer")

    dispatch[pickle.BUILD[0]] = load_build

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    dispatch[pickle.SETITEM[0]] = load_setitem

    def load_setitems(self) -> None:
        self._set(self.pop_mark())  # type: ignore[attr-defined]

    dispatch[pickle.SETITEMS[0]] = load_setitems

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise BadInput("it fills something that is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int, bool):  # hashing a nested one may take for ever
                raise BadInput("a key that is neither a word nor a number")
            target[key] = value


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The attributes ``yaml`` and ``names`` of the detector in a checkpoint, as they stand there,
    and its tensors in fp32, the averaged ones (``ema``) if there are any.

    Raises :class:`BadInput` for a file that is not a checkpoint of PyTorch 1.6 or later, names
    anything but network layers, calls anything but what builds a tensor, or holds no detector.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            return _read(archive, path)
    except BadInput as error:
        raise BadInput(f"refused to open {path}: {error}") from None
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise BadInput(f"cannot read weights {path}: {type(error).__name__}: {reason}") from None


def _read(archive: zipfile.ZipFile, path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    entries = {item.filename: item for item in archive.infolist()}
    where = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(where) != 1:
        raise BadInput("it is a ZIP file but not one that PyTorch wrote")
    prefix = where[0].removesuffix("data.pkl")
    left = path.stat().st_size  # what is read together: no part is stored twice

    def read(name: str, most: int) -> bytes:
        nonlocal left
        item = entries.get(prefix + name)
        if item is None:
            raise BadInput(f"its part {name[:40]!r} is missing")
        if item.compress_type != zipfile.ZIP_STORED or item.file_size > most:
            raise BadInput(f"its part {name[:40]!r} is compressed or too long")
        left -= item.file_size
        if left < 0:
            raise BadInput("its parts overlap")
        return archive.read(item)

    if prefix + "byteorder" in entries and read("byteorder", 16) != b"little":
        raise BadInput("its numbers are not little-endian")
    document = _Reader(io.BytesIO(read("data.pkl", _MAX_PICKLE_BYTES))).load()
    model = document.get("ema") or document.get("model") if isinstance(document, dict) else document
    if not isinstance(model, _Record) or model.kind != _MODEL:
        kind = model.kind.rpartition(".")[2] if isinstance(model, _Record) else type(model).__name__
        raise BadInput(f"it is not a detector: it holds {kind}, not an Ultralytics DetectionModel")
    storages: dict[_Storage, torch.Tensor] = {}
    state: dict[str, torch.Tensor] = {}
    room = path.stat().st_size  # of numbers: a file that shows one many times is a bomb
    for name, view in _tensors(model):
        storage = view.storage
        room -= math.prod(view.size)
        if room < 0 or len(state) > 4 * _MAX_PARTS:
            raise BadInput("its tensors are larger than the file")
        if storage not in storages:
            data = read(f"data/{storage.key}", storage.numel * storage.dtype.itemsize)
            storages[storage] = (
                torch.frombuffer(bytearray(data), dtype=storage.dtype) if data else torch.empty(0)
            )
        state[name] = _strided(view, storages[storage])
    attributes = model.attributes
    return {"yaml": attributes.get("yaml"), "names": attributes.get("names")}, state


def _strided(view: _View, flat: torch.Tensor) -> torch.Tensor:
    count, last = 1, view.offset
    for n, step in zip(view.size, view.stride, strict=True):
        count *= n
        last += (n - 1) * step
    if count > len(flat) or (count and last >= len(flat)):
        raise BadInput("a tensor is larger than its numbers")
    tensor = torch.as_strided(flat, view.size, view.stride, view.offset).clone()
    return tensor.float() if tensor.is_floating_point() else tensor


def _tensors(model: _Record) -> Iterator[tuple[str, _View]]:
    """Names and places of the persistent tensors of a network."""
    left = _MAX_PARTS
    waiting: list[tuple[str, Any, int]] = [("", model, 0)]
    while waiting:
        prefix, part, depth = waiting.pop()
        left -= 1
        if left < 0 or depth > _MAX_DEPTH:
            raise BadInput("its network has too many parts")
        if part is None:
            continue
        if not isinstance(part, _Record):
            raise BadInput("a part of its network is not a layer")
        fleeting = part.attributes.get("_non_persistent_buffers_set", ())
        for kind in ("_parameters", "_buffers"):
            for name, view in _items(part, kind):
                if isinstance(view, _View) and not (kind == "_buffers" and name in fleeting):
                    yield f"{prefix}{name}", view
        for name, inner in reversed(_items(part, "_modules")):
            if not (depth == 0 and name != "model"):  # beside the network: its criterion
                waiting.append((f"{prefix}{name}.", inner, depth + 1))


def _items(part: _Record, kind: str) -> list[tuple[str, Any]]:
    entries = part.attributes.get(kind, {})
    if not isinstance(entries, dict) or not all(isinstance(name, str) for name in entries):
        raise BadInput("a part of its network is not a layer")
    return list(entries.items())
