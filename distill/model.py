"""Detectors: loading, saving, building and naming them without executing anything.

A *detector* here is Ultralytics' ``DetectionModel`` (an ``nn.Module`` with ``.yaml``,
``.names`` and ``.stride``). On disk ours are safetensors files: tensors plus one JSON
string of metadata, so reading one runs no code. Ultralytics' own ``.pt`` checkpoints are
pickles; they are read with PyTorch's restricted unpickler and an allow-list that holds
nothing but layers of ``torch.nn`` and ``ultralytics.nn``.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from endedge.data.errors import BadInput
from endedge.data.storage import write_atomic
from endedge.distill.adapter import InputAdapter, adapter_of, attach
from endedge.distill.layers import layers, set_widths


def _private_ultralytics() -> None:
    """Keep Ultralytics offline and away from the user's own settings (before its import)."""
    os.environ.setdefault("YOLO_OFFLINE", "1")
    os.environ.setdefault("YOLO_AUTOINSTALL", "0")
    os.environ.setdefault("YOLO_VERBOSE", "False")
    if "YOLO_CONFIG_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "endedge"
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError:
            cache = Path(tempfile.gettempdir()) / "endedge"
            cache.mkdir(parents=True, exist_ok=True)
        os.environ["YOLO_CONFIG_DIR"] = str(cache)


_private_ultralytics()
_threads = torch.get_num_threads()
from ultralytics.nn.modules import Conv  # noqa: E402
from ultralytics.nn.tasks import DetectionModel  # noqa: E402
from ultralytics.utils import DEFAULT_CFG  # noqa: E402
from ultralytics.utils.torch_utils import fuse_conv_and_bn  # noqa: E402

torch.set_num_threads(_threads)  # importing Ultralytics resets it

__all__ = [
    "DetectionModel",
    "build_detector",
    "clone",
    "count_parameters",
    "fold_norms",
    "load_detector",
    "model_hash",
    "save_detector",
    "spec_of",
]

_FORMAT = "endedge-detector-1"
_MAX_CHECKPOINT_BYTES = 2 * 2**30


def build_detector(spec: dict[str, Any]) -> DetectionModel:
    """A detector with random weights from ``spec`` = ``{"yaml": <Ultralytics model dict>,
    "names": {0: "person", ...}}`` and, where it has an input adapter, ``"adapter"`` (see
    distill/adapter.py). Raises :class:`BadInput` when Ultralytics cannot parse it.
    """
    names = {int(k): str(v) for k, v in spec["names"].items()}
    config = copy.deepcopy(spec["yaml"])
    config["nc"] = len(names)
    try:
        model = DetectionModel(config, ch=3, nc=len(names), verbose=False)
    except Exception as error:
        raise BadInput(f"model description cannot be built: {error}") from None
    model.names = names
    model.args = DEFAULT_CFG  # the loss reads its gains (box, cls, dfl) here
    if "adapter" in spec:
        attach(model, InputAdapter.of(spec["adapter"]))
    return model


def spec_of(model: DetectionModel) -> dict[str, Any]:
    """The JSON-able description from which :func:`build_detector` makes the same layers."""
    config = {k: v for k, v in model.yaml.items() if k in _YAML_KEYS}
    spec = {"yaml": json.loads(json.dumps(config)), "names": dict(model.names)}
    adapter = adapter_of(model)
    return spec if adapter is None else {**spec, "adapter": adapter.description}


_YAML_KEYS = (
    "nc",
    "scale",
    "scales",
    "depth_multiple",
    "width_multiple",
    "max_channels",
    "backbone",
    "head",
    "reg_max",
    "end2end",
    "activation",
    "ch",
    "channels",
)


def clone(model: DetectionModel) -> DetectionModel:
    """A deep copy with gradients cleared; the original is untouched."""
    twin = copy.deepcopy(model)
    twin.zero_grad(set_to_none=True)
    return twin


def fold_norms(modules: nn.Module) -> None:
    """Take frozen batch norms into the weights of their convolutions, in place: the same function
    in fewer passes over memory (with the channels last, a fifth off a training step)."""
    for module in modules.modules():
        if isinstance(module, Conv) and hasattr(module, "bn"):
            module.conv = fuse_conv_and_bn(module.conv, module.bn).requires_grad_(False)
            del module.bn
            module.forward = module.forward_fuse


def count_parameters(model: nn.Module) -> int:
    """Trainable and frozen parameters, without buffers."""
    return sum(p.numel() for p in model.parameters())


def model_hash(model: nn.Module) -> str:
    """SHA-256 (hex) over names, shapes, dtypes and bytes of the state, in name order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{name}|{tuple(array.shape)}|{array.dtype}|".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_detector(model: DetectionModel, path: Path, *, half: bool = False) -> None:
    """Write ``model`` as safetensors, atomically; ``half`` stores floats as fp16."""
    from safetensors.torch import save

    state = {}
    for name, tensor in model.state_dict().items():
        tensor = tensor.detach().cpu().contiguous().clone()
        state[name] = tensor.half() if half and tensor.is_floating_point() else tensor
    blob = save(state, metadata={"format": _FORMAT, "spec": json.dumps(spec_of(model))})
    write_atomic(path, blob)


def load_detector(path: str | Path) -> DetectionModel:
    """Load ``.safetensors`` (ours) or ``.pt`` (Ultralytics) as an fp32 detector on the CPU.

    Raises :class:`BadInput` for a missing, oversized or corrupt file, for a checkpoint that
    is not a detector, and for a pickle that names anything but network layers.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"weights not found: {path}; give the path of a .pt or .safetensors file")
    if path.stat().st_size > _MAX_CHECKPOINT_BYTES:
        raise BadInput(f"weights too large: {path} has more than {_MAX_CHECKPOINT_BYTES} bytes")
    model = _load_safetensors(path) if path.suffix == ".safetensors" else _load_pickle(path)
    return model.float().eval()


def _load_safetensors(path: Path) -> DetectionModel:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise BadInput(f"corrupt weights {path}: {error}") from None
    if metadata.get("format") != _FORMAT:
        raise BadInput(f"{path} is not an endedge detector (no '{_FORMAT}' in its metadata)")
    try:
        model = build_detector(json.loads(metadata["spec"]))
        _fill(model, {k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    except BadInput as error:
        raise BadInput(f"corrupt weights {path}: {error}") from None
    except (KeyError, TypeError, AttributeError, RuntimeError, json.JSONDecodeError) as error:
        raise BadInput(f"corrupt weights {path}: {str(error).splitlines()[0]}") from None
    return model


def _load_pickle(path: Path) -> DetectionModel:
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    try:
        allowed: list[Any] = [
            (_layer_class(path, name), name)  # under the name the file uses: old ones moved
            for name in get_unsafe_globals_in_checkpoint(str(path))
        ]
        with safe_globals(allowed):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"cannot read weights {path}: {str(error).splitlines()[0]}") from None
    model = (
        (checkpoint.get("ema") or checkpoint.get("model")) if isinstance(checkpoint, dict) else None
    )
    if not isinstance(model, DetectionModel):
        raise BadInput(
            f"{path} is not a detector: it holds {type(model).__name__}, "
            "not an Ultralytics DetectionModel"
        )
    fresh = build_detector(spec_of(model))  # layers of this version, weights of that file
    try:
        _fill(fresh, model.float().state_dict())
    except (BadInput, KeyError, RuntimeError) as error:
        raise BadInput(
            f"{path} does not fit its own description: {str(error).splitlines()[0]}"
        ) from None
    return fresh


def _fill(model: DetectionModel, state: dict[str, torch.Tensor]) -> None:
    """Load ``state`` into ``model``, narrowed to it first: a pruned detector has the description
    of the whole one, and the shapes of its tensors say what is left."""
    wanted = {}
    for layer in layers(model):
        conv = layer.conv
        n_out, n_in = state[f"{layer.name}.weight"].shape[:2]
        if conv.groups > 1:  # depthwise: as many inputs go as outputs
            n_in = conv.in_channels - conv.out_channels + n_out
        wanted[layer.name] = (n_out, n_in)
    set_widths(model, wanted)
    model.load_state_dict(state)


def _layer_class(path: Path, name: str) -> Any:
    """The class behind a global of a checkpoint, if it is a plain layer; else BadInput."""
    import importlib

    module, _, attribute = name.rpartition(".")
    if (module.split(".")[0] == "torch" and module.startswith("torch.nn")) or module.startswith(
        "ultralytics.nn"
    ):
        found = getattr(importlib.import_module(module), attribute, None)
        if isinstance(found, type) and issubclass(found, nn.Module):
            return found
    raise BadInput(f"refused to open {path}: it names {name}, which is not a network layer")
