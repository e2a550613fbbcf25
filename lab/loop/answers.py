"""What the edge remembers from round to round: its answers, as nodes of a store.

An answer that is asked for again, after a crash say, is the same answer. How one is made is
told in :class:`endedge.edge.edge.EdgeEnd`.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from endedge.data.codec import EncodedFrame, pack_batch, unpack_batch
from endedge.data.errors import BadInput
from endedge.data.frames import Batch, join
from endedge.distill.model import DetectionModel, load_detector, model_hash, save_detector
from endedge.edge import choosing
from endedge.edge import labels as edge_labels
from endedge.edge.adapt import Upload
from endedge.edge.edge import EdgeEnd
from endedge.edge.evidence import FIRST_ROUND, MOST_JUDGED, Prior
from endedge.edge.recall import Kept
from endedge.lab.config import named
from endedge.lab.inputs import CALIBRATION_FRAMES, Inputs
from endedge.lab.loop.day import evaluation_sets
from endedge.lab.store import Node, Store

__all__ = ["HELD_BACK", "Answers", "keeping", "round_seed"]

HELD_BACK = "the held-back frames show no improvement"  # why no update is sent
VERSION = 1  # of what an answer computes; raise it when that changes


def round_seed(seed: int, round_index: int) -> int:
    """What the trainings of a round draw from."""
    return 1000 * seed + round_index


class Answers:
    """The edge's answers, kept in ``store``; ``seed`` is that of the experiment."""

    def __init__(self, inputs: Inputs, store: Store, seed: int) -> None:
        self.inputs, self.store, self.seed = inputs, store, seed
        self._annotated = {f.image_id: f for f in inputs.seen[0].frames}
        able = [line for line in inputs.plan.menu if line not in inputs.plan.barred]
        whole = tuple(line for line in able if line.keep == 1)  # else cut each round
        if not whole:
            raise BadInput(
                f"end.max_latency_s {inputs.config.end.max_latency_s:g} s: no unpruned student is "
                "fast enough, and a loop sends no other"
            )
        self._plan = replace(inputs.plan, menu=whole, barred=(), labels=inputs.config.edge.labels)

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
        kept: Sequence[Node] = (),
    ) -> Node:
        """The answer to ``batch`` as a node: ``update.eeu`` and ``student.safetensors`` (what
        the device holds once it has applied it) if the record says ``sent``, else ``reason``.

        ``base``: the answer that the device runs, as far as the edge knows; None: the model it
        came with; not ``certain``: a full package is made if one fits. ``past``: the answers
        before, oldest first; the teacher goes on from the last, frames are replayed from all.
        ``kept``: answers whose models the device still has (where the configuration lets it keep
        any); it always has the one it came with.
        """
        config = self.inputs.config
        determinants = {
            "version": VERSION,
            "weights": self.inputs.hashes,
            "device": self.inputs.kind,
            "side": self.inputs.side,
            "id": device_id,
            "round": round_index,
            "seed": self.seed,
            "batch": hashlib.sha256(batch).hexdigest(),
            "budget": budget_bytes,
            "base": base.key if base else None,
            "certain": certain,
            "past": [n.key for n in past],
            "edge": named(config.edge),
            "teacher": named(config.teacher),
            "student": named(config.student),
            "gains": named(config.distillation),
            "held_back": named(config.held_back),
            "mode": config.downlink.mode,
            **({"kept": [n.key for n in kept]} if config.end.models_bytes else {}),
            **self.inputs.arithmetic,
            **({} if not self._plan.chosen else {"adaptation": self._adaptation()}),
            **({} if not self.inputs.others else {"starts": self.inputs.start_hashes}),
            **({} if not self.inputs.others else {"menu": [str(x) for x in self._plan.menu]}),
        }

        def make(folder: Path) -> dict[str, Any]:
            began = time.perf_counter()
            teacher = (
                load_detector(past[-1].folder / "teacher.safetensors")
                if past
                else self.inputs.teacher
            )
            edge = EdgeEnd(
                self._plan, round_seed(self.seed, round_index), prior=_gained_before(past)
            )
            try:
                record = self._update(
                    folder, edge, teacher, base, batch, budget_bytes, certain, past, kept
                )
            except BadInput as error:
                save_detector(teacher, folder / "teacher.safetensors")
                record = {"sent": False, "reason": str(error), "frames": 0, "update_bytes": 0}
            return {**record, "round": round_index, "seconds": time.perf_counter() - began}

        return self.store.node("answer", determinants, make)

    def _adaptation(self) -> dict[str, Any]:
        return {**self.inputs.config.adaptation.model_dump(), "choosing": choosing.VERSION}

    def student_of(self, answer: Node | None) -> DetectionModel:
        """The model that a device holds after ``answer``; None: the one it came with."""
        if answer is None:
            return self.inputs.student
        return load_detector(answer.folder / "student.safetensors")

    def architecture_of(self, answer: Node | None) -> str:
        """The architecture of that model; answers that do not say it are of a menu of one."""
        first = self.inputs.config.weights.student[0]
        return first if answer is None else str(answer.record.get("student", first))

    def _update(
        self,
        folder: Path,
        edge: EdgeEnd,
        teacher: DetectionModel,
        base: Node | None,
        batch: bytes,
        budget_bytes: int,
        certain: bool,
        past: Sequence[Node],
        kept: Sequence[Node],
    ) -> dict[str, Any]:
        """The files and the record of an answer to a device that holds that of ``base``."""
        received, least = edge.receive(batch, self._annotated), self.inputs.config.edge.least_frames
        if len(received.frames) < least:
            raise BadInput(
                f"{len(received.frames)} usable frames ({len(received.refused)} refused); "
                f"an update needs {least}"
            )
        named = edge.label(teacher, received, lambda: self._threshold)
        (folder / "upload.batch").write_bytes(batch)
        (folder / "labels.npz").write_bytes(_labels_out(named))
        upload = edge.known(received, named, self._replay(edge, past))
        held, own = self.student_of(base), self.architecture_of(base)
        starts = {**self.inputs.starts, own: held}  # another architecture begins as it came
        update = edge.update(
            teacher,
            starts,
            upload,
            budget_bytes,
            base=held,
            certain=certain,
            kept=self._kept(base, kept) if certain else (),
        )
        learned = update.teacher.losses[update.teacher.share] < update.teacher.losses[0.0]
        save_detector(update.teacher.model if learned else teacher, folder / "teacher.safetensors")
        save_detector(update.decoded, folder / "student.safetensors")
        (folder / "update.eeu").write_bytes(update.packed.data)
        right = edge_labels.quality(named, received.frames)
        return {
            "sent": update.helps,
            "frames": len(received.frames),
            "refused": len(received.refused),
            "trained": len(upload.trained),
            "reason": "" if update.helps else HELD_BACK,
            "update_bytes": len(update.packed.data),
            "model": model_hash(update.decoded),
            "base": model_hash(held),
            "mode": update.packed.report.mode,
            "student": update.line.architecture,
            "recalled": update.recalled,
            "loss_before": update.verdict.before,
            "loss_after": update.verdict.after,
            "loss_error": update.verdict.error,
            "teacher_learned": learned,
            **({} if update.evidence is None else {"gain": update.evidence.gain}),
            **{f"label_{k}": v for k, v in asdict(right).items()},
        }

    def heard(self, answer: Node, models: Sequence[Node | None]) -> Node | None:
        """The loss of each uploaded frame of ``answer`` under each of ``models`` (None: the one
        that the device came with), as a node; None where the upload was too small to be labelled.
        """
        if not (answer.folder / "upload.batch").is_file():
            return None
        able = [node for node in models if node is None or "model" in node.record]

        def make(folder: Path) -> dict[str, Any]:
            edge = EdgeEnd(self._plan, round_seed(self.seed, int(answer.record["round"])))
            received = edge.receive((answer.folder / "upload.batch").read_bytes(), self._annotated)
            frames = edge_labels.apply_labels(
                received.pictures, _labels_in(answer.folder / "labels.npz")
            )
            judges = frames.take(range(min(len(frames), MOST_JUDGED)))
            losses = {
                self._model_of(node): edge.losses(
                    self.student_of(node), Upload(judges, judges)
                ).tolist()
                for node in able
            }
            return {"losses": losses}

        what = {"answer": answer.key, "models": [None if n is None else n.key for n in able]}
        return self.store.node("heard", what, make)

    def _kept(self, base: Node | None, kept: Sequence[Node]) -> list[Kept]:
        """What a device that runs ``base`` has beside it."""
        if not self.inputs.config.end.models_bytes:
            return []
        runs = self._model_of(base)  # maybe one that it went back to, kept under another round
        others = {self._model_of(node): node for node in (None, *kept)}
        return [
            Kept(self.student_of(node), self.architecture_of(node))
            for model, node in others.items()
            if model != runs
        ]

    def _model_of(self, answer: Node | None) -> str:
        """The hash of the model that a device holds after ``answer``."""
        return model_hash(self.inputs.student) if answer is None else str(answer.record["model"])

    @cached_property
    def _threshold(self) -> float:
        """Calibrated before the first round, on annotated frames without the device's shift."""
        looped = self.inputs.config.loop is not None
        labelled = evaluation_sets(self.inputs)[1] if looped else self.inputs.evaluation
        first = [i for i, frame in enumerate(labelled.frames) if not frame.source]
        labelled = labelled.take(first[:CALIBRATION_FRAMES])
        return self.inputs.calibrated(labelled)

    def _replay(self, edge: EdgeEnd, past: Sequence[Node]) -> Batch | None:
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
        most = self.inputs.config.edge.replay_frames
        order = np.random.default_rng([edge.seed, 0x4E91A7]).permutation(len(blobs))[:most]
        if not len(order):
            return None
        parts = []
        for i in order:
            frame, entry = blobs[i]
            pictures = edge.receive(pack_batch([frame]), self._annotated).pictures
            parts.append(edge_labels.apply_labels(pictures, [entry]))
        return join(parts)


def keeping(kept: Sequence[Node], running: Node | None, fresh: Node, room_bytes: int) -> list[Node]:
    """Those of the answers ``kept`` (oldest first) and the one ``running`` until now whose models
    a device still has once it runs ``fresh``: as :class:`endedge.end.client.apply.ModelStore`
    keeps their files."""
    before = [n for n in kept if n != running] + ([running] if running is not None else [])
    left, stay = room_bytes - _size_of(fresh), list[Node]()
    for node in reversed([n for n in before if n.record["model"] != fresh.record["model"]]):
        left -= _size_of(node)
        if left < 0:
            break
        stay.append(node)
    return stay[::-1]


def _size_of(answer: Node) -> int:
    return (answer.folder / "student.safetensors").stat().st_size


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


def _gained_before(past: Sequence[Node]) -> Prior:
    """What the answers before, oldest first, gained where the frames chose them."""
    prior = FIRST_ROUND
    for node in past:
        if "gain" in node.record:
            prior = prior.after(node.record["gain"])
    return prior
