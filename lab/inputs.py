"""The inputs of one experiment: its frames, its cameras, its detectors before adaptation."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from endedge.configs import file_of
from endedge.data.classes import match_classes, same_classes
from endedge.data.coco import (
    Dataset,
    fingerprint,
    nested_subset,
)
from endedge.data.codec import MAX_PIXELS, Codec, encoded_size
from endedge.data.download import fetch_weights
from endedge.data.errors import BadInput
from endedge.data.frames import Batch, stack_frames
from endedge.data.shift import Shift
from endedge.data.storage import cache_folder, sha256_of
from endedge.data.stream import Captured
from endedge.distill.graphs import check_graphs
from endedge.distill.model import DetectionModel, load_detector, model_hash
from endedge.distill.precision import check_precision
from endedge.edge import labels as edge_labels
from endedge.edge.menu import Menu, fast_enough, seconds_of
from endedge.edge.plan import Plan, Student, with_shallow
from endedge.end.inference import detect
from endedge.lab.config import Config
from endedge.lab.config.sections import DomainConfig
from endedge.lab.devices import device_of, kind_of_device
from endedge.lab.frames import frames_of, with_own_frames
from endedge.lab.store import Store

_log = logging.getLogger("endedge")
CALIBRATION_FRAMES = 64  # annotated, on which the threshold of pseudo-labels is calibrated
_LATENCY_VERSION = 1  # of how students are timed; raise it when that changes

__all__ = ["CALIBRATION_FRAMES", "Inputs", "check_side", "find_weights"]


@dataclass(frozen=True, eq=False)
class Inputs:
    """Everything that is given before the first measurement. Frames are read lazily."""

    config: Config
    pool: Dataset
    evaluation: Dataset
    teacher: DetectionModel
    student: DetectionModel
    device: str
    folder: Path
    others: tuple[DetectionModel, ...] = ()  # students that the device does not hold at first

    @classmethod
    def of(cls, config: Config, folder: Path) -> Inputs:
        """Load and check all inputs; generated frames are made inside ``folder``.

        Classes are matched by name and numbered as the student has them. Raises
        :class:`BadInput` for missing or broken frames and weights, for detectors whose classes
        are not those of the frames, for a side of the input that their strides do not allow,
        for an evaluation without boxes, and for uploads larger than the pool.
        """
        pool, evaluation = frames_of(config.data, folder)
        weights = config.weights
        teacher = load_detector(find_weights(weights.teacher, weights.root))
        student, *others = (load_detector(find_weights(s, weights.root)) for s in weights.student)
        names = tuple(student.names.values())
        named = "weights.student" + f" {weights.student[0]}" * bool(others)
        _comparable(teacher, "weights.teacher", student, named)
        for name, other in zip(weights.student[1:], others, strict=True):
            _comparable(other, f"weights.student {name}", student, named)
        pool = match_classes(
            pool, names, what=config.data.pool_annotations, detector="weights.student"
        )
        evaluation = match_classes(
            evaluation, names, what=config.data.eval_annotations, detector="weights.student"
        )
        device = device_of(config, folder)
        if config.precision != "auto":
            check_precision(config.precision, kind_of_device(device))
        if config.cuda_graphs:
            check_graphs(kind_of_device(device))
        for role, model in (("teacher", teacher), *(("student", s) for s in (student, *others))):
            check_side(model, config.data.image_side, "data.image_side", f"weights.{role}")
        for codec in map(Codec.parse, config.uplink.codecs):
            _check_codec(pool, codec)
        if max(config.uplink.frames) > len(pool):
            raise BadInput(
                f"uplink.frames asks for {max(config.uplink.frames)} frames, "
                f"the pool has {len(pool)}"
            )
        camera = _camera(config)
        pool, evaluation = camera.annotated(pool), camera.annotated(evaluation)
        return cls(config, pool, evaluation, teacher, student, device, folder, tuple(others))

    @cached_property
    def hashes(self) -> dict[str, str]:
        """What the inputs are, for the names of results."""
        own = any(domain.frames for domain in self._domains.values())
        return {
            "pool": fingerprint(self.pool),
            "evaluation": fingerprint(self.evaluation),
            "teacher": model_hash(self.teacher),
            "student": model_hash(self.student),
            **({"places": "+".join(map(fingerprint, self.seen))} if own else {}),
        }

    @property
    def _domains(self) -> Mapping[str, DomainConfig]:
        return {} if self.config.loop is None else self.config.loop.domains

    @cached_property
    def seen(self) -> tuple[Dataset, Dataset]:
        """``pool`` and ``evaluation``, and after them the frames of the loop's domains that have
        their own. Raises :class:`BadInput` as :meth:`of` does."""
        return with_own_frames(self.pool, self.evaluation, self._domains)

    @property
    def precision(self) -> str:
        """The precision of trainings. Raises :class:`BadInput` where nobody has decided it yet."""
        if self.config.precision == "auto":
            raise BadInput(
                "precision is auto and not decided; 'endedge measure' does and writes it down, or "
                "say precision=fp32"
            )
        return self.config.precision

    @property
    def kind(self) -> str:
        """The kind of device, for the names of results: of several GPUs each gives the same."""
        return kind_of_device(self.device)

    @property
    def arithmetic(self) -> dict[str, str]:
        """The precision, for the names of results; nothing for what they had before it could be
        chosen: fp32, and bf16 on a GPU."""
        usual = "fp32" if self.kind == "cpu" else "bf16"
        return {} if self.precision == usual else {"precision": self.precision}

    @property
    def side(self) -> int:
        """Side of the detector's square input in px."""
        return self.config.data.image_side

    @cached_property
    def camera(self) -> Shift:
        """The device's camera; the boxes of ``pool`` and ``evaluation`` are where it sees them."""
        return _camera(self.config)

    @cached_property
    def evaluation_batch(self) -> Batch:
        """Evaluation frames as the device's detector sees them: its camera, no codec."""
        side = self.side
        return stack_frames(
            self.evaluation.frames,
            side,
            lambda f: self.camera.apply(f.read(), f.image_id),
        )

    def captured(self, seed: int) -> tuple[Captured, ...]:
        """The device's frames in the order in which it would upload them (nested subsets), one a
        second."""
        frames = self.pool.take(nested_subset(len(self.pool), seed)).frames
        return tuple(Captured(f, float(i), self.camera) for i, f in enumerate(frames))

    @cached_property
    def starts(self) -> dict[str, DetectionModel]:
        """The students before any training, by the architectures of the plan's menu."""
        return dict(zip(self.config.weights.student, (self.student, *self.others), strict=True))

    @cached_property
    def start_hashes(self) -> dict[str, str]:
        """What :attr:`starts` are."""
        return {name: model_hash(model) for name, model in self.starts.items()}

    def unshifted(self, dataset: Dataset) -> Batch:
        """Frames of ``pool`` or ``evaluation`` as a camera would see them that changes no tone and
        stands where the device's does."""
        camera = self.camera if self.camera.moves else Shift()
        return stack_frames(dataset.frames, self.side, lambda f: camera.apply(f.read(), f.image_id))

    @cached_property
    def menu(self) -> Menu:
        """The students, without those that take more than ``end.max_latency_s`` a frame. That is
        measured once and kept in the folder: what is left out must not change when the work goes
        on."""
        keeps = sorted(self.config.downlink.keep, key=lambda keep: keep < 1)
        lines = tuple(Student(name, keep) for name in self.starts for keep in keeps)
        if (most_s := self.config.end.max_latency_s) is None:
            return Menu(lines)

        def make(_: Path) -> dict[str, Any]:
            took = [seconds_of(line, self.starts[line.architecture], self.side) for line in lines]
            slow = [f"{x} ({s:.3g} s)" for x, s in zip(lines, took, strict=True) if s > most_s]
            if slow:
                _log.warning(
                    "note: left out, as a frame takes longer than end.max_latency_s = %g s: %s",
                    most_s,
                    ", ".join(slow),
                )
            return {"latency_s": took}

        determinants = {
            "version": _LATENCY_VERSION,
            "weights": self.start_hashes,
            "keep": keeps,
            "side": self.side,
        }
        node = Store(self.folder).node("latency", determinants, make)
        return fast_enough(lines, node.record["latency_s"], most_s)

    @cached_property
    def threshold(self) -> float:
        """The score from which a detection of the large model as it came is taken for a label:
        calibrated on annotated frames of the pool without the camera's shift, those that the
        first seed uploads last."""
        order = nested_subset(len(self.pool), 0)
        return self.calibrated(self.pool.take(order[-CALIBRATION_FRAMES:]))

    def calibrated(self, known: Dataset) -> float:
        """The same, calibrated on the annotated frames ``known``."""
        found = detect(self.teacher, self.unshifted(known), device=self.device)
        return edge_labels.calibrate(found, known.frames).threshold

    @cached_property
    def plan(self) -> Plan:
        """How the edge answers an upload."""
        config, held = self.config, self.config.held_back
        chosen = config.adaptation.policy == "chosen"
        depths = with_shallow if chosen else tuple[Student, ...]
        return Plan(
            teacher=config.teacher,
            student=config.student,
            recovery=config.recovery,
            loss=config.distillation,
            menu=depths(self.menu.lines),
            barred=depths(self.menu.barred),
            held_share=held.share,
            held_most=held.most,
            shares=held.shares,
            least=held.least,
            labels=config.edge.labels,
            mode=config.downlink.mode,
            side=self.side,
            device=self.device,
            chosen=chosen,
            sure=config.adaptation.sure,
            precision=self.precision,
            cuda_graphs=self.config.cuda_graphs,
        )


def _camera(config: Config) -> Shift:
    camera = config.data.camera
    return Shift(camera.kind, camera.severity, camera.seed)


def _comparable(a: DetectionModel, what: str, b: DetectionModel, other: str) -> None:
    """Raises :class:`BadInput` unless ``b`` can learn from what ``a`` predicts, or beside it."""
    strides = [[round(x) for x in model.stride.tolist()] for model in (a, b)]
    if strides[0] != strides[1]:
        raise BadInput(
            f"{what} predicts at strides {strides[0]}, {other} at "
            f"{strides[1]}; distillation compares place by place, so they must be the same"
        )
    same_classes(tuple(a.names.values()), tuple(b.names.values()), what=what, other=other)


def _check_codec(pool: Dataset, codec: Codec) -> None:
    """The edge decodes no more than so many pixels a frame."""
    for frame in pool.frames:
        width, height = encoded_size(frame.width, frame.height, codec.long_side)
        if width * height > MAX_PIXELS:
            raise BadInput(
                f"uplink.codecs: {codec} sends {frame.path} as {width} x {height} px; the edge "
                f"decodes at most {MAX_PIXELS:,} pixels, give a shorter long side"
            )


def check_side(model: DetectionModel, side: int, option: str, detector: str) -> None:
    """Raises :class:`BadInput` for a side of the square input, in px, that ``detector`` cannot
    take: its coarsest feature map has one cell for each so many px."""
    stride = int(model.stride.max())
    if side % stride:
        down, up = side // stride * stride, (side // stride + 1) * stride
        raise BadInput(
            f"{option} {side} px: {detector} takes multiples of {stride}; give "
            f"{f'{down} or {up}' if down else up}"
        )


def find_weights(name: str, root: str | None) -> Path:
    """The file behind ``name``: a path, a file in ``root``, one shipped with the package
    (``endedge:demo/student.safetensors``), or an Ultralytics release that is downloaded once.

    Raises :class:`BadInput` that names the places looked at and where to put the file.
    """
    if name.startswith("endedge:"):
        shipped = file_of(name)
        if not shipped.is_file():
            raise BadInput(f"weights not found: the package ships no {name}")
        return shipped
    cache = cache_folder() / name
    for place in [Path(name), *([Path(root) / name] if root else [])]:
        if place.is_file():
            return place
    if cache.is_file():
        return fetch_weights(name, cache)[0]  # not asked for again, only compared
    put = Path(root) / name if root else cache
    if root and not Path(root).is_dir():
        raise BadInput(f"weights.root is not a folder: {root} (looking for {name})")
    if Path(name).name != name or not name.startswith("yolo") or not name.endswith(".pt"):
        raise BadInput(f"weights not found: {name}; put the file at {put}, or give its path")
    try:
        file, checked = fetch_weights(name, cache, tries=2)
    except BadInput as error:
        raise BadInput(
            f"weights {name} are not here and cannot be downloaded ({error}); get the file on a "
            f"machine with internet and put it at {put}"
        ) from None
    if not checked:
        warnings.warn(
            f"{name}: no checksum of this file is known here, so it is unchecked "
            f"(sha256:{sha256_of(file).hex()})",
            stacklevel=2,
        )
    return file
