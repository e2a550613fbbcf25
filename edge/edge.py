"""The edge's half of a round: labels → teacher → students → package → verdict.

Each step is a method of :class:`EdgeEnd` and follows from its arguments alone: there is no store
and no clock here. A cell of the surface keeps the result of each step, a round of the loop and a
job of the socket service take all of them at once (:meth:`EdgeEnd.update`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from endedge.data.coco import Frame
from endedge.data.codec import RefusedFrame, decode_batch
from endedge.data.errors import BadInput
from endedge.data.frames import Batch, join, stack_frames
from endedge.distill.envelope import HEADER_BYTES
from endedge.distill.loss import Make
from endedge.distill.losses import labels
from endedge.distill.model import DetectionModel, model_hash
from endedge.distill.package.choose import PreparedMenu, prepare_menu
from endedge.distill.package.packing import Packed
from endedge.distill.recovery import pruned_and_recovered
from endedge.distill.training import Recipe
from endedge.edge import labels as edge_labels
from endedge.edge.adapt import (
    Adapted,
    OnStep,
    Upload,
    Verdict,
    adapt_teacher,
    distil_student,
    held_back_losses,
    split_upload,
    weigh,
)
from endedge.edge.choosing import Chosen, choose_and_train
from endedge.edge.evidence import FIRST_ROUND, Evidence, Prior, gain_over, judge_chosen
from endedge.edge.plan import Plan, Received, Schedule, Student, Update, in_its_precision
from endedge.edge.recall import Kept, Recalled, recall
from endedge.end.inference import detect

__all__ = ["EdgeEnd", "Plan", "Received", "Schedule", "Student", "Update"]

_CALIBRATION_FRAMES = 32  # of an upload, on which the packer and the pruner look


@dataclass(frozen=True)
class EdgeEnd:
    """The edge in one round. All that is random draws from ``seed``; trainings are as long as
    the plan has it for ``frames`` of them (None: for as many as are trained on). ``watch(what,
    steps)`` gives who is told of a training's steps; ``prior``: what earlier rounds gained, where
    the frames choose."""

    plan: Plan
    seed: int
    frames: int | None = None
    watch: Callable[[str, int], OnStep | None] = lambda what, steps: None
    prior: Prior = FIRST_ROUND

    def receive(self, batch: bytes, annotated: Mapping[int, Frame]) -> Received:
        """Decode an upload. One bad frame, or one that is not ``annotated`` (frames by image id),
        does not cost the others. Raises :class:`BadInput` for bytes that are no batch.

        What is not known, or larger than it was captured, is not decoded; what is decoded becomes a
        square of the detector's side at once, so memory follows the number of frames, not what
        their headers say.
        """
        frames: list[Frame] = []
        squares: list[Batch] = []
        picture: dict[int, Any] = {}
        refused: list[str] = []
        captured = {i: (frame.width, frame.height) for i, frame in annotated.items()}

        def stack(some: Sequence[Frame]) -> Batch:
            return stack_frames(some, self.plan.side, lambda frame: picture[frame.image_id])

        for item in decode_batch(batch, largest=captured):
            if isinstance(item, RefusedFrame):
                refused.append(f"frame {item.image_id}: {item.reason}")
            else:
                frames.append(annotated[item[0]])
                picture = {item[0]: item[1]}
                squares.append(stack(frames[-1:]))
        seen = join(squares) if squares else stack([])
        return Received(tuple(frames), seen, tuple(refused))

    def label(
        self, teacher: DetectionModel, received: Received, threshold: Callable[[], float]
    ) -> list[edge_labels.Labels]:
        """Labels from the plan's source; ``threshold()`` gives the score from which a detection of
        the teacher is taken for one."""
        source = self.plan.labels
        if source == "truth":
            return edge_labels.truth_labels(received.frames)
        found = detect(teacher, received.pictures, device=self.plan.device)
        pseudo = edge_labels.pseudo_labels(found, threshold())
        if source == "pseudo":
            return pseudo
        boxes, order = int(source.removeprefix("mix-")), range(len(received.frames))
        return edge_labels.mixed_labels(received.frames, pseudo, order, boxes).labels

    def known(
        self,
        received: Received,
        named: Sequence[edge_labels.Labels],
        replayed: Batch | None = None,
    ) -> Upload:
        """What may be trained on with the labels ``named``, and what is held back."""
        labelled = edge_labels.apply_labels(received.pictures, named)
        groups = [frame.group for frame in received.frames]
        return self.split(labelled, replayed, [g for g in groups if g is not None])

    def split(
        self, labelled: Batch, replayed: Batch | None = None, groups: Sequence[str] = ()
    ) -> Upload:
        """What may be trained on, ``replayed`` frames of earlier rounds too, and what is held
        back of the new ones; by ``groups`` where every new frame has one."""
        named = tuple(groups) if len(groups) == len(labelled) else None
        if self.plan.chosen:
            if replayed is not None:
                named = None if named is None else (*named, *["replayed"] * len(replayed))
                labelled = join([labelled, replayed])
            return Upload(labelled, labelled, named)
        known = split_upload(labelled, self.plan.held_share, self.plan.held_most, named)
        if replayed is None:
            return known
        return replace(known, trained=join([known.trained, replayed]))

    @in_its_precision
    def teach(self, teacher: DetectionModel, known: Upload) -> Adapted:
        """The large model, fine-tuned on the upload."""
        recipe = self._recipe(self.plan.teacher, known)
        return adapt_teacher(
            teacher,
            self._split_for_teacher(known),
            recipe,
            self.plan.shares,
            device=self.plan.device,
            on_step=self.watch("teacher", recipe.steps),
        )

    @in_its_precision
    def distil(
        self,
        start: DetectionModel,
        teacher: DetectionModel,
        known: Upload,
        held: DetectionModel | None = None,
    ) -> Adapted:
        """A small model, from ``start`` towards the labels and the adapted ``teacher``, for a
        device that holds ``held`` (None: the start)."""
        recipe = self._recipe(self.plan.student, known)
        if self.plan.chosen:
            present = held or start

            def objective(gain: float) -> Make:
                # A large model is not better everywhere: one that is not ahead of what labels
                # alone taught, on frames that it was not trained on, does not teach.
                unseen, device = self._split_for_teacher(known).held_back, self.plan.device
                able = gain_over(present, teacher, unseen, device=device) > gain
                return self.plan.loss.towards(teacher, device) if able else labels

            return choose_and_train(
                start,
                known.trained,
                recipe,
                held=present,
                objective=objective,
                groups=known.groups,
                prior=self.prior,
                device=self.plan.device,
                on_step=self.watch("student", recipe.steps),
                on_other=lambda name, steps: self.watch(f"student {name}", steps),
            )
        return distil_student(
            start,
            teacher,
            known,
            recipe,
            self.plan.shares,
            loss=self.plan.loss,
            device=self.plan.device,
            on_step=self.watch("student", recipe.steps),
        )

    def _split_for_teacher(self, known: Upload) -> Upload:
        if not self.plan.chosen:
            return known
        return split_upload(known.trained, self.plan.held_share, self.plan.held_most, known.groups)

    @in_its_precision
    def prune(self, whole: DetectionModel, keep: float, known: Upload) -> DetectionModel:
        """``whole`` with the share ``keep`` of its parameters: cut by what the uploaded frames
        show, then taught by the uncut one."""
        recipe = self._recipe(self.plan.recovery, known)
        return pruned_and_recovered(
            whole,
            keep,
            known.trained,
            recipe,
            calibration=known.trained.images[:_CALIBRATION_FRAMES],
            device=self.plan.device,
            on_step=self.watch(f"pruned-{keep:.0%}", recipe.steps),
        )

    def students(
        self,
        starts: Mapping[str, DetectionModel],
        teacher: DetectionModel,
        known: Upload,
        held: DetectionModel | None = None,
    ) -> tuple[Adapted, ...]:
        """What was learned for each line of the menu; ``starts`` has a model for each architecture
        in it; ``held`` is what the device runs (None: each start)."""
        whole: dict[str, Adapted] = {}
        made = []
        for line in self.plan.menu:
            if line.architecture not in whole:
                start = starts[line.architecture]
                whole[line.architecture] = self.distil(start, teacher, known, held)
            learned = whole[line.architecture]
            if line.shallow and isinstance(learned, Chosen):
                learned = learned.shallow or learned
            if line.keep < 1:
                learned = replace(learned, model=self.prune(learned.model, line.keep, known))
            made.append(learned)
        return tuple(made)

    def prepare(
        self, students: Sequence[DetectionModel], base: DetectionModel | None, known: Upload
    ) -> PreparedMenu:
        """All that packages of ``students``, one a line of the menu, need, whatever their budgets,
        for a device that holds ``base`` (None: it is not known, so none is a delta)."""
        mode = "full" if base is None else self.plan.mode
        return prepare_menu(
            students,
            base=None if mode == "full" else base,
            frames=known.trained.images[:_CALIBRATION_FRAMES],
            unseen=known.held_back.images,
            seed=self.seed,
            mode="auto" if len(students) > 1 else mode,
            device=self.plan.device,
            kin=[line.kin for line in self.plan.menu],
            barred=[i for i, line in enumerate(self.plan.menu) if line in self.plan.barred],
        )

    def pack_from(
        self,
        prepared: PreparedMenu,
        budget_bytes: int,
        evidence: Mapping[str, Evidence],
        known: Upload,
        held: DetectionModel,
        *,
        params: int | None = None,
    ) -> Packed:
        """The package that detects best: within a kin the one that comes through closest to the
        whole student, between kin the one with the smallest loss on held-back frames; where frames
        chose, and all are trained on, the one with the most left of the gain over ``held``, what
        the device runs, those first that would be sent.

        Args:
            prepared: The menu.
            budget_bytes: The most that is sent.
            evidence: For the students of each kin, where frames chose them.
            known: The upload.
            held: What the device runs.
            params: The most numbers that are sent; None: any.

        Raises:
            BadInput: for a budget too small.
        """

        def order(packed: Packed) -> tuple[bool, float]:
            if not self.plan.chosen:
                return False, float(self.losses(packed.decoded, known).mean())
            whole, said = prepared.whole(packed.candidate), evidence[self.line(packed).kin]
            verdict = self.judge_chosen(held, whole, said, packed.decoded, known)
            return not verdict.helps, math.log(verdict.after / verdict.before)

        return prepared.pack(budget_bytes, params=params, order=order)

    def line(self, packed: Packed) -> Student:
        """The line of the menu that a package is of."""
        return self.plan.menu[packed.candidate]

    def pack(
        self,
        learned: Sequence[Adapted],
        budget_bytes: int,
        base: DetectionModel,
        known: Upload,
        *,
        certain: bool = True,
    ) -> Packed:
        """The package of what was ``learned`` for the menu, for a device that holds ``base``. Where
        that is not ``certain``, a full one, which decodes on top of any model; if none fits, one
        that the device refuses should it hold something else. Raises :class:`BadInput` for a budget
        too small."""
        lines = zip(self.plan.menu, learned, strict=True)
        evidence = {line.kin: x.evidence for line, x in lines if isinstance(x, Chosen)}
        students = [each.model for each in learned]
        prepared = self.prepare(students, base if certain else None, known)
        try:
            return self.pack_from(prepared, budget_bytes, evidence, known, base)
        except BadInput:
            if certain:
                raise
            return self.pack(learned, budget_bytes, base, known)

    @in_its_precision
    def losses(self, base: DetectionModel, known: Upload) -> NDArray[np.float64]:
        """What the device holds, on each held-back frame: (n,). The same for every package that
        may answer this upload."""
        return held_back_losses(base, known.held_back, self.plan.device)

    @in_its_precision
    def judge(self, before: NDArray[np.float64], decoded: DetectionModel, known: Upload) -> Verdict:
        """Whether what the device would hold, ``decoded``, beats the losses ``before``."""
        after = held_back_losses(decoded, known.held_back, self.plan.device)
        return weigh(before, after, self.plan.least)

    @in_its_precision
    def judge_chosen(
        self,
        held: DetectionModel,
        student: DetectionModel,
        evidence: Evidence,
        decoded: DetectionModel,
        known: Upload,
    ) -> Verdict:
        """The same for a ``student`` that the frames chose: by what packing left of the gain over
        ``held`` that is in the ``evidence`` for it."""
        sure, device, frames = self.plan.sure, self.plan.device, known.trained
        return judge_chosen(held, student, decoded, evidence, frames, sure=sure, device=device)

    @in_its_precision
    def recall(
        self, kept: Sequence[Kept], running: DetectionModel, known: Upload
    ) -> Recalled | None:
        """The model that a device has ``kept`` and should go back to, if any."""
        least, sure, device = self.plan.least, self.plan.sure, self.plan.device
        return recall(kept, running, known.held_back, least=least, sure=sure, device=device)

    def update(
        self,
        teacher: DetectionModel,
        starts: Mapping[str, DetectionModel],
        known: Upload,
        budget_bytes: int,
        *,
        base: DetectionModel,
        certain: bool = True,
        kept: Sequence[Kept] = (),
    ) -> Update:
        """The answer to what is ``known`` for a device that holds ``base``, in at most
        ``budget_bytes``. One of the models that it has ``kept`` takes the place of ``base`` where
        it suits the frames better: what is learned starts there, and is sent if it surely beats
        it; else the device goes back to it. Raises :class:`BadInput` for a budget too small."""
        taught = self.teach(teacher, known)
        recalled = self.recall(kept, base, known)
        if recalled is not None:
            starts = {**starts, recalled.architecture: recalled.model}
            base = recalled.model
        learned = self.students(starts, taught.model, known, base)
        students = tuple(each.model for each in learned)
        try:
            packed = self.pack(learned, budget_bytes, base, known, certain=certain)
        except BadInput:
            if recalled is None or budget_bytes < HEADER_BYTES:
                raise
            return recalled.answer(taught, students)
        kin, decoded = self.line(packed).kin, packed.decoded
        whole = next(
            each for line, each in zip(self.plan.menu, learned, strict=True) if line.kin == kin
        )
        if isinstance(whole, Chosen):
            verdict = self.judge_chosen(base, whole.model, whole.evidence, decoded, known)
        else:
            verdict = self.judge(self.losses(base, known), decoded, known)
        found = Update(taught, students, packed, decoded, verdict, self.line(packed))
        found = replace(found, evidence=whole.evidence if isinstance(whole, Chosen) else None)
        if recalled is None:
            return found
        if not replace(verdict, sure=max(1.0, verdict.sure)).helps:
            return recalled.answer(taught, students)
        return replace(found, recalled=model_hash(base))

    def _recipe(self, schedule: Schedule, known: Upload) -> Recipe:
        return schedule.recipe(self.frames or len(known.trained), self.seed)
