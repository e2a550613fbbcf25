"""Configuration files: every field with its unit, unknown keys refused."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)

from endedge.allocator.problem import Link as AllocatorLink
from endedge.configs import SHIPPED
from endedge.data.annotations import read_text
from endedge.data.codec import Codec
from endedge.data.errors import BadInput
from endedge.data.groups import LEAST_FRAMES
from endedge.data.shift import Kind
from endedge.data.storage import at_home
from endedge.data.units import parse_quantity
from endedge.distill.loss import Loss, chosen
from endedge.distill.objectives import Responses
from endedge.distill.recipe import Recipe
from endedge.lab.strict_yaml import read_yaml

__all__ = ["DEVICES", "LATER", "Config", "load_config", "loop_of", "named"]

DEVICES = r"^(auto|cpu|cuda(:\d+)?)$"

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _quantity(unit: str, kind: type) -> BeforeValidator:
    """Let people write ``1.1 MB`` where a plain number in ``unit`` is meant."""
    return BeforeValidator(lambda v: kind(parse_quantity(v, unit)) if isinstance(v, str) else v)


Bytes = Annotated[Count, _quantity("B", int)]
Storage = Annotated[int, Field(ge=0), _quantity("B", int)]
Params = Annotated[Count, _quantity("", int)]
Hertz = Annotated[Positive, _quantity("Hz", float)]
Seconds = Annotated[Positive, _quantity("s", float)]
Precision = Literal["auto", "fp32", "tf32", "bf16"]
LabelledBy = Literal["truth", "teacher", "mixed"]
File = Annotated[str, AfterValidator(at_home)]  # ~ is the user's home
# One file or several; one alone is written as before there were several.
Students = Annotated[
    tuple[File, ...],
    BeforeValidator(lambda v: (v,) if isinstance(v, str) else v),
    PlainSerializer(lambda v: v[0] if len(v) == 1 else list(v)),
]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


# Marks a key that came when there were results already. See :func:`named`.
LATER = "later"

_BYTES_OF_A_PARAMETER = 4  # at most: as a 32-bit float, the way it is trained


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def named(section: BaseModel) -> dict[str, Any]:
    """A section as results are named by it: a key that came :data:`LATER` counts only where it
    says something else than its default, so older results keep their names."""
    whole = section.model_dump(mode="json")
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if LATER in field.metadata and value == field.get_default(call_default_factory=True):
            del whole[key]
        elif isinstance(value, _Section):
            whole[key] = named(value)
    return whole


class Camera(_Section):
    """The device's camera: a domain shift of the frames (see data/shift.py)."""

    kind: Kind = "none"
    severity: Annotated[int, Field(ge=1, le=5)] = 3
    seed: Annotated[int, Field(ge=0)] = 0


class Data(_Section):
    """Frames. ``coco``: a folder with COCO annotations and images, relative to ``root`` (of a
    folder that `endedge import` made: that folder).
    ``generated``: scenes made on the spot (domain ``field``), ``pool`` and ``eval`` counts."""

    source: Literal["coco", "generated"] = "coco"
    root: File = "."
    pool_annotations: str = "annotations/instances_pool.json"
    pool_images: str = "images/pool"
    eval_annotations: str = "annotations/instances_eval.json"
    eval_images: str = "images/eval"
    # Who drew the boxes, as the annotations say it: a detector's own measure agreement with it.
    pool_labels: Annotated[LabelledBy, LATER] = "truth"
    eval_labels: Annotated[LabelledBy, LATER] = "truth"
    pool_frames: Count | None = None  # the first so many; None: all (generated: 256)
    eval_frames: Count | None = None
    image_side: Annotated[int, Field(ge=32, multiple_of=32)] = 320  # px, square
    camera: Camera = Camera()
    seed: Annotated[int, Field(ge=0)] = 0  # of generated frames


class Weights(_Section):
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


class Training(_Section):
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


class HeldBack(_Section):
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


class Adaptation(_Section):
    """How the student adapts. ``fixed``: as ``student`` says, judged by the slice of ``held_back``.
    ``chosen``: the input adapter, the layers, the rate, the statistics and the share of the way are
    chosen by the uploaded frames, all of which judge in turn (see edge/choosing.py); of ``student``
    the steps, epochs, batch and ema are used. An update is sent if its gain is more than ``sure``
    standard errors."""

    policy: Literal["fixed", "chosen"] = "fixed"
    sure: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0


class Uplink(_Section):
    """Upload sizes (frames) of the grid, the codec's operating points (``jpeg-q75-320``)."""

    frames: tuple[Annotated[int, Field(ge=2)], ...]  # one to learn from, one to judge by
    codecs: tuple[str, ...] = ("jpeg-q75-320",)

    @field_validator("codecs")
    @classmethod
    def _readable(cls, codecs: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(Codec.parse(c)) for c in codecs)


class Downlink(_Section):
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


class Link(_Section):
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

    def at(self, bandwidth_hz: float) -> AllocatorLink:
        """This link with a bandwidth, as the allocator takes it."""
        return AllocatorLink(
            bandwidth_hz, self.period_s, self.up_bit_per_s_per_hz, self.down_bit_per_s_per_hz
        )


class Benchmark(_Section):
    """How the decisions of policies are executed. ``measured``: the device takes the largest
    measured upload and package within them. ``exact``: they are trained, packed and evaluated as
    decided, rounded down to a ladder of sizes, each ``step`` times the one before."""

    execute: Literal["measured", "exact"] = "measured"
    step: Annotated[float, Field(gt=1, le=4, allow_inf_nan=False)] = 1.1
    studies: bool = True  # held-out cells and injected errors (lab/benchmark/robustness.py)
    error_draws: Count = 20  # wrong curves for each size of error


class Edge(_Section):
    """How the edge answers: whose labels (``truth``, ``pseudo``, or ``mix-N`` boxes drawn of an
    upload; see edge/labels.py). Round after round, in `loop` and `serve`: ``replay_frames`` of
    earlier rounds beside each upload, ``memory_rounds`` whose frames and models are kept for
    each device."""

    labels: Annotated[str, Field(pattern=r"^(truth|pseudo|mix-[0-9]+)$")] = "truth"
    replay_frames: Annotated[int, Field(ge=0)] = 64
    memory_rounds: Count = 8
    least_frames: Annotated[int, Field(ge=4)] = 4  # fewer teach nothing: no update


class End(_Section):
    """What the device can take: seconds a frame, above which a student is not sent
    (``max_latency_s``, as `endedge latency` measures it on this machine); bytes of storage for
    models, in `loop` and `serve` (``models_bytes``): the last ones stay as long as they and the one
    in use fit, and the edge may name them (0: only the one in use)."""

    max_latency_s: Annotated[Seconds | None, LATER] = None
    models_bytes: Annotated[Storage, LATER] = 0


class Serve(_Section):
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


class Domain(_Section):
    """What a device sees for a while (see data/stream.py): the shift of its camera, and class
    weights by name (1 for those not named)."""

    kind: Kind = "none"
    severity: Annotated[int, Field(ge=1, le=5)] = 3
    class_weights: dict[str, NonNegative] = {}


class Segment(_Section):
    """So many periods in one of the loop's ``domains``."""

    domain: str
    periods: Count
    change: Literal["sudden", "gradual"] = "sudden"


class Loop(_Section):
    """The closed loop (see lab/loop/loop.py). ``days``: one list of segments a device; all devices
    share ``bandwidth_hz`` (TDD: one direction at a time) and one edge that is busy ``edge_s`` with
    each update, on the virtual clock. ``lost``: rounds whose package never arrives."""

    bandwidth_hz: Hertz
    deadline_s: Seconds | None = None  # the last package is there by then; None: the period
    edge_s: NonNegative = 5.0
    latency_s: NonNegative = 0.03  # each way
    domains: dict[str, Domain]
    days: tuple[tuple[Segment, ...], ...]
    frames_per_period: Count = 24  # captured; the most that can be uploaded in a round
    eval_frames: Count = 100  # of each domain: the results
    monitor_frames: Count = 100  # of each domain, others: what the adaptive policy may see
    select: str = "random"  # rule of end/selection.py
    redact: tuple[str, ...] = ("person",)  # classes blurred by policies that end in +redacted
    policies: tuple[str, ...] = ("adaptive", "equal", "data-only", "model-only", "no-update")
    prior: File | None = None  # results folder of an earlier `endedge run`, for the adaptive policy
    half_life_rounds: Positive = 4.0  # of an observed round in the adaptive policy's fit
    lost: tuple[Count, ...] = ()

    @model_validator(mode="after")
    def _known(self) -> Loop:
        if not self.days or not self.policies or len(set(self.policies)) != len(self.policies):
            raise ValueError("days and policies list at least one each, no policy twice")
        for segment in (s for day in self.days for s in day):
            if segment.domain not in self.domains:
                raise ValueError(
                    f"a day visits {segment.domain!r}; domains has {', '.join(self.domains)}"
                )
        if self.rounds < 1:
            raise ValueError(
                "a day lasts at least 2 periods: one is captured before the first round"
            )
        return self

    @property
    def rounds(self) -> int:
        """Of the shortest day; the first period is only captured."""
        return min(sum(s.periods for s in day) for day in self.days) - 1


class Config(_Section):
    """One experiment."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    device: Annotated[str, Field(pattern=DEVICES)] = "auto"
    precision: Annotated[Precision, LATER] = "fp32"  # of trainings; auto: as is fast, once a folder
    log: Literal["none", "tensorboard", "mlflow"] = "none"  # losses of the trainings, in DIR/logs
    engine: Literal["auto", "here", "processes", "ray", "slurm"] = "auto"  # lab/sweep/executors.py
    workers: Count | Literal["auto"] = "auto"  # auto: one a core, or workers_per_gpu
    workers_per_gpu: Count = 1  # small trainings leave most of a GPU idle: several share it
    slurm: dict[str, str | int] = {}  # of submitit, e.g. {slurm_partition: gpu, timeout_min: 60}
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0,)
    data: Data
    weights: Weights
    uplink: Uplink
    teacher: Training
    student: Training
    distillation: Distillation = Responses()
    recovery: Training = Training(steps=100, epochs=10, lr=5e-5)  # of a pruned student
    held_back: HeldBack = HeldBack()
    adaptation: Annotated[Adaptation, LATER] = Adaptation()
    downlink: Downlink
    link: Link = Link()
    benchmark: Benchmark = Benchmark()
    scenarios: dict[str, tuple[Any, ...]] = {}  # keys of link, each with values to try instead
    edge: Edge = Edge()
    end: Annotated[End, LATER] = End()
    serve: Serve = Serve()
    loop: Loop | None = None

    @model_validator(mode="after")
    def _scenarios_of_the_link(self) -> Config:
        for key, values in self.scenarios.items():
            if key not in Link.model_fields:
                known = ", ".join(Link.model_fields)
                raise ValueError(f"scenarios.{key} is not a key of link; those are {known}")
            for value in values:
                try:
                    self.link_with(key, value)
                except ValidationError as error:
                    wrong = error.errors()[0]["msg"]
                    raise ValueError(f"scenarios.{key}: {value!r}: {wrong}") from None
        return self

    @model_validator(mode="after")
    def _a_loop_stays_where_it_is(self) -> Config:
        domains = {} if self.loop is None else self.loop.domains
        kinds = {f"loop.domains.{name}": domain.kind for name, domain in domains.items()}
        if self.loop is not None:
            kinds["data.camera"] = self.data.camera.kind
        for where, kind in kinds.items():
            if kind == "viewpoint":
                raise ValueError(
                    f"{where}: viewpoint moves the boxes, which a loop takes from the files; it is "
                    "for run, eval and serve"
                )
        return self

    def link_with(self, key: str, value: Any) -> Link:
        """The link with one key changed."""
        return Link.model_validate({**self.link.model_dump(), key: value})

    @model_validator(mode="after")
    def _a_delta_is_of_one(self) -> Config:
        if len(self.weights.student) > 1 and self.downlink.mode == "delta":
            raise ValueError(
                "downlink.mode: a delta carries no other architecture, and weights.student lists "
                f"{len(self.weights.student)}; use mode full or auto"
            )
        return self

    @model_validator(mode="after")
    def _can_be_judged(self) -> Config:
        fewest = min(self.uplink.frames, default=LEAST_FRAMES)
        if self.adaptation.policy == "chosen" and fewest < LEAST_FRAMES:
            raise ValueError(
                f"uplink.frames: {fewest} frames cannot choose an adaptation (adaptation.policy "
                f"is chosen) and nothing learned from them would be sent; at least {LEAST_FRAMES}"
            )
        return self

    @property
    def fewest_frames(self) -> int:
        """Uploaded frames below which no update is ever sent, as the policy of adaptation has it;
        0 where none ever is."""
        chosen = self.adaptation.policy == "chosen"
        return LEAST_FRAMES if chosen else self.held_back.fewest_frames

    @model_validator(mode="after")
    def _no_repeats(self) -> Config:
        grids: dict[str, Sequence[Any]] = {
            "seeds": self.seeds,
            "uplink.frames": self.uplink.frames,
            "uplink.codecs": self.uplink.codecs,
            "downlink.budgets_bytes with 4 B x budgets_params": self.downlink.budgets,
        }
        for name, values in grids.items():
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{name} must list at least one value, none of them twice")
        return self

    def to_yaml(self) -> str:
        """The resolved configuration, as ``config.yaml`` of a results folder holds it."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def loop_of(config: Config) -> Loop:
    """The loop's section, or :class:`BadInput`."""
    if config.loop is None:
        raise BadInput("the configuration has no 'loop' section; see configs/demo-loop.yaml")
    return config.loop


def load_config(where: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file (or one shipped by name: ``demo``) and apply ``key=value`` overrides.

    Raises :class:`BadInput` with the key and what would be right for anything unknown or out
    of range.
    """
    text, name = _read(Path(where))
    document = read_yaml(text, name)
    if not isinstance(document, dict):
        raise BadInput(f"{name} holds a {type(document).__name__}; a configuration is a mapping")
    if (Path(where) / "annotations").is_dir() and isinstance(document.get("data", {}), dict):
        document.setdefault("data", {}).setdefault("root", str(where))  # an imported folder
    for override in overrides:
        _apply(document, override)
    try:
        return Config.model_validate(document)
    except ValidationError as error:
        raise BadInput(f"{name}: {_first(error)}") from None


def _read(path: Path) -> tuple[str, str]:
    shipped = SHIPPED / f"{path.name.removesuffix('.yaml')}.yaml"
    try:
        if (path / "config.yaml").is_file():
            path = path / "config.yaml"
        if path.is_file():
            if path.stat().st_size > 2**20:
                raise BadInput(f"{path} is larger than 1 MiB; not a configuration")
            return read_text(path), str(path)
        if len(path.parts) == 1 and shipped.is_file():
            return shipped.read_text(encoding="utf-8"), path.name
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {path}: {error}") from None
    raise BadInput(f"configuration not found: {path}; give a YAML file or a shipped name ('demo')")


def _apply(document: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise BadInput(f"override {override!r} is not key=value, e.g. data.root=/my/coco")
    *parents, last = key.split(".")
    at = document
    for parent in parents:
        at = at.setdefault(parent, {})
        if not isinstance(at, dict):
            raise BadInput(f"override {override!r}: {parent} is not a section")
    at[last] = read_yaml(value, f"override {override!r}: the value")


def _first(error: ValidationError) -> str:
    """The first complaint as one line, with a suggestion for a mistyped key."""
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = sorted(_keys(Config))
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known[:12])}, …"
        return f"unknown key {key!r}{hint}"
    given = "" if problem["type"] == "missing" else f" (given: {str(problem['input'])[:60]!r})"
    return f"{key or 'configuration'}: {problem['msg']}{given}"


def _keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        found.append(prefix + name)
        optional = get_origin(field.annotation) is UnionType
        for kind in get_args(field.annotation) if optional else (field.annotation,):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found += _keys(kind, f"{prefix}{name}.")
    return found
