"""Detectors: loading, saving, building and naming them without executing anything.

A *detector* here is Ultralytics' ``DetectionModel`` (an ``nn.Module`` with ``.yaml``,
``.names`` and ``.stride``). On disk ours are safetensors files: tensors plus one JSON
string of metadata. Ultralytics' own ``.pt`` checkpoints are pickles, read by
:mod:`endedge.distill.checkpoint`. From either come a description and tensors, and
:func:`build_detector` is the one gate between a description and layers.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from endedge.data.errors import BadInput
from endedge.data.storage import write_atomic
from endedge.distill.adapter import InputAdapter, adapter_of, attach
from endedge.distill.checkpoint import read_checkpoint
from endedge.distill.description import PROBE_SIDE, SpecSummary, plan_of, resolved, using
from endedge.distill.layers import MAX_PARAMETERS, set_widths
from endedge.distill.network import DEFAULT_CFG, Conv, DetectionModel, fuse_conv_and_bn

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
_MAX_SPEC_CHARACTERS = 2**20


def build_detector(
    spec: dict[str, Any],
    widths: Mapping[str, tuple[int, int]] | None = None,
    *,
    max_parameters: int = MAX_PARAMETERS,
) -> DetectionModel:
    """A detector with random weights from ``spec`` = ``{"yaml": <Ultralytics model dict>,
    "names": {0: "person", ...}}`` and, where it has an input adapter, ``"adapter"`` (see
    distill/adapter.py); convolutions named in ``widths`` (output, input channels) have those,
    and zeros.

    ``spec`` may come from anywhere: it is checked, and laid out without memory, before a layer
    is made (see :mod:`endedge.distill.description`); no forward pass is run. Raises
    :class:`BadInput` for a description that is not allowed, cannot be built, or needs more than
    ``max_parameters``.
    """
    plan = plan_of(spec, widths)
    if plan.parameters > max_parameters:
        raise BadInput(f"model description: more than {max_parameters:,} parameters")
    names = {int(k): v for k, v in spec["names"].items()}
    config = {**copy.deepcopy(spec["yaml"]), "channels": 3, "nc": len(names)}
    try:
        with using(config.get("activation")):
            model = _planned(plan, resolved(spec), len(names))
    except Exception as error:
        raise BadInput(f"model description cannot be built: {error}") from None
    model.names = dict(sorted(names.items()))
    model.yaml = config
    model.args = DEFAULT_CFG  # the loss reads its gains (box, cls, dfl) here
    if "adapter" in spec:
        attach(model, InputAdapter.of(spec["adapter"]))
    return set_widths(model, widths or {})


def _planned(plan: SpecSummary, config: dict[str, Any], classes: int) -> DetectionModel:
    """Ultralytics' own construction, but for the forward pass by which it finds the strides of
    the head: they are known, and a pass costs whatever the description makes it cost."""

    class Unrun(DetectionModel):  # type: ignore[misc]
        def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
            assert x.shape[-1] == PROBE_SIDE
            return {"feats": [torch.empty(1, 1, height, 1) for height in plan.heights]}

    model = Unrun(config, ch=3, nc=classes, verbose=False)
    model.__class__ = DetectionModel
    return model


def spec_of(model: DetectionModel) -> dict[str, Any]:
    """The JSON-able description from which :func:`build_detector` makes the same layers."""
    spec = _described(model.yaml, model.names)
    spec = {"yaml": json.loads(json.dumps(spec["yaml"])), "names": dict(spec["names"])}
    adapter = adapter_of(model)
    return spec if adapter is None else {**spec, "adapter": adapter.description}


def _described(config: Any, names: Any) -> dict[str, Any]:
    """What of an Ultralytics model dict matters to its layers."""
    if not isinstance(config, dict):
        raise BadInput("its model description is not a mapping")
    return {"yaml": {k: v for k, v in config.items() if k in _YAML_KEYS}, "names": names}


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
    is not a detector, for a pickle that names anything but network layers, and for weights
    that are not finite.
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
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise BadInput(f"corrupt weights {path}: {error}") from None
    if metadata.get("format") != _FORMAT:
        raise BadInput(f"{path} is not an endedge detector (no '{_FORMAT}' in its metadata)")
    text = metadata.get("spec", "")
    if len(text) > _MAX_SPEC_CHARACTERS:
        raise BadInput(f"corrupt weights {path}: its description is too long")
    try:
        return _filled(json.loads(text), state)
    except BadInput as error:
        raise BadInput(f"corrupt weights {path}: {error}") from None
    except (ValueError, RecursionError):
        raise BadInput(f"corrupt weights {path}: its description is no JSON") from None


def _load_pickle(path: Path) -> DetectionModel:
    spec, state = read_checkpoint(path)
    try:
        return _filled(_described(spec["yaml"], spec["names"]), state)
    except BadInput as error:
        raise BadInput(f"{path} does not fit: {error}") from None


def _filled(spec: Any, state: Mapping[str, torch.Tensor]) -> DetectionModel:
    """The detector of ``spec`` that has the tensors of ``state``. The shapes come from them: a
    pruned detector has the description of the whole one, and one that Ultralytics fine-tuned
    keeps the class branch of the classes it had before."""
    wanted = {}
    for name, width in plan_of(spec).widths.items():
        weight = state.get(f"{name}.weight")
        if weight is None or weight.ndim != 4:
            raise BadInput(f"there is no weight for {name}, which its description has")
        n_out, n_in = weight.shape[:2]
        if (n_out, n_in) != width and n_in == 1 and width[0] == width[1]:
            n_in = n_out  # depthwise: as many inputs as outputs
        if (n_out, n_in) != width:
            wanted[name] = (n_out, n_in)
    model = build_detector(spec, wanted)
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BadInput(f"{name[:80]} holds numbers that are not finite")
    try:
        model.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
        )
    except (RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BadInput(f"its tensors are not those of its description: {reason}") from None
    return model
