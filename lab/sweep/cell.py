"""One cell of the surface: a whole round, from frames on the device to mAP on the device.

The steps are those of :class:`endedge.end.device.DeviceEnd` and
:class:`endedge.edge.edge.EdgeEnd`. Here each becomes a node of the store, named by everything
that determines it, so cells share what they have in common: all budgets share their students, and
a rerun does nothing again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from endedge.data.codec import Codec
from endedge.distill.adapter import kind_of
from endedge.distill.model import DetectionModel, load_detector, save_detector
from endedge.distill.package.choose import PreparedMenu
from endedge.edge.adapt import OnStep, Upload
from endedge.edge.choosing import Chosen
from endedge.edge.edge import EdgeEnd
from endedge.edge.evidence import Evidence
from endedge.end.device import DeviceEnd
from endedge.lab.inputs import Inputs
from endedge.lab.store import Node, Store
from endedge.lab.sweep.described import chosen_by, described, learned, sent_of, whole_of
from endedge.lab.sweep.evaluating import resampled, scored
from endedge.lab.sweep.examples import compared
from endedge.lab.sweep.inbox import Inbox
from endedge.lab.sweep.loss_log import heard, loss_log

__all__ = ["Cell", "CellRunner"]

# Raise a stage's number when its code changes what it computes: older results are then not used.
VERSIONS = {
    "start": 2,
    "upload": 1,
    "teacher": 3,
    "taught": 1,
    "student": 3,
    "shallow": 1,
    "pruned": 3,
    "package": 5,
    "verdict": 3,
    "cell": 2,
    "examples": 2,
}

# What follows from its determinants wherever it is made; named as it was on processors.
_ANYWHERE = ("upload", "package")

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
class CellRunner:
    """Measures cells from ``inputs``, keeps their parts in ``store``; ``say`` hears of progress."""

    inputs: Inputs
    store: Store
    say: Say

    def measure(self, cell: Cell) -> dict[str, Any]:
        """Run (or look up) the round of ``cell`` and return its row of ``surface.csv``."""
        upload = self.upload(cell)  # end: captured, selected, encoded
        teacher = self.teacher(cell, upload)  # edge: labels; the large model learns the frames
        students = self.students(cell, upload, teacher)  # the small ones learn from it
        package = self.package(cell, upload, students)  # chosen, quantized, coded
        whole = whole_of(self.inputs, package, students)  # the one that it is of, or was cut from
        sent = bool(self.verdict(cell, package, whole).record["sent"])  # by frames unseen
        start = self.start()
        taught = self.taught(teacher, start)  # the large model, for comparison
        applied = self.applied(package, start)  # end: decoded on the device, evaluated
        on_device = applied if sent else start
        return {
            "cell": applied.key,
            **asdict(cell),
            "upload_bytes": upload.record["upload_bytes"],
            "update_bytes": package.record["update_bytes"],
            "params": package.record["params"],
            "transmitted": package.record.get("transmitted", ""),  # older ones do not say
            "bits": package.record["bits"],
            "prune": package.record["prune"],
            "mode": package.record["mode"],
            "map": on_device.record["map"],
            "map50": on_device.record["map50"],
            "m0": start.record["map"],
            "teacher_map": taught.record["map"],
            "decoded_map": applied.record["map"],
            "seconds_teacher": teacher.record["seconds"],
            "seconds_student": sum({s.key: s.record["seconds"] for s in students}.values()),
            "seconds_pack": package.record["seconds"],
            "seconds_eval": applied.record["seconds"],
            "sent": int(sent),
            **described(self.inputs, package, students),
            "adapter": applied.record["adapter"],
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
        inputs = self.inputs

        def make(folder: Path) -> dict[str, Any]:
            self.say("evaluate the detectors as they are")
            before = resampled(_end(inputs), inputs, inputs.student, folder)
            return {**before, "teacher_map": scored(_end(inputs), inputs, inputs.teacher)["map"]}

        camera = inputs.config.data.camera.model_dump()
        return self._node(
            "start", {"hashes": inputs.hashes, "camera": camera, "side": inputs.side}, make
        )

    def upload(self, cell: Cell) -> Node:
        """What the device sends: the exact bytes of its framed batch."""
        inputs = self.inputs

        def make(folder: Path) -> dict[str, Any]:
            self.say(f"encode {cell.frames} frames")
            sent = self._inbox(cell).sent
            return {"upload_bytes": len(sent), "sha256": hashlib.sha256(sent).hexdigest()}

        determinants = {
            "pool": inputs.hashes["pool"],
            "camera": inputs.config.data.camera.model_dump(),
            "seed": cell.seed,
            "frames": cell.frames,
            "codec": cell.codec,
        }
        return self._node("upload", determinants, make)

    def teacher(self, cell: Cell, upload: Node) -> Node:
        """The large model, fine-tuned on the decoded upload."""
        inputs, plan = self.inputs, self.inputs.config
        recipe = plan.teacher.recipe(cell.frames, cell.seed)

        def make(folder: Path) -> dict[str, Any]:
            began = time.perf_counter()
            adapted = self._edge(cell).teach(inputs.teacher, self.received(cell))
            seconds = time.perf_counter() - began
            save_detector(adapted.model, folder / "teacher.safetensors")
            return {
                "share": adapted.share,
                "seconds": seconds,
                "losses": {str(k): v for k, v in adapted.losses.items()},
                "steps": recipe.steps,
            }

        determinants = {
            "upload": upload.key,
            "weights": inputs.hashes["teacher"],
            "recipe": asdict(recipe),
            "held_back": plan.held_back.model_dump(exclude={"least"}),
            "side": inputs.side,
            **inputs.arithmetic,
            **chosen_by(self.inputs),
        }
        return self._node("teacher", determinants, make)

    def taught(self, teacher: Node, start: Node) -> Node:
        """What the adapted ``teacher`` is worth on the frames of ``start``: not a part of its own
        node, for other evaluation frames do not change what it learned."""

        def make(folder: Path) -> dict[str, Any]:
            self.say("evaluate the teacher")
            model = load_detector(teacher.folder / "teacher.safetensors")
            return scored(_end(self.inputs), self.inputs, model)

        return self._node("taught", {"teacher": teacher.key, "start": start.key}, make)

    def student(
        self, cell: Cell, upload: Node, teacher: Node, architecture: str | None = None
    ) -> Node:
        """A small model (None: the first of the menu), distilled from the adapted teacher."""
        inputs, plan = self.inputs, self.inputs.config
        name = architecture or plan.weights.student[0]
        recipe = plan.student.recipe(cell.frames, cell.seed)

        def make(folder: Path) -> dict[str, Any]:
            began = time.perf_counter()
            taught = load_detector(teacher.folder / "teacher.safetensors")
            adapted = self._edge(
                cell, "" if len(inputs.starts) == 1 else f" {Path(name).stem}"
            ).distil(inputs.starts[name], taught, self.received(cell), inputs.student)
            save_detector(adapted.model, folder / "student.safetensors")
            said: dict[str, Any] = {"steps": recipe.steps, "seconds": time.perf_counter() - began}
            if isinstance(adapted, Chosen) and (shallow := adapted.shallow) is not None:
                save_detector(shallow.model, folder / "shallow.safetensors")
                said["shallow"] = learned(shallow) | {"steps": recipe.steps, "seconds": 0.0}
            return learned(adapted) | said

        determinants = {
            "teacher": teacher.key,
            "weights": inputs.start_hashes[name],
            "recipe": asdict(recipe),
            "gains": plan.distillation.model_dump(),
            "held_back": plan.held_back.model_dump(exclude={"least"}),
            **chosen_by(self.inputs),
            **({} if inputs.starts[name] is inputs.student else {"held": inputs.hashes["student"]}),
        }
        return self._node("student", determinants, make)

    def students(self, cell: Cell, upload: Node, teacher: Node) -> list[Node]:
        """A student for each line of the menu: the distilled ones, their shallow ones (the same
        again where there is none), and those pruned from them."""
        made = []
        for line in self.inputs.plan.menu:
            student = self.student(cell, upload, teacher, line.architecture)
            if line.shallow:
                student = self.shallow(student)
            made.append(student if line.keep == 1 else self.pruned(cell, student, line.keep))
        return made

    def shallow(self, student: Node) -> Node:
        """What was trained beside a ``student`` of all layers for small packages; its seconds are
        in those of the student."""
        if "shallow" not in student.record:
            return student

        def make(folder: Path) -> dict[str, Any]:
            shutil.copy(student.folder / "shallow.safetensors", folder / "student.safetensors")
            return dict(student.record["shallow"])

        return self._node("shallow", {"student": student.key}, make)

    def pruned(self, cell: Cell, student: Node, kept: float) -> Node:
        """The student with only the share ``kept`` of its parameters."""
        recipe = self.inputs.config.recovery.recipe(cell.frames, cell.seed)

        def make(folder: Path) -> dict[str, Any]:
            self.say(f"prune the student of {cell.frames} frames to {kept:.0%}")
            began = time.perf_counter()
            whole = load_detector(student.folder / "student.safetensors")
            small = self._edge(cell).prune(whole, kept, self.received(cell))
            save_detector(small, folder / "student.safetensors")
            return {"steps": recipe.steps, "seconds": time.perf_counter() - began}

        determinants = {"student": student.key, "kept": kept, "recipe": asdict(recipe)}
        return self._node("pruned", determinants, make)

    def package(self, cell: Cell, upload: Node, students: Sequence[Node]) -> Node:
        """The update in at most the cell's budget, of the student among ``students`` (a whole one
        first) that comes through it best."""
        inputs, params = self.inputs, self.inputs.config.downlink.params_of(cell.budget_bytes)

        def make(folder: Path) -> dict[str, Any]:
            self.say(f"pack {cell}")
            began = time.perf_counter()
            edge, prepared = self._edge(cell), self._prepared_menu(cell, students)
            lines = zip(inputs.plan.menu, (s.record.get("evidence") for s in students), strict=True)
            evidence = {line.kin: Evidence(**said) for line, said in lines if said}
            known, held, most = self.received(cell), inputs.student, cell.budget_bytes
            packed = edge.pack_from(prepared, most, evidence, known, held, params=params)
            (folder / "update.eeu").write_bytes(packed.data)
            return sent_of(packed, edge.line(packed)) | {"seconds": time.perf_counter() - began}

        determinants = {
            "students": [s.key for s in students],
            "base": inputs.hashes["student"],
            "budget": cell.budget_bytes,
            "mode": inputs.config.downlink.mode,
            **({} if params is None else {"params": params}),
            **({} if not inputs.plan.barred else {"barred": [str(x) for x in inputs.plan.barred]}),
        }
        return self._node("package", determinants, make)

    def verdict(self, cell: Cell, package: Node, student: Node) -> Node:
        """Whether the edge sends the package of ``student``: it decodes it and compares it with
        what the device has, on the frames that no training saw."""
        plan = self.inputs.plan
        rule = {"sure": plan.sure} if plan.chosen else {"least": plan.least}

        def make(folder: Path) -> dict[str, Any]:
            edge, known, decoded = self._edge(cell), self.received(cell), self._decoded(package)
            if plan.chosen:
                model = load_detector(student.folder / "student.safetensors")
                evidence = Evidence(**student.record["evidence"])
                found = edge.judge_chosen(self.inputs.student, model, evidence, decoded, known)
            else:
                found = edge.judge(self._inbox(cell).losses, decoded, known)
            return {**asdict(found), "sent": found.helps}

        return self._node("verdict", {"package": package.key, **rule}, make)

    def applied(self, package: Node, start: Node) -> Node:
        """The device decodes the package and measures itself on frames the edge never saw."""

        def make(folder: Path) -> dict[str, Any]:
            self.say("evaluate the decoded package")
            decoded = self._decoded(package)
            found = resampled(_end(self.inputs), self.inputs, decoded, folder)
            return {**found, "adapter": kind_of(decoded)}

        return self._node("cell", {"package": package.key, "start": start.key}, make)

    def examples(self, cell: Cell) -> Node | None:
        """Detections before and after the update of ``cell`` on a few evaluation frames, as
        ``examples.json`` of the node; None when the update was not sent."""
        upload = self.upload(cell)
        students = self.trunk(cell)
        package = self.package(cell, upload, students)
        if not self.verdict(cell, package, whole_of(self.inputs, package, students)).record["sent"]:
            return None

        def make(folder: Path) -> dict[str, Any]:
            self.say("draw detections before and after")
            found = compared(self.inputs, self.inputs.student, self._decoded(package))
            (folder / "examples.json").write_text(json.dumps({"cell": str(cell), **found}))
            return {"frames": len(found["frames"])}

        determinants = {"package": package.key, "start": self.start().key}
        return self._node("examples", determinants, make)

    def _node(
        self, stage: str, determinants: Mapping[str, Any], make: Callable[[Path], dict[str, Any]]
    ) -> Node:
        kind = "cpu" if stage in _ANYWHERE else self.inputs.kind
        versioned = {"version": VERSIONS[stage], "device": kind, **determinants}
        return self.store.node(stage, versioned, make)

    def _edge(self, cell: Cell, which: str = "") -> EdgeEnd:
        """The edge of ``cell``, which says and logs of its stages ``which`` model they train."""

        def watch(stage: str, total: int) -> OnStep:
            what = f"{stage}{which}"
            name = f"{what.replace(' ', '-')}-{cell.frames}-{cell.codec}-seed{cell.seed}"
            says = f"{what} on {cell.frames} frames, seed {cell.seed}"
            kind, logs = self.inputs.config.log, self.store.folder / "logs"
            log = loss_log(kind, logs, name, total) if kind != "none" else None
            return heard(self.say, says, total, log)

        return EdgeEnd(self.inputs.plan, cell.seed, cell.frames, watch)

    def _prepared_menu(self, cell: Cell, students: Sequence[Node]) -> PreparedMenu:
        """``students`` prepared for any budget; the last ones are kept, for budgets come one by
        one. What that costs is in the seconds of the first."""
        keys = [s.key for s in students]
        if self._prepared is None or self._prepared[0] != keys:
            self._prepared = None  # free what is there before as much is made
            files = {s.key: s.folder / "student.safetensors" for s in students}
            loaded = {key: load_detector(file) for key, file in files.items()}  # each one once
            models = [loaded[key] for key in keys]
            made = self._edge(cell).prepare(models, self.inputs.student, self.received(cell))
            self._prepared = (keys, made)
        return self._prepared[1]

    def _decoded(self, package: Node) -> DetectionModel:
        """What the device holds after ``package``; the last one is kept, for it is judged first and
        then evaluated."""
        if self._held is None or self._held[0] != package.key:
            file = package.folder / "update.eeu"
            self._held = (package.key, _end(self.inputs).apply_file(file, self.inputs.student))
        return self._held[1]

    def _inbox(self, cell: Cell) -> Inbox:
        """The upload of ``cell``; the last one is kept, for its budgets come one by one."""
        key = (cell.seed, cell.frames, cell.codec)
        if self._last is None or self._last[0] != key:
            end = _end(self.inputs, cell.codec)
            self._last = (key, Inbox(self.inputs, end, cell.seed, cell.frames))
        return self._last[1]

    _last: tuple[tuple[int, int, str], Inbox] | None = None
    _prepared: tuple[list[str], PreparedMenu] | None = None
    _held: tuple[str, DetectionModel] | None = None


def _end(inputs: Inputs, codec: str | None = None) -> DeviceEnd:
    return DeviceEnd(
        Codec.parse(codec or inputs.config.uplink.codecs[0]), inputs.side, inputs.device
    )
