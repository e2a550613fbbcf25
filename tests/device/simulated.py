"""A pretend accelerator on the processor: tensors that say they lie on ``sim:0``.

It refuses what CUDA refuses (tensors of two devices in one operation), and counts what a real one
would be slow at: places where the program waits for the device, kernels, and heavy work that was
left on the host. A Python backend for PyTorch's PrivateUse1, which is not public: where a version
lacks it, what uses this is skipped with the reason.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["DEVICE", "MixedDevicesError", "Seen", "Tape", "missing", "register", "simulated"]

DEVICE = "sim"

_VIEWS = {
    *("view", "_unsafe_view", "expand", "permute", "transpose", "t", "slice", "select", "detach"),
    *("alias", "unsqueeze", "squeeze", "split", "split_with_sizes", "unbind", "as_strided"),
    *("lift_fresh", "_reshape_alias", "chunk", "empty", "empty_like", "empty_strided"),
    *("new_empty", "new_empty_strided", "diagonal", "set_", "resize_", "is_same_size"),
}
_ANSWERS = {"_local_scalar_dense", "equal", "is_nonzero"}  # come back to the host
_SIZED = {  # the program has to know how much came out
    *("nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount"),
    *("nms", "repeat_interleave", "multinomial"),
}
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
_HEAVY = {"convolution", "convolution_backward", "mm", "addmm", "bmm"}
_NEVER_MIXED = {"cat", "stack", "nms", "lerp_"}  # not even with a number that lies elsewhere


class MixedDevicesError(RuntimeError):
    """An operation on tensors of two devices."""


@dataclass
class Seen:
    """What happened since :meth:`forget`: how often the program waited, by operation, file and
    line; ``kernels`` started; ``host`` convolutions and products left on the processor by file
    and line; bytes that came and went."""

    waits: Counter[str] = field(default_factory=Counter)
    kernels: int = 0
    host: Counter[str] = field(default_factory=Counter)
    in_bytes: int = 0
    out_bytes: int = 0

    def tape(self) -> Tape:
        """A pretend CUDA graph, empty."""
        return Tape()

    def forget(self) -> None:
        """Begin to count anew."""
        self.waits, self.kernels, self.host = Counter(), 0, Counter()
        self.in_bytes = self.out_bytes = 0


_seen = Seen()
_tape: Tape | None = None


class Tape:
    """A pretend CUDA graph: operations on tensors that lie where they lie, to be done again.

    While it is recorded nothing may wait for the device or come from the host; and as a real one
    computes nothing then, what was written over is put back at the end."""

    def __init__(self) -> None:
        self._done: list[tuple[Any, Any, Any, Any]] = []
        self._before: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        global _tape
        _tape, waits = self, sum(_seen.waits.values())
        try:
            yield
        finally:
            _tape = None
        for tensor, before in self._before.values():
            tensor.copy_(before)
        if sum(_seen.waits.values()) != waits:
            raise RuntimeError(f"operation not permitted when stream is capturing: {_seen.waits}")

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An operation, to be recorded."""
        silent = "batch_norm" in func._schema.name  # writes its running means and does not say so
        for given, said in zip(args, func._schema.arguments, strict=False):
            if silent or (said.alias_info is not None and said.alias_info.is_write):
                for x in filter(torch.is_tensor, tree_leaves(given)):
                    self._before.setdefault(id(x), (x, x.clone()))
        made = func(*args, **kwargs)
        self._done.append((func, args, kwargs, made))
        return made

    def replay(self) -> None:
        """All of it again, on what lies there now."""
        for func, args, kwargs, made in self._done:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(made), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def missing() -> str:
    """What of PyTorch is not there that this needs; '' where all is."""
    from torch.utils import backend_registration

    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        return "this PyTorch has no Python backends (backend_registration)"
    if not hasattr(torch._C, "_set_only_lift_cpu_tensors"):
        return "this PyTorch cannot make tensors on a Python backend (_set_only_lift_cpu_tensors)"
    return ""


@contextmanager
def simulated() -> Iterator[Seen]:
    """Inside, ``device="sim"`` works and is counted; after :func:`register`."""
    _seen.forget()
    lifted: bool = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        with _Mode():  # type: ignore[no-untyped-call]
            yield _seen
    finally:
        torch._C._set_only_lift_cpu_tensors(lifted)


_held: list[torch.library.Library] = []


def register() -> None:
    """Make the device known, before any gradient is computed in this process: PyTorch counts the
    devices then, once."""
    from torch.optim import optimizer
    from torch.utils import backend_registration

    module = SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        _is_in_bad_fork=lambda: False,
        manual_seed_all=lambda seed: None,
        device_count=lambda: 1,
        current_device=lambda: 0,
        get_amp_supported_dtype=lambda: [torch.bfloat16, torch.float16],
        get_rng_state=lambda device=0: torch.zeros(1, dtype=torch.uint8),
        set_rng_state=lambda state, device=0: None,
    )
    backend_registration._setup_privateuseone_for_python_backend(DEVICE, backend_module=module)
    optimizer._foreach_supported_types.append(_Tensor)
    _held.extend(_autocast())


def _autocast() -> list[torch.library.Library]:
    """What autocast does on other devices: products and convolutions in half precision. The
    libraries returned must live for as long as this is to hold."""
    key = "AutocastPrivateUse1"
    library: Any = torch.library.Library
    others, ours = library("_", "IMPL"), library("aten", "IMPL")
    others.fallback(torch.library.fallthrough_kernel, key)
    without = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

    def halved(x: Any) -> Any:
        half = torch.get_autocast_dtype(DEVICE)
        lies_there = isinstance(x, torch.Tensor) and x.device.type == DEVICE
        return x.to(half) if lies_there and x.dtype == torch.float32 else x

    for name in ("conv2d", "linear", "matmul", "mm", "bmm", "addmm"):
        packet = getattr(torch.ops.aten, name)

        def kernel(*args: Any, packet: Any = packet, **kwargs: Any) -> Any:
            with torch._C._ExcludeDispatchKeyGuard(without):
                return packet(*tree_map(halved, args), **tree_map(halved, kwargs))

        ours.impl(name, kernel, key)
    return [others, ours]


class _Tensor(torch.Tensor):
    """Lies on ``sim:0`` for whoever asks; ``held`` has its numbers."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, inner: torch.Tensor, requires_grad: bool = False) -> _Tensor:
        made: _Tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=torch.device(DEVICE, 0),
            requires_grad=requires_grad,
        )
        made.held = inner
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"_Tensor({tuple(self.shape)}, {self.dtype})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            twin = _Tensor(self.held.clone(), self.requires_grad)
            if getattr(self, "_is_param", False):
                twin._is_param = True
            memo[id(self)] = twin
        return memo[id(self)]

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("can't convert sim:0 device type tensor to numpy. Use Tensor.cpu() first")

    def __array__(self, *given: Any, **named: Any) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _dispatch(func, args, kwargs or {})


class _Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        composite = "CompositeImplicitAutograd"
        if torch.is_inference_mode_enabled() and torch._C._dispatch_has_kernel_for_dispatch_key(
            func.name(), composite
        ):
            with self:  # what autograd would have taken apart, had it been there
                made = func.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
        return _dispatch(func, args, kwargs)


def _dispatch(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = func._schema.name.split("::")[1]
    if name == "_has_compatible_shallow_copy_type":
        return isinstance(args[0], _Tensor) == isinstance(args[1], _Tensor)
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    ours = [x for x in tensors if isinstance(x, _Tensor)]
    wanted = kwargs.get("device")
    wanted = None if wanted is None else torch.device(wanted).type
    if not ours and wanted != DEVICE:
        if name in _HEAVY and not all(x.is_meta for x in tensors):  # shapes alone cost nothing
            _seen.host[f"{name} @ {_where()}"] += 1
        return func(*args, **kwargs)
    others = [x for x in tensors if not isinstance(x, _Tensor)]
    _refuse_mixed(name, args, kwargs, ours, others)
    _count(name, args, kwargs, wanted)
    outer: dict[int, _Tensor] = {}

    def bare(x: Any) -> Any:
        if isinstance(x, _Tensor):
            outer[id(x.held)] = x
            return x.held
        return x

    def dressed(x: Any) -> Any:
        if isinstance(x, torch.Tensor) and not isinstance(x, _Tensor):
            known = outer.get(id(x))
            return _Tensor(x) if known is None else known
        return x

    inner_args, inner_kwargs = tree_map(bare, args), tree_map(bare, kwargs)
    if wanted == DEVICE:
        inner_kwargs["device"] = torch.device("cpu")
    if _tape is not None:
        made = _tape.run(func, inner_args, inner_kwargs)
    else:
        made = func(*inner_args, **inner_kwargs)
    if name == "copy_" and not isinstance(args[0], _Tensor):
        return args[0]
    if name in _ANSWERS or (name == "_to_copy" and wanted == "cpu"):
        return made
    return tree_map(dressed, made)


def _refuse_mixed(
    name: str, args: Any, kwargs: Any, ours: list[Any], others: list[torch.Tensor]
) -> None:
    """A number that lies on the host may take part in most operations, as with CUDA."""
    generator = kwargs.get("generator")
    if generator is not None and generator.device.type != DEVICE:
        raise MixedDevicesError(f"{name}: a generator of the host at {_where()}")
    if not ours or not others or name in ("_to_copy", "copy_"):
        return
    if name in _INDEXING:
        if not isinstance(args[0], _Tensor):
            raise MixedDevicesError(f"{name}: a tensor of the host by indices at {_where()}")
        return
    if any(x.dim() > 0 for x in others) or name in _NEVER_MIXED:
        shapes = [tuple(x.shape) for x in others]
        raise MixedDevicesError(f"{name}: sim and host ({shapes}) at {_where()}")


def _count(name: str, args: Any, kwargs: Any, wanted: str | None) -> None:
    if name in _ANSWERS or name in _SIZED:
        _seen.waits[f"{name} @ {_where()}"] += 1
    if name in _INDEXING:
        given = [i for i in args[1] if isinstance(i, torch.Tensor)]
        masks = [i for i in given if i.dtype in (torch.bool, torch.uint8)]
        filled = name != "index" and len(masks) == len(given) == 1 and args[2].numel() == 1
        if masks and not filled:
            _seen.waits[f"{name} by a mask @ {_where()}"] += 1
        if any(not isinstance(i, _Tensor) for i in given):
            _seen.waits[f"{name} by indices of the host @ {_where()}"] += 1
    if name in ("_to_copy", "copy_"):
        source = args[1] if name == "copy_" else args[0]
        size = source.numel() * source.element_size()
        here = isinstance(source, _Tensor)
        there = isinstance(args[0], _Tensor) if name == "copy_" else (wanted or DEVICE) == DEVICE
        if here != there:
            _seen.waits[f"{'to' if there else 'from'} the device @ {_where()}"] += 1
            _seen.in_bytes += size * there
            _seen.out_bytes += size * here
    if name not in _VIEWS:
        _seen.kernels += 1


def _where() -> str:
    """File and line of the innermost code that is this project's own and no test."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if "site-packages" not in file and "/torch/" not in file and file != __file__:
            return f"{'/'.join(file.split('/')[-2:])}:{frame.f_lineno}"
        frame = frame.f_back
    return "(backward)"
