"""One cell of the surface: a whole round, from frames on the device to mAP on the device.

Each step is a node of the store, named by everything that determines it, so cells share
what they have in common: all budgets share one student, and a rerun does nothing again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from endedge.data.coco import Frame
from endedge.data.codec import Codec
from endedge.distill.model import DetectionModel, load_detector, save_detector
from endedge.distill.package.format import unpack
from endedge.distill.recovery import pruned_and_recovered
from endedge.edge.adapt import Upload, adapt_teacher, compare, distil_student, split_upload
from endedge.edge.update import CALIBRATION_FRAMES, pack_update
from endedge.end.metric import evaluate
from endedge.lab.inputs import World
from endedge.lab.store import Node, Store
from endedge.lab.sweep.examples import compared
from endedge.lab.sweep.loss_log import loss_log

__all__ = ["Cell", "Rounds"]

# Raise a stage's number when its code changes what it computes: older results are then not used.
VERSIONS = {
    "start": 1,
    "upload": 1,
    "teacher": 3,
    "student": 3,
    "pruned": 2,
    "package": 3,
    "verdict": 2,
    "cell": 1,
    "examples": 1,
}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Cell:
    """One point of the grid: ``frames`` uploaded in ``codec``, the model sent in at most
    ``budget_bytes``; ``seed`` draws frames and trainings."""

    seed: int
    frames: int
    codec: str
    budget_bytes: int

    def __str__(self) -> str:
        return f"{self.frames} frames, {self.budget_bytes:,} B, seed {self.seed}"


@dataclass
class Rounds:
    """Measures cells of ``world`` and keeps their parts in ``store``; ``say`` hears of progress."""

    world: World
    store: Store
    say: Say

    def measure(self, cell: Cell) -> dict[str, Any]:
        """Run (or look up) the round of ``cell`` and return its row of ``surface.csv``."""
        upload = self.upload(cell)  # end → data: the device encodes what fits
        teacher = self.teacher(cell, upload)  # edge: the large model learns the frames
        students = self.students(cell, upload, teacher)  # distill: the small one learns from it
        package = self.package(cell, upload, students)  # distill: chosen, quantized, coded
        sent = bool(self.verdict(cell, package).record["sent"])  # edge: by frames held back
        start = self.start()
        applied = self.applied(package, start)  # end: decoded on the device, evaluated
        on_device = applied if sent else start
        return {
            "cell": applied.key,
            **asdict(cell),
            "upload_bytes": upload.record["upload_bytes"],
            "update_bytes": package.record["update_bytes"],
            "params": package.record["params"],
            "bits": package.record["bits"],
            "prune": package.record["prune"],
            "mode": package.record["mode"],
            "map": on_device.record["map"],
            "map50": on_device.record["map50"],
            "m0": start.record["map"],
            "teacher_map": teacher.record["map"],
            "decoded_map": applied.record["map"],
            "seconds_teacher": teacher.record["seconds"],
            "seconds_student": sum(s.record["seconds"] for s in students),
            "seconds_pack": package.record["seconds"],
            "seconds_eval": applied.record["seconds"],
            "sent": int(sent),
        }

    def trunk(self, cell: Cell) -> list[Node]:
        """What all budgets of an upload share: the distilled students."""
        upload = self.upload(cell)
        return self.students(cell, upload, self.teacher(cell, upload))

    def received(self, cell: Cell) -> Upload:
        """What the edge trains on and holds back in the round of ``cell``."""
        return self._inbox(cell).upload

    def start(self) -> Node:
        """The device before any update, and the teacher before any frame."""
        world = self.world

        def make(folder: Path) -> dict[str, Any]:
            self.say("evaluate the detectors as they are")
            before = _scored(world, world.student)
            return {**before, "teacher_map": _scored(world, world.teacher)["map"]}

        camera = world.config.data.camera.model_dump()
        return self._node(
            "start", {"hashes": world.hashes, "camera": camera, "side": world.side}, make
        )

    def upload(self, cell: Cell) -> Node:
        """What the device sends: the exact bytes of its framed batch."""
        world = self.world

        def make(folder: Path) -> dict[str, Any]:
            self.say(f"encode {cell.frames} frames")
            sent = self._inbox(cell).sent
            return {"upload_bytes": len(sent), "sha256": hashlib.sha256(sent).hexdigest()}

        determinants = {
            "pool": world.hashes["pool"],
            "camera": world.config.data.camera.model_dump(),
            "seed": cell.seed,
            "frames": cell.frames,
            "codec": cell.codec,
        }
        return self._node("upload", determinants, make)

    def teacher(self, cell: Cell, upload: Node) -> Node:
        """The large model, fine-tuned on the decoded upload."""
        world, plan = self.world, self.world.config
        recipe = plan.teacher.recipe(cell.frames, cell.seed)

        def make(folder: Path) -> dict[str, Any]:
            began = time.perf_counter()
            adapted = adapt_teacher(
                world.teacher,
                self._inbox(cell).upload,
                recipe,
                plan.held_back.shares,
                device=world.device,
                on_step=self._steps("teacher", cell, recipe.steps),
            )
            seconds = time.perf_counter() - began
            save_detector(adapted.model, folder / "teacher.safetensors")
            self.say(f"evaluate the teacher of {cell.frames} frames")
            return {
                **_scored(world, adapted.model),
                "share": adapted.share,
                "seconds": seconds,
                "losses": {str(k): v for k, v in adapted.losses.items()},
                "steps": recipe.steps,
            }

        determinants = {
            "upload": upload.key,
            "weights": world.hashes["teacher"],
            "recipe": asdict(recipe),
            "held_back": plan.held_back.model_dump(exclude={"least"}),
            "side": world.side,
        }
        return self._node("teacher", determinants, make)

    def student(self, cell: Cell, upload: Node, teacher: Node) -> Node:
        """The small model, distilled from the adapted teacher."""
        world, plan = self.world, self.world.config
        recipe = plan.student.recipe(cell.frames, cell.seed)
        gains = plan.distillation

        def make(folder: Path) -> dict[str, Any]:
            began = time.perf_counter()
            adapted = distil_student(
                world.student,
                load_detector(teacher.folder / "teacher.safetensors"),
                self._inbox(cell).upload,
                recipe,
                plan.held_back.shares,
                gains=(gains.label_gain, gains.score_gain, gains.box_gain),
                device=world.device,
                on_step=self._steps("student", cell, recipe.steps),
            )
            save_detector(adapted.model, folder / "student.safetensors")
            return {
                "share": adapted.share,
                "losses": {str(k): v for k, v in adapted.losses.items()},
                "steps": recipe.steps,
                "seconds": time.perf_counter() - began,
            }

        determinants = {
            "teacher": teacher.key,
            "weights": world.hashes["student"],
            "recipe": asdict(recipe),
            "gains": gains.model_dump(),
            "held_back": plan.held_back.model_dump(exclude={"least"}),
        }
        return self._node("student", determinants, make)

    def students(self, cell: Cell, upload: Node, teacher: Node) -> list[Node]:
        """The distilled student, and those pruned from it to the shares of ``downlink.keep``."""
        whole = self.student(cell, upload, teacher)
        shares = [kept for kept in self.world.config.downlink.keep if kept < 1]
        return [whole, *(self.pruned(cell, whole, kept) for kept in shares)]

    def pruned(self, cell: Cell, student: Node, kept: float) -> Node:
        """The student with only the share ``kept`` of its parameters: cut by what the uploaded
        frames show, then taught by the whole one."""
        world, recipe = self.world, self.world.config.recovery.recipe(cell.frames, cell.seed)

        def make(folder: Path) -> dict[str, Any]:
            self.say(f"prune the student of {cell.frames} frames to {kept:.0%}")
            began = time.perf_counter()
            frames = self._inbox(cell).upload.trained
            small = pruned_and_recovered(
                load_detector(student.folder / "student.safetensors"),
                kept,
                frames,
                recipe,
                calibration=frames.images[:CALIBRATION_FRAMES],
                device=world.device,
                on_step=self._steps(f"pruned-{kept:.0%}", cell, recipe.steps),
            )
            save_detector(small, folder / "student.safetensors")
            return {"steps": recipe.steps, "seconds": time.perf_counter() - began}

        determinants = {"student": student.key, "kept": kept, "recipe": asdict(recipe)}
        return self._node("pruned", determinants, make)

    def package(self, cell: Cell, upload: Node, students: Sequence[Node]) -> Node:
        """The update in at most the cell's budget, of the student among ``students`` (the whole
        one first) that survives it best."""
        world = self.world

        def make(folder: Path) -> dict[str, Any]:
            self.say(f"pack {cell}")
            began = time.perf_counter()
            known = self._inbox(cell).upload
            whole, *pruned = (load_detector(s.folder / "student.safetensors") for s in students)
            packed = pack_update(
                whole,
                cell.budget_bytes,
                world.student,
                world.config.downlink.mode,
                known,
                pruned=pruned,
                seed=cell.seed,
            )
            (folder / "update.eeu").write_bytes(packed.data)
            return {
                "update_bytes": len(packed.data),
                "params": packed.report.parameters,
                "bits": packed.report.mean_bits,
                "prune": 1 - packed.report.kept,
                "mode": packed.report.mode,
                "seconds": time.perf_counter() - began,
            }

        determinants = {
            "students": [s.key for s in students],
            "base": world.hashes["student"],
            "budget": cell.budget_bytes,
            "mode": world.config.downlink.mode,
        }
        return self._node("package", determinants, make)

    def verdict(self, cell: Cell, package: Node) -> Node:
        """Whether the edge sends the package: it decodes it and compares it with what the device
        has, on the frames that no training saw."""
        world, least = self.world, self.world.config.held_back.least

        def make(folder: Path) -> dict[str, Any]:
            data = (package.folder / "update.eeu").read_bytes()
            found = compare(
                world.student,
                unpack(data, base=world.student),
                self._inbox(cell).upload.held_back,
                least,
                world.device,
            )
            return {**asdict(found), "sent": found.helps}

        return self._node("verdict", {"package": package.key, "least": least}, make)

    def applied(self, package: Node, start: Node) -> Node:
        """The device decodes the package and measures itself on frames the edge never saw."""

        def make(folder: Path) -> dict[str, Any]:
            self.say("evaluate the decoded package")
            data = (package.folder / "update.eeu").read_bytes()
            return _scored(self.world, unpack(data, base=self.world.student))

        return self._node("cell", {"package": package.key, "start": start.key}, make)

    def examples(self, cell: Cell) -> Node | None:
        """Detections before and after the update of ``cell`` on a few evaluation frames, as
        ``examples.json`` of the node; None when the update was not sent."""
        upload = self.upload(cell)
        students = self.students(cell, upload, self.teacher(cell, upload))
        package = self.package(cell, upload, students)
        if not self.verdict(cell, package).record["sent"]:
            return None

        def make(folder: Path) -> dict[str, Any]:
            self.say("draw detections before and after")
            data = (package.folder / "update.eeu").read_bytes()
            found = compared(self.world, self.world.student, unpack(data, base=self.world.student))
            (folder / "examples.json").write_text(json.dumps({"cell": str(cell), **found}))
            return {"frames": len(found["frames"])}

        determinants = {"package": package.key, "start": self.start().key}
        return self._node("examples", determinants, make)

    def _node(
        self, stage: str, determinants: Mapping[str, Any], make: Callable[[Path], dict[str, Any]]
    ) -> Node:
        versioned = {"version": VERSIONS[stage], "device": self.world.device, **determinants}
        return self.store.node(stage, versioned, make)

    def _steps(self, stage: str, cell: Cell, total: int) -> Callable[[int, float], None]:
        what, log = f"{stage} on {cell.frames} frames", None
        if (kind := self.world.config.log) != "none":
            name = f"{stage}-{cell.frames}-{cell.codec}-seed{cell.seed}"
            log = loss_log(kind, self.store.folder / "logs", name, total)

        def on_step(step: int, loss: float) -> None:
            if step % 10 == 0 or step == total:
                self.say(f"{what}: step {step}/{total}, loss {loss:.3f}")
            if log is not None:
                log(step, loss)

        return on_step

    def _inbox(self, cell: Cell) -> _Inbox:
        """The upload of ``cell``; the last one is kept, for its budgets come one by one."""
        key = (cell.seed, cell.frames, cell.codec)
        if self._last is None or self._last[0] != key:
            self._last = (key, _Inbox(self.world, cell))
        return self._last[1]

    _last: tuple[tuple[int, int, str], _Inbox] | None = None


@dataclass(frozen=True, eq=False)
class _Inbox:
    """One upload as the device encoded it and as the edge decodes it."""

    world: World
    cell: Cell

    @cached_property
    def frames(self) -> tuple[Frame, ...]:
        return self.world.captured(self.cell.seed)[: self.cell.frames]

    @cached_property
    def sent(self) -> bytes:
        return self.world.encoded(self.frames, Codec.parse(self.cell.codec))

    @cached_property
    def upload(self) -> Upload:
        held = self.world.config.held_back
        return split_upload(self.world.received(self.frames, self.sent), held.share, held.most)


def _scored(world: World, model: DetectionModel) -> dict[str, float]:
    began = time.perf_counter()
    score = evaluate(model, world.evaluation_batch, world.evaluation, world.device)
    return {"map": score.map, "map50": score.map50, "seconds": time.perf_counter() - began}
