"""The sections of a configuration: every field with its unit, unknown keys refused."""

from __future__ import annotations

import math
from itertools import count
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializeAsAny,
    field_validator,
    model_validator,
)

from endedge.allocator.problem import Link
from endedge.data.codec import Codec
from endedge.data.shift import Kind
from endedge.distill.loss import Loss, chosen
from endedge.distill.recipe import Recipe
from endedge.lab.config.fields import (
    LATER,
    Bytes,
    Count,
    File,
    Hertz,
    LabelledBy,
    NonNegative,
    Params,
    Positive,
    Seconds,
    Section,
    Storage,
    Students,
)

_BYTES_OF_A_PARAMETER = 4  # at most: as a 32-bit float, the way it is trained


class Camera(Section):
    """The device's camera: a domain shift of the frames (see data/shift.py)."""

    kind: Kind = "none"
    severity: Annotated[int, Field(ge=1, le=5)] = 3
    seed: Annotated[int, Field(ge=0)] = 0


class FramesConfig(Section):
    """A folder with COCO annotations and images, relative to ``root`` (of a folder that
    `endedge import` made: that folder)."""

    root: File = "."
    pool_annotations: str = "annotations/instances_pool.json"
    pool_images: str = "images/pool"
    eval_annotations: str = "annotations/instances_eval.json"
    eval_images: str = "images/eval"


class DataConfig(FramesConfig):
    """Frames. ``coco``: a folder of them. ``generated``: scenes made on the spot (domain
    ``field``), ``pool`` and ``eval`` counts."""

    source: Literal["coco", "generated"] = "coco"
    # Who drew the boxes, as the annotations say it: a detector's own measure agreement with it.
    pool_labels: Annotated[LabelledBy, LATER] = "truth"
    eval_labels: Annotated[LabelledBy, LATER] = "truth"
    pool_frames: Count | None = None  # the first so many; None: all (generated: 256)
    eval_frames: Count | None = None
    image_side: Annotated[int, Field(ge=32, multiple_of=32)] = 320  # px, square
    camera: Camera = Camera()
    seed: Annotated[int, Field(ge=0)] = 0  # of generated frames


class Weights(Section):
    """Detectors before adaptation: a path, a name inside ``root``, a file shipped with the
    package (``endedge:demo/student.safetensors``) or an Ultralytics name that can be downloaded.
    ``student``: one, or a list of architectures of which the best for each budget is sent; the
    device holds the first at the start."""

    root: File | None = None
    teacher: File
    student: Students

    @field_validator("student")
    @classmethod
    def _no_student_twice(cls, students: tuple[str, ...]) -> tuple[str, ...]:
        if not students or len(set(students)) != len(students):
            raise ValueError("must name at least one detector, none of them twice")
        return students


class Training(Section):
    """One training (see distill/training.py). ``steps`` at most, and no more than ``epochs``
    passes over the frames: few frames are soon learned by heart. Below ``few_frames`` of them
    the rate falls with the root of their number and batch-norm statistics stay (docs/log.md)."""

    steps: Annotated[int, Field(ge=0)] = 200
    epochs: Positive = 25.0
    batch: Count = 16
    lr: Positive = 5e-4
    few_frames: Annotated[int, Field(ge=0)] = 0
    layers: Count | None = None  # the first so many modules of the network; None: all
    train_norm: bool = False
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.97

    def recipe(self, n_frames: int, seed: int) -> Recipe:
        """The recipe for a training on ``n_frames``."""
        steps = min(self.steps, max(1, round(self.epochs * n_frames / self.batch)))
        few = n_frames < self.few_frames
        lr = self.lr * math.sqrt(n_frames / self.few_frames) if few else self.lr
        return Recipe(
            steps=steps,
            batch=self.batch,
            lr=lr,
            layers=self.layers,
            train_norm=self.train_norm and not few,
            ema=self.ema,
            seed=seed,
        )


# The student's loss by name, ``loss``, with that one's settings (see distill/objectives.py).
Distillation = Annotated[SerializeAsAny[Loss], BeforeValidator(chosen)]


class HeldBack(Section):
    """The slice of the uploaded frames that is never trained on. It chooses how far the weights
    move from the start (``shares``) and whether an update is sent at all: not where there are
    fewer than ``least`` of them."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    most: Count = 64  # frames
    least: Count = 4  # frames
    shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.25, 0.5, 1.0)

    @property
    def fewest_frames(self) -> int:
        """Uploaded frames below which no update is ever sent: too few would be held back. 0 where
        ``least`` is more than ``most``, so that none ever is."""
        if self.least > self.most:
            return 0
        return next(n for n in count(1) if max(2, round(self.share * n)) >= self.least)


class Adaptation(Section):
    """How the student adapts. ``fixed``: as ``student`` says, judged by the slice of ``held_back``.
    ``chosen``: the input adapter, the layers, the rate, the statistics and the share of the way are
    chosen by the uploaded frames, all of which judge in turn (see edge/choosing.py); of ``student``
    the steps, epochs, batch and ema are used. An update is sent if its gain is more than ``sure``
    standard errors."""

    policy: Literal["fixed", "chosen"] = "fixed"
    sure: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0


class Uplink(Section):
    """Upload sizes (frames) of the grid, the codec's operating points (``jpeg-q75-320``)."""

    frames: tuple[Annotated[int, Field(ge=2)], ...]  # one to learn from, one to judge by
    codecs: tuple[str, ...] = ("jpeg-q75-320",)

    @field_validator("codecs")
    @classmethod
    def _readable(cls, codecs: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(Codec.parse(c)) for c in codecs)


class Downlink(Section):
    """Model budgets (bytes) of the grid; ``mode``: ``full`` packages, a ``delta`` against the
    model that the device holds, or whichever is expected to detect better (``auto``). ``keep``:
    shares of the parameters at which the student competes, pruned and recovered, with itself
    (1.0) for every budget; a pruned one travels in full. ``budgets_params``: budgets in numbers
    that are sent and are not zero (``1.5M``), with at most 4 bytes for each: that many bytes are
    their ``budget_bytes`` in the results."""

    budgets_bytes: tuple[Bytes, ...] = ()
    budgets_params: Annotated[tuple[Params, ...], LATER] = ()
    mode: Literal["auto", "full", "delta"] = "auto"
    keep: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (1.0,)

    @property
    def budgets(self) -> tuple[int, ...]:
        """All of them, in bytes."""
        return (*self.budgets_bytes, *(_BYTES_OF_A_PARAMETER * p for p in self.budgets_params))

    def params_of(self, budget_bytes: int) -> int | None:
        """The parameters behind a budget; None for one of bytes."""
        params, rest = divmod(budget_bytes, _BYTES_OF_A_PARAMETER)
        return params if not rest and params in self.budgets_params else None

    @model_validator(mode="after")
    def _whole_too(self) -> Downlink:
        if 1.0 not in self.keep or len(set(self.keep)) != len(self.keep):
            raise ValueError("keep: must list 1.0 (the whole model), and no share twice")
        if len(self.keep) > 1 and self.mode == "delta":
            raise ValueError("keep: a delta carries no pruned model; use mode full or auto")
        return self


class LinkConfig(Section):
    """The shared link: one update each ``period_s``; efficiencies in bit/s/Hz; the sweep of
    bandwidths (Hz, log-spaced) over which policies are compared.

    ``edge_s``: what adapting, distilling and packing take; ``measured``: as the cells did, on an
    edge ``edge_speed`` times as fast. ``apply_s``: until the device runs the new model.
    ``objective``: the mAP on ``average`` over the period or the one ``final``ly reached.
    """

    period_s: Seconds = 60.0
    up_bit_per_s_per_hz: Positive = 2.55
    down_bit_per_s_per_hz: Positive = 5.0
    bandwidth_low_hz: Hertz | None = None  # None: just too little for the smallest cell
    bandwidth_high_hz: Hertz | None = None  # None: everything fits
    bandwidths: Annotated[int, Field(ge=2)] = 12
    schedule: Literal["pipelined", "sequential"] = "pipelined"
    edge_s: NonNegative | Literal["measured"] = 0.0
    edge_speed: Positive = 1.0
    apply_s: NonNegative = 0.0
    objective: Literal["average", "final"] = "average"
    captured_frames: Count | None = None  # that the device has in a period; None: any number
    up: dict[str, Any] | None = None  # `endedge device` shapes its sockets so (docs/link.md),
    down: dict[str, Any] | None = None  # both directions or none

    def at(self, bandwidth_hz: float) -> Link:
        """This link with a bandwidth, as the allocator takes it."""
        return Link(
            bandwidth_hz, self.period_s, self.up_bit_per_s_per_hz, self.down_bit_per_s_per_hz
        )

    def sweep_hz(self, upload_bytes: Any, update_bytes: Any) -> tuple[float, float]:
        """Ends of the sweep (Hz) over rounds of so many bytes, arrays of one shape: from just too
        little for any of them to everything, where the configuration says nothing else."""
        need = self.at(0.0).hz_for(upload_bytes, update_bytes)
        low, high = 0.8 * float(need.min()), 1.25 * float(need.max())
        return self.bandwidth_low_hz or low, self.bandwidth_high_hz or high


class BenchmarkConfig(Section):
    """How the decisions of policies are executed. ``measured``: the device takes the largest
    measured upload and package within them. ``exact``: they are trained, packed and evaluated as
    decided, rounded down to a ladder of sizes, each ``step`` times the one before."""

    execute: Literal["measured", "exact"] = "measured"
    step: Annotated[float, Field(gt=1, le=4, allow_inf_nan=False)] = 1.1
    studies: bool = True  # held-out cells and injected errors (lab/benchmark/robustness.py)
    error_draws: Count = 20  # wrong curves for each size of error


class Edge(Section):
    """How the edge answers: whose labels (``truth``, ``pseudo``, or ``mix-N`` boxes drawn of an
    upload; see edge/labels.py). Round after round, in `loop` and `serve`: ``replay_frames`` of
    earlier rounds beside each upload, ``memory_rounds`` whose frames and models are kept for
    each device."""

    labels: Annotated[str, Field(pattern=r"^(truth|pseudo|mix-[0-9]+)$")] = "truth"
    replay_frames: Annotated[int, Field(ge=0)] = 64
    memory_rounds: Count = 8
    least_frames: Annotated[int, Field(ge=4)] = 4  # fewer teach nothing: no update


class End(Section):
    """What the device can take: seconds a frame, above which a student is not sent
    (``max_latency_s``, as `endedge latency` measures it on this machine); bytes of storage for
    models, in `loop` and `serve` (``models_bytes``): the last ones stay as long as they and the one
    in use fit, and the edge may name them (0: only the one in use)."""

    max_latency_s: Annotated[Seconds | None, LATER] = None
    models_bytes: Annotated[Storage, LATER] = 0


class Serve(Section):
    """What one device may ask of `endedge serve`: bytes of a batch, of all its batches averaged
    over time (a second), of a package; frames of a batch; rounds stored and not ended; messages
    and connections a second; and how many devices there may be. ``disk_bytes`` bounds the whole
    folder (null: 90 % of what is free at the start), ``handshakes`` the peers that have not proved
    who they are (of all, and of one address). An adaptation job has ``job_memory`` bytes (null:
    half of the machine's) and ``job_s`` seconds."""

    upload_bytes: Bytes = 256 * 2**20
    upload_bytes_per_s: Positive | None = None  # None: as the link allows
    update_bytes: Bytes = 256 * 2**20
    frames: Count = 100_000
    pending_rounds: Count = 2
    devices: Count = 1000
    messages_per_s: Annotated[Positive, LATER] = 100.0
    greetings_per_s: Annotated[Positive, LATER] = 1.0
    disk_bytes: Annotated[Bytes | None, LATER] = None
    handshakes: Annotated[Count, LATER] = 256
    handshakes_per_address: Annotated[Count, LATER] = 128
    job_memory: Annotated[Bytes | None, LATER] = None
    job_s: Annotated[Positive, LATER] = 3600.0


class DomainConfig(Section):
    """What a device sees for a while (see data/stream.py): the shift of its camera, class
    weights by name (1 for those not named), and where it sees other ``frames`` than those of
    ``data``, their folder."""

    kind: Kind = "none"
    severity: Annotated[int, Field(ge=1, le=5)] = 3
    class_weights: dict[str, NonNegative] = {}
    frames: Annotated[FramesConfig | None, LATER] = None


class SegmentConfig(Section):
    """So many periods in one of the loop's ``domains``."""

    domain: str
    periods: Count
    change: Literal["sudden", "gradual"] = "sudden"


class Away(Section):
    """A ``device`` (from 0) that is switched off in the rounds ``first`` to ``last``."""

    device: Annotated[int, Field(ge=0)] = 0
    first: Count
    last: Count

    @model_validator(mode="after")
    def _in_order(self) -> Away:
        if self.last < self.first:
            raise ValueError(f"first {self.first} comes after last {self.last}")
        return self


class Loop(Section):
    """The closed loop (see lab/loop/loop.py). ``days``: one list of segments a device; all devices
    share ``bandwidth_hz`` (TDD: one direction at a time) and one edge that is busy ``edge_s`` with
    each update, on the virtual clock. ``lost``: rounds whose package never arrives. ``trace``
    (``endedge:traces/walk`` is shipped): the bandwidth follows its levels, period by period, with
    ``bandwidth_hz`` as its mean; it repeats after its end."""

    bandwidth_hz: Hertz
    deadline_s: Seconds | None = None  # the last package is there by then; None: the period
    edge_s: NonNegative = 5.0
    latency_s: NonNegative = 0.03  # each way
    domains: dict[str, DomainConfig]
    days: tuple[tuple[SegmentConfig, ...], ...]
    frames_per_period: Count = 24  # captured; the most that can be uploaded in a round
    eval_frames: Count = 100  # of each domain: the results
    monitor_frames: Count = 100  # of each domain, others: what the adaptive policy may see
    select: str = "random"  # rule of end/selection.py
    redact: tuple[str, ...] = ("person",)  # classes blurred by policies that end in +redacted
    policies: tuple[str, ...] = ("adaptive", "equal", "data-only", "model-only", "no-update")
    prior: File | None = None  # results folder of an earlier `endedge run`, for the adaptive policy
    lost: tuple[Count, ...] = ()
    trace: Annotated[File | None, LATER] = None  # a Mahimahi file: how the bandwidth varies
    away: Annotated[tuple[Away, ...], LATER] = ()

    @model_validator(mode="after")
    def _known(self) -> Loop:
        if not self.days or not self.policies or len(set(self.policies)) != len(self.policies):
            raise ValueError("days and policies list at least one each, no policy twice")
        for segment in (s for day in self.days for s in day):
            if segment.domain not in self.domains:
                raise ValueError(
                    f"a day visits {segment.domain!r}; domains has {', '.join(self.domains)}"
                )
        for away in self.away:
            if away.device >= len(self.days):
                raise ValueError(
                    f"away names device {away.device}; days has 0 to {len(self.days) - 1}"
                )
        if self.rounds < 1:
            raise ValueError(
                "a day lasts at least 2 periods: one is captured before the first round"
            )
        return self

    @property
    def rounds(self) -> int:
        """Rounds of the shortest day; the first period is only captured."""
        return min(sum(s.periods for s in day) for day in self.days) - 1
