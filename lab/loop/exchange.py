"""The two ends of a round, the same whether sockets or a virtual clock lie between them.

The device's end captures its day, chooses, redacts, encodes, and measures the model it runs.
The edge's end answers an upload: labels, teacher with replay, student, package. What it has to
remember from round to round are nodes of a store, so an answer that is asked for again after a
crash is the same answer.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from endedge.data.coco import Dataset, Frame
from endedge.data.codec import Codec, EncodedFrame, Refused, decode_batch, pack_batch, unpack_batch
from endedge.data.errors import BadInput
from endedge.data.frames import Batch, join, stack_frames
from endedge.data.shift import Shift
from endedge.data.stream import Domain, Period, Segment, Stream, hold_out
from endedge.distill.model import DetectionModel, load_detector, model_hash, save_detector
from endedge.edge import labels as edge_labels
from endedge.edge.adapt import split_upload
from endedge.edge.update import Plan, make_update
from endedge.end.capture import covered, encode_batch, redact
from endedge.end.inference import detect
from endedge.end.metric import evaluate
from endedge.end.selection import observe, select
from endedge.lab.config import Config, Loop
from endedge.lab.inputs import World
from endedge.lab.store import Node, Store

__all__ = ["DeviceEnd", "EdgeEnd", "Sent", "loop_of", "round_seed"]

VERSION = 1  # of what an answer computes; raise it when that changes
_CALIBRATION_FRAMES = 64
_MIN_SCORE = 0.1  # of a detection that is redacted: to blur too much costs less than too little


def loop_of(config: Config) -> Loop:
    """The loop's section, or :class:`BadInput`."""
    if config.loop is None:
        raise BadInput("the configuration has no 'loop' section; see configs/demo-loop.yaml")
    return config.loop


def round_seed(seed: int, round_index: int) -> int:
    """What the trainings of a round draw from."""
    return 1000 * seed + round_index


@dataclass(frozen=True)
class Sent:
    """One upload: the ``batch`` of ``frames`` frames; of the ``identifiable`` true boxes in
    them, ``exposed`` were not blurred (0, 0 where nothing is redacted)."""

    batch: bytes
    frames: int
    identifiable: int = 0
    exposed: int = 0


class DeviceEnd:
    """Device ``number`` of the loop, its day drawn from ``seed``.

    Raises :class:`BadInput` for days that the frames cannot fill and unknown classes.
    """

    def __init__(self, world: World, number: int, seed: int) -> None:
        self.world, self.number = world, number
        loop = loop_of(world.config)
        days = {
            n: Domain(n, Shift(d.kind, d.severity), d.class_weights)
            for n, d in loop.domains.items()
        }
        segments = [Segment(days[s.domain], s.periods, s.change) for s in loop.days[number]]
        period_s = world.config.link.period_s
        scored, monitored = evaluation_sets(world)

        def stream(evaluation: Dataset, eval_frames: int) -> Stream:
            return Stream(
                world.pool,
                evaluation,
                segments,
                period_s=period_s,
                capture_hz=loop.frames_per_period / period_s,
                eval_frames=eval_frames,
                seed=100 * seed + number,
            )

        self.stream = stream(scored, loop.eval_frames)
        self._monitor = stream(monitored, loop.monitor_frames)
        self._codec, self._rule = Codec.parse(world.config.uplink.codecs[0]), loop.select
        unknown = set(loop.redact) - set(world.pool.names)
        self._redacted = [world.pool.names.index(n) for n in loop.redact if n not in unknown]
        self._scores: dict[tuple[str, str, bool], float] = {}
        self._frames: dict[tuple[str, bool], Batch] = {}

    @property
    def periods(self) -> tuple[Period, ...]:
        return self.stream.periods

    def capture(
        self, period: int, model: DetectionModel, upload_bytes: float, *, redacted: bool = False
    ) -> Sent:
        """The frames of ``period`` that ``model``, on the device, chooses first and that fit into
        ``upload_bytes``."""
        seen = self.periods[period].captured
        shots = {c.frame.image_id: c.look() for c in seen}
        batch = self.stacked(period, shots)
        watched = observe(model, batch, [c.time_s for c in seen], device=self.world.device)
        order = [int(i) for i in select(self._rule, watched, self.stream.seed + period)]
        blurred = {}
        if redacted:
            if not self._redacted:
                raise BadInput("loop.redact names no class of these frames")
            for found in watched.detections:
                kept = (found.scores >= _MIN_SCORE) & np.isin(found.labels, self._redacted)
                blurred[found.image_id] = found.boxes[kept]
                shots[found.image_id] = redact(shots[found.image_id], found.boxes[kept])
        ordered = [seen[i].frame for i in order]
        sent, n = encode_batch(
            ((f.image_id, shots[f.image_id]) for f in ordered), self._codec, upload_bytes
        )
        if not redacted:
            return Sent(sent, n)
        truth = [(f.image_id, f.boxes[np.isin(f.labels, self._redacted)]) for f in ordered[:n]]
        total = sum(len(boxes) for _, boxes in truth)
        hidden = sum(covered(np.asarray(b, np.float64), blurred[i]) for i, b in truth)
        return Sent(sent, n, total, total - hidden)

    def stacked(self, period: int, shots: dict[int, Any] | None = None) -> Batch:
        """The captured frames of a period with their annotations, as the device sees them."""
        seen = self.periods[period].captured
        shots = shots or {c.frame.image_id: c.look() for c in seen}
        return stack_frames([c.frame for c in seen], self.world.side, lambda f: shots[f.image_id])

    @cached_property
    def frame_bytes(self) -> tuple[float, float]:
        """Mean and largest bytes of an encoded frame of the first period, framing included."""
        sizes = [
            len(encode_batch([(c.frame.image_id, c.look())], self._codec)[0])
            for c in self.periods[0].captured
        ]
        return float(np.mean(sizes)), float(max(sizes))

    def score(self, model: DetectionModel, domain: Domain, *, monitor: bool = False) -> float:
        """mAP50-95 on the frames that stand for ``domain``; ``monitor``: on others of it, which
        decisions may see."""
        key = (model_hash(model), domain.name, monitor)
        if key not in self._scores:
            truth = (self._monitor if monitor else self.stream).evaluation(domain)
            if key[1:] not in self._frames:
                self._frames[key[1:]] = stack_frames(
                    truth.frames,
                    self.world.side,
                    lambda f: domain.shift.apply(f.read(), f.image_id),
                )
            found = evaluate(model, self._frames[key[1:]], truth, self.world.device)
            self._scores[key] = found.map
        return self._scores[key]


def evaluation_sets(world: World) -> tuple[Dataset, Dataset]:
    """(frames for results, frames for decisions): the evaluation frames split in two, with ids
    that no captured frame has (generated sets count both from 1)."""
    loop = loop_of(world.config)
    above = max(f.image_id for f in world.pool.frames)
    moved = replace(
        world.evaluation,
        frames=tuple(replace(f, image_id=f.image_id + above) for f in world.evaluation.frames),
    )
    share = loop.monitor_frames / (loop.monitor_frames + loop.eval_frames)
    return hold_out(moved, max(1, round(share * len(moved))), seed=0)


class EdgeEnd:
    """The edge's answers, kept in ``store``; ``seed`` is that of the experiment."""

    def __init__(self, world: World, store: Store, seed: int) -> None:
        self.world, self.store, self.seed = world, store, seed
        self._annotated = {f.image_id: f for f in world.pool.frames}

    def answer(
        self,
        device_id: str,
        round_index: int,
        batch: bytes,
        budget_bytes: int,
        *,
        base: Node | None,
        certain: bool = True,
        past: Sequence[Node] = (),
    ) -> Node:
        """The answer to ``batch`` as a node: ``update.eeu`` and ``student.safetensors`` (what
        the device holds once it has applied it) if the record says ``sent``, else ``reason``.

        ``base``: the answer that the device runs, as far as the edge knows; None: the model it
        came with; not ``certain``: a full package is made if one fits. ``past``: the answers
        before, oldest first; the teacher goes on from the last, frames are replayed from all.
        """
        plan = self.world.config
        determinants = {
            "version": VERSION,
            "weights": self.world.hashes,
            "device": self.world.device,
            "side": self.world.side,
            "id": device_id,
            "round": round_index,
            "seed": self.seed,
            "batch": hashlib.sha256(batch).hexdigest(),
            "budget": budget_bytes,
            "base": base.key if base else None,
            "certain": certain,
            "past": [n.key for n in past],
            "edge": plan.edge.model_dump(),
            "teacher": plan.teacher.model_dump(),
            "student": plan.student.model_dump(),
            "gains": plan.distillation.model_dump(),
            "held_back": plan.held_back.model_dump(),
            "mode": plan.downlink.mode,
        }

        def make(folder: Path) -> dict[str, Any]:
            began = time.perf_counter()
            seed = round_seed(self.seed, round_index)
            teacher = self._teacher(past)
            try:
                found = self._update(
                    folder, teacher, batch, budget_bytes, base, certain, past, seed
                )
            except BadInput as error:
                save_detector(teacher, folder / "teacher.safetensors")
                found = {"sent": False, "reason": str(error), "frames": 0, "update_bytes": 0}
            return {**found, "round": round_index, "seconds": time.perf_counter() - began}

        return self.store.node("answer", determinants, make)

    def student_of(self, answer: Node | None) -> DetectionModel:
        """The model that a device holds after ``answer``; None: the one it came with."""
        if answer is None:
            return self.world.student
        return load_detector(answer.folder / "student.safetensors")

    def _teacher(self, past: Sequence[Node]) -> DetectionModel:
        return (
            load_detector(past[-1].folder / "teacher.safetensors") if past else self.world.teacher
        )

    def _update(
        self,
        folder: Path,
        teacher: DetectionModel,
        batch: bytes,
        budget_bytes: int,
        base: Node | None,
        certain: bool,
        past: Sequence[Node],
        seed: int,
    ) -> dict[str, Any]:
        config = self.world.config
        frames, decoded, refused = self.received(batch)
        if len(frames) < config.edge.least_frames:
            raise BadInput(
                f"{len(frames)} usable frames ({refused} refused); an update needs "
                f"{config.edge.least_frames}"
            )
        named = self._labels(teacher, frames, decoded)
        (folder / "upload.batch").write_bytes(batch)
        (folder / "labels.npz").write_bytes(_labels_out(named))
        known = split_upload(
            edge_labels.apply_labels(decoded, named), config.held_back.share, config.held_back.most
        )
        if (replayed := self._replay(past, seed)) is not None:
            known = replace(known, trained=join([known.trained, replayed]))
        n = len(known.trained)
        gains = config.distillation
        plan = Plan(
            config.teacher.recipe(n, seed),
            config.student.recipe(n, seed),
            (gains.label_gain, gains.score_gain, gains.box_gain),
            config.held_back.shares,
            config.held_back.least,
            config.downlink.mode,
            self.world.device,
        )
        held = self.student_of(base)
        update = make_update(
            plan, teacher, held, known, budget_bytes, base=held, certain=certain, seed=seed
        )
        learned = update.teacher.losses[update.teacher.share] < update.teacher.losses[0.0]
        save_detector(update.teacher.model if learned else teacher, folder / "teacher.safetensors")
        save_detector(update.decoded, folder / "student.safetensors")
        (folder / "update.eeu").write_bytes(update.packed.data)
        return {
            "sent": update.helps,
            "frames": len(frames),
            "refused": refused,
            "trained": n,
            "reason": "" if update.helps else "the held-back frames show no improvement",
            "update_bytes": len(update.packed.data),
            "model": model_hash(update.decoded),
            "base": model_hash(held),
            "mode": update.packed.report.mode,
            "loss_before": update.verdict.before,
            "loss_after": update.verdict.after,
            "loss_error": update.verdict.error,
            "teacher_learned": learned,
            **{f"label_{k}": v for k, v in asdict(edge_labels.quality(named, frames)).items()},
        }

    def received(self, batch: bytes) -> tuple[list[Frame], Batch, int]:
        """The usable frames of ``batch`` in order, decoded, and how many were refused."""
        frames: list[Frame] = []
        pictures: dict[int, Any] = {}
        refused = 0
        for item in decode_batch(batch):
            if isinstance(item, Refused) or item[0] not in self._annotated:
                refused += 1  # one bad frame does not cost the batch
                continue
            frames.append(self._annotated[item[0]])
            pictures[item[0]] = item[1]
        return (
            frames,
            stack_frames(frames, self.world.side, lambda f: pictures[f.image_id]),
            refused,
        )

    def _labels(
        self, teacher: DetectionModel, frames: Sequence[Frame], decoded: Batch
    ) -> list[edge_labels.Labels]:
        source = self.world.config.edge.labels
        if source == "truth":
            return edge_labels.truth_labels(frames)
        found = detect(teacher, decoded, device=self.world.device)
        pseudo = edge_labels.pseudo_labels(found, self._threshold)
        if source == "pseudo":
            return pseudo
        boxes = int(source.removeprefix("mix-"))
        return edge_labels.mixed_labels(frames, pseudo, range(len(frames)), boxes).labels

    @cached_property
    def _threshold(self) -> float:
        """Calibrated before the first round, on annotated frames without the device's shift."""
        looped = self.world.config.loop is not None
        known = evaluation_sets(self.world)[1] if looped else self.world.evaluation
        known = known.take(range(min(_CALIBRATION_FRAMES, len(known))))
        seen = stack_frames(known.frames, self.world.side, lambda f: f.read())
        found = detect(self.world.teacher, seen, device=self.world.device)
        return edge_labels.calibrate(found, known.frames).threshold

    def _replay(self, past: Sequence[Node], seed: int) -> Batch | None:
        """A uniform sample of the frames received before, with the labels that they got then."""
        blobs: list[tuple[EncodedFrame, edge_labels.Labels]] = []
        for node in past:
            if not (node.folder / "upload.batch").is_file():
                continue
            named = {entry.image_id: entry for entry in _labels_in(node.folder / "labels.npz")}
            frames = unpack_batch((node.folder / "upload.batch").read_bytes())
            blobs += [
                (f, named[f.image_id])
                for f in frames
                if isinstance(f, EncodedFrame) and f.image_id in named
            ]
        most = self.world.config.edge.replay_frames
        order = np.random.default_rng([seed, 0x4E91A7]).permutation(len(blobs))[:most]
        if not len(order):
            return None
        parts = []
        for i in order:
            frame, entry = blobs[i]
            _, decoded, _ = self.received(pack_batch([frame]))
            parts.append(edge_labels.apply_labels(decoded, [entry]))
        return join(parts)


def _labels_out(named: Sequence[edge_labels.Labels]) -> bytes:
    out = io.BytesIO()
    np.savez(
        out,
        image_id=[n.image_id for n in named],
        count=[len(n.labels) for n in named],
        boxes=np.concatenate([n.boxes for n in named]),
        labels=np.concatenate([n.labels for n in named]),
    )
    return out.getvalue()


def _labels_in(path: Path) -> list[edge_labels.Labels]:
    with np.load(path, allow_pickle=False) as kept:
        ends = np.cumsum(kept["count"])[:-1]
        rows = zip(
            kept["image_id"],
            np.split(kept["boxes"], ends),
            np.split(kept["labels"], ends),
            strict=True,
        )
        return [edge_labels.Labels(int(i), boxes, labels) for i, boxes, labels in rows]
