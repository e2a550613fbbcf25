"""Packing: a detector in at most so many bytes.

What a packer has to know of a model (which weights matter, on what grid, what rounding errors can
be absorbed by) does not depend on the budget. So a model is prepared once and then packed for as
many budgets as are asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from endedge.data.errors import BadInput
from endedge.distill.adapter import InputAdapter, adapter_of, attach
from endedge.distill.description import plan_of
from endedge.distill.envelope import HEADER_BYTES, reuse, seal
from endedge.distill.losses import divergence
from endedge.distill.model import DetectionModel, clone, count_parameters, model_hash, spec_of
from endedge.distill.package.byte_budget import COARSEST, SizeCurve, fit_step
from endedge.distill.package.description import describe
from endedge.distill.package.entropy import encode_arrays
from endedge.distill.package.format import wire_arrays
from endedge.distill.package.qat import train_integers
from endedge.distill.package.quantization import Coded, Floats, Target, apply_coded, steps, targets
from endedge.distill.package.rounding import (
    LayerInputs,
    RoundingGrid,
    inputs_of,
    level_grids,
    loudness,
    make_grid,
    quantize,
)
from endedge.distill.package.sensitivity import measure, synthetic_frames
from endedge.distill.training import Recipe

__all__ = ["Packed", "Prepared", "Report", "Watch", "pack", "prepare", "reused"]

_ROOM = 0.99  # of the budget is filled where integers are then trained: it grows a little
_MOST_FRAMES = 128  # more tell the packer little and cost seconds
_MEASURED, _PREPARED = 0.6, 0.8  # of the work, as it is reported
Watch = Callable[[float, str], None]


@dataclass(frozen=True)
class Report:
    """What the packer chose.

    ``mean_bits``: bytes of coded weights times 8 over their number. ``kept``: parameters
    over those of the unpruned architecture. ``expected_loss``: second-order
    estimate of what rounding costs, in nats of the predictive distribution a frame; it
    compares packages of one model on the same frames.
    ``transmitted``: numbers sent that are not zero (of a delta: that change).
    The package is header + spec + coded bytes long.
    """

    mode: str
    mean_bits: float
    parameters: int
    kept: float
    step: float
    expected_loss: float
    header_bytes: int
    spec_bytes: int
    coded_bytes: int
    transmitted: int


@dataclass(frozen=True)
class Packed:
    """A package and how it came about; ``len(data)`` is what crosses the link, ``decoded`` what
    unpacks from it, bit for bit. ``candidate``: which of the models that competed it is of."""

    data: bytes
    report: Report
    decoded: DetectionModel = field(compare=False, repr=False)
    candidate: int = 0


@dataclass(frozen=True, eq=False)
class _Kind:
    """Everything about full packages of a model, or about deltas against a ``base``, but budgets.
    ``held`` is the hash of the base, ``skeleton`` what the coded integers are filled into."""

    base: DetectionModel | None
    held: str | None
    goals: list[Target]
    grids: list[RoundingGrid]
    spec: bytes
    skeleton: DetectionModel
    loudness: Floats

    @property
    def name(self) -> str:
        return "full" if self.base is None else "delta"


@dataclass(frozen=True, eq=False)
class Prepared:
    """A ``model`` of which a packer knows all that it takes for any budget. The packages are those
    that :func:`pack` would make, in whatever order budgets are asked. It holds the factors of every
    convolution: some 120 MB for YOLOv8n, 480 MB for YOLOv8s."""

    model: DetectionModel
    frames: torch.Tensor | None
    kept: float
    kinds: tuple[_Kind, ...]
    device: str = "cpu"

    def pack(
        self,
        budget_bytes: int,
        *,
        params: int | None = None,
        aware: Recipe | None = None,
        watch: Watch | None = None,
    ) -> Packed:
        """The model in at most ``budget_bytes`` and ``params``; see :func:`pack`. Raises
        :class:`BadInput` for a budget below the smallest reachable size, and says it."""
        if aware is not None and (self.frames is None or len(self.frames) < 2):
            raise BadInput("integers are trained on frames; give at least 2")
        say: Watch = watch or (lambda share, message: None)
        packed: list[Packed] = []
        refused: list[BadInput] = []
        for kind in self.kinds:
            recipe = aware if kind.base is None else None
            try:
                packed.append(self._pack_one(kind, budget_bytes, params, recipe, say))
            except BadInput as error:
                refused.append(error)
        if not packed:
            raise refused[-1]
        return min(packed, key=lambda p: p.report.expected_loss)

    def _pack_one(
        self,
        kind: _Kind,
        budget_bytes: int,
        params: int | None,
        aware: Recipe | None,
        say: Watch,
    ) -> Packed:
        overhead = HEADER_BYTES + len(kind.spec)
        each_bytes = 0.0 if params is None else budget_bytes / params

        def size(coded: list[Coded], stream: bytes) -> int:
            return max(overhead + len(stream), math.ceil(each_bytes * _transmitted(coded)))

        def code(step: float) -> tuple[list[Coded], bytes]:
            step = float(np.float32(step))
            coded = [
                quantize(goal, grid, step)
                for goal, grid in zip(kind.goals, kind.grids, strict=True)
            ]
            stream = encode_arrays(wire_arrays(coded))
            made = overhead + len(stream)
            say(_PREPARED, f"{kind.name} package of {made:,} bytes for {budget_bytes:,}")
            return coded, stream

        try:
            step, (coded, stream) = fit_step(
                code,
                lambda result: size(*result),
                budget_bytes if aware is None else round(_ROOM * budget_bytes),
                SizeCurve(kind.loudness, overhead, each_bytes),
            )
        except BadInput as error:
            if params is None:
                raise
            fewest = _transmitted(code(2.0**COARSEST)[0])
            raise BadInput(
                f"a budget of {params} parameters and {budget_bytes} bytes is too small for this "
                f"model: the smallest package sends {fewest} parameters ({error})"
            ) from None
        decoded = clone(kind.skeleton)
        adapter = adapter_of(self.model)  # on the grid that crosses the link
        attach(decoded, None if adapter is None else InputAdapter.of(adapter.description))
        apply_coded(decoded, coded, step, kind.base)
        if aware is not None:
            trained = self._trained(decoded, coded, step, aware, say)
            if trained is not None and size(*trained[1:]) <= budget_bytes:
                decoded, coded, stream = trained
        return Packed(
            seal(model_hash(decoded), kind.held, step, kind.spec, stream),
            Report(
                mode=kind.name,
                mean_bits=8 * len(stream) / sum(goal.weights.size for goal in kind.goals),
                parameters=count_parameters(self.model),
                kept=self.kept,
                step=step,
                expected_loss=_expected_loss(kind.goals, coded, kind.grids, step),
                header_bytes=HEADER_BYTES,
                spec_bytes=len(kind.spec),
                coded_bytes=len(stream),
                transmitted=_transmitted(coded),
            ),
            decoded.eval(),
        )

    def _trained(
        self,
        decoded: DetectionModel,
        coded: list[Coded],
        step: float,
        recipe: Recipe,
        say: Watch,
    ) -> tuple[DetectionModel, list[Coded], bytes] | None:
        """The same with integers trained on the frames; None if a fifth of them, which it was not
        trained on, says that it is no better."""
        assert self.frames is not None
        held = max(1, len(self.frames) // 5)
        shown, total = self.frames[:-held], recipe.steps

        def on_step(step: int, loss: float) -> None:
            say(_PREPARED, f"integers, step {step}/{total}, {loss:.2f} nats")

        trained = train_integers(
            self.model, decoded, coded, step, shown, recipe, device=self.device, on_step=on_step
        )
        better = clone(decoded)
        apply_coded(better, trained, step, None)
        judges = self.frames[-held:]
        one, other = (divergence(self.model, m, judges, self.device) for m in (decoded, better))
        return (better, trained, encode_arrays(wire_arrays(trained))) if other < one else None


def prepare(
    model: DetectionModel,
    *,
    base: DetectionModel | None = None,
    frames: torch.Tensor | None = None,
    seed: int = 0,
    mode: str = "auto",
    device: str = "cpu",
    watch: Watch | None = None,
) -> Prepared:
    """Learn of ``model`` all that its packages of any size need; the arguments are those of
    :func:`pack`. Raises :class:`BadInput` for a mode that is unknown or needs another base.

    Args:
        model: to be sent.
        base: what the device holds already, of the same layers and widths: allows a delta.
        frames: (N, 3, S, S) uint8, unlabelled (None: made up from ``seed``); 128 are used.
        seed: of the frames that are made up.
        mode: ``auto``, ``full`` or ``delta``.
        watch: hears of progress, as ``watch(share in [0, 1], message)``.
        device: ``cpu`` or ``cuda``, where networks look at frames.
    """
    if mode not in ("auto", "full", "delta"):
        raise BadInput(f"mode {mode!r}; choose auto, full or delta")
    references: list[DetectionModel | None] = [] if mode == "delta" else [None]
    if base is not None and _same_kind(model, base):
        references += [] if mode == "full" else [base]
    elif mode == "delta":
        raise BadInput("mode 'delta' needs a base model of the same layers, widths and classes")
    pictures = synthetic_frames(seed=seed) if frames is None else frames[:_MOST_FRAMES]
    say: Watch = watch or (lambda share, message: None)
    goals = [targets(model, reference) for reference in references]
    # a delta leaves layers alone: nobody has to know how they would be rounded
    heard = {goal.name for some in goals for goal in some if goal.weights.any()}
    measured = measure(
        model,
        pictures,
        seed,
        lambda share: say(_MEASURED * share, "which weights matter"),
        heard,
        device,
    )
    inputs: dict[str, LayerInputs] = {}
    while measured:  # each is large: keep what is made of it
        name, sensitivity = measured.popitem()
        inputs[name] = inputs_of(sensitivity)
        done = 1 - len(measured) / max(1, len(heard))
        say(_MEASURED + (_PREPARED - _MEASURED) * done, "how rounding errors can be absorbed")
    kinds = [
        _kind(model, reference, some, inputs)
        for reference, some in zip(references, goals, strict=True)
    ]
    whole = plan_of(spec_of(model)).parameters
    return Prepared(model, frames, count_parameters(model) / whole, tuple(kinds), device)


def pack(
    model: DetectionModel,
    budget_bytes: int,
    *,
    params: int | None = None,
    base: DetectionModel | None = None,
    frames: torch.Tensor | None = None,
    seed: int = 0,
    mode: str = "auto",
    device: str = "cpu",
    aware: Recipe | None = None,
    watch: Watch | None = None,
) -> Packed:
    """Code ``model`` in at most ``budget_bytes``, as accurately as that allows; with ``params``, no
    more than so many numbers in it are not zero (docs/eeu.md).

    ``base`` is the model the device holds already: then a delta against it competes with a
    full package (``mode`` ``"auto"``; ``"full"`` and ``"delta"`` decide). ``frames`` (N, 3, S, S)
    uint8 need no labels; they tell the packer which weights matter (128 are used), which networks
    are asked on ``device``.
    ``aware`` trains the integers of a full package by that recipe on ``frames``, all of them (see
    :func:`~endedge.distill.package.qat.train_integers`); a fifth of them decides whether the
    result is used. ``watch(share, message)`` hears of progress. For several budgets,
    :func:`prepare` once. Raises :class:`BadInput` if the budget is below the smallest reachable
    size, and says it.

    Args:
        model: to be sent.
        budget_bytes: of the whole package, header and all.
        params: most numbers in it that are not zero (None: as many as fit).
        base: what the device holds already: allows a delta.
        frames: (N, 3, S, S) uint8, unlabelled.
        seed: of frames that are made up where none are given.
        mode: ``auto``, ``full`` or ``delta``.
        aware: recipe for training the integers (None: they are only rounded).
        watch: hears of progress, as ``watch(share in [0, 1], message)``.
        device: ``cpu`` or ``cuda``, where networks look at frames.
    """
    prepared = prepare(
        model, base=base, frames=frames, seed=seed, mode=mode, device=device, watch=watch
    )
    return prepared.pack(budget_bytes, params=params, aware=aware, watch=watch)


def reused(model: DetectionModel) -> Packed:
    """The package that tells a device to run ``model``, which it keeps: its hash, 61 bytes."""
    data, whole = reuse(model_hash(model)), plan_of(spec_of(model)).parameters
    n = count_parameters(model)
    report = Report("reuse", 0.0, n, n / whole, 0.0, 0.0, len(data), 0, 0, 0)
    return Packed(data, report, model)


def _transmitted(coded: Sequence[Coded]) -> int:
    return sum(c.nonzero for c in coded)


def _same_kind(a: DetectionModel, b: DetectionModel) -> bool:
    shapes = [
        {k: v.shape for k, v in m.state_dict().items() if not k.startswith("input_adapter.")}
        for m in (a, b)
    ]
    return shapes[0] == shapes[1] and dict(a.names) == dict(b.names)


def _kind(
    model: DetectionModel,
    base: DetectionModel | None,
    goals: list[Target],
    inputs: Mapping[str, LayerInputs],
) -> _Kind:
    grids = [make_grid(x, inputs[x.name] if x.weights.any() else None) for x in goals]
    level_grids(goals, grids)
    spec, skeleton = describe(model, base)
    return _Kind(
        base,
        None if base is None else model_hash(base),
        goals,
        grids,
        spec,
        skeleton if base is None else base,
        loudness(goals, grids),
    )


def _expected_loss(
    goals: Sequence[Target], coded: Sequence[Coded], grids: Sequence[RoundingGrid], step: float
) -> float:
    """Second-order estimate in nats a frame, without the correlations between inputs."""
    total = 0.0
    for goal, c, grid in zip(goals, coded, grids, strict=True):
        error = goal.weights - c.weights * steps(c.rows, c.columns, step)
        total += float((grid.importance * (error**2).sum(axis=(1, 2))).sum())
    return total / 2
