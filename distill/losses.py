"""What a network is trained towards: labels, a teacher's outputs, or both.

Predictions are Ultralytics' raw training outputs: ``boxes`` (n, 4·reg_max, a) logits of the
distance distributions, ``scores`` (n, classes, a) logits, ``feats`` the head's input maps;
a = all anchor points of the picture.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from endedge.distill.dense import keep_anchors
from endedge.distill.detection_loss import labels, labels_by_frame
from endedge.distill.feed import Targets, on_host
from endedge.distill.model import DetectionModel, clone
from endedge.distill.precision import computing
from endedge.distill.predictions import Objective, Predictions, heads
from endedge.distill.teacher import TeacherCache

__all__ = [
    "FeatureL2",
    "Objective",
    "Predictions",
    "Targets",
    "TeacherCache",
    "box_distance",
    "distillation",
    "divergence",
    "divergence_nats",
    "heads",
    "imitation",
    "labels",
    "labels_by_frame",
    "localization_kl",
    "score_bce",
    "weighted_l2",
]


def score_bce(student: Tensor, teacher: Tensor) -> Tensor:
    """Soft-label cross-entropy of class scores at every anchor, focused where they differ.

    BCE between the student's logits (n, classes, a) and the teacher's probabilities, each term
    weighted by |p_teacher − p_student|, normalised by the sum of the teacher's best scores: the
    quality focal loss of X. Li et al., *Generalized Focal Loss*, NeurIPS 2020, eq. 5 (β = 1),
    with a teacher in the place of the IoU label.
    """
    target = teacher.sigmoid()
    focus = (target - student.detach().sigmoid()).abs()
    terms = F.binary_cross_entropy_with_logits(student, target, reduction="none") * focus
    return terms.sum() / target.amax(1).sum().clamp(min=1.0)


def localization_kl(student: Tensor, teacher: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """KL between the distance distributions of teacher and student, mean over the four sides.

    Z. Zheng et al., *Localization Distillation for Dense Object Detection*, CVPR 2022, eq. 3.
    ``student``, ``teacher`` (n, 4·bins, a) logits; ``weight`` (n, a) ≥ 0, normalised here.
    """
    n, channels, a = student.shape
    s = student.view(n, 4, channels // 4, a) / temperature
    t = teacher.view(n, 4, channels // 4, a) / temperature
    kl = F.kl_div(s.log_softmax(2), t.log_softmax(2), log_target=True, reduction="none").sum(2)
    return (kl.mean(1) * weight).sum() / weight.sum().clamp(min=1.0) * temperature**2


def box_distance(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """How far the student's boxes are from the teacher's, anchors weighted by ``weight`` (n, a).

    :func:`localization_kl` where both give distributions over the same bins. Detectors without
    distributions (YOLO26: one bin) and pairs with unlike ones are compared by the distances that
    they mean, in cells: smooth L1, mean over the four sides.
    """
    if student.shape[1] == teacher.shape[1] > 4:
        return localization_kl(student, teacher, weight, 1.0)
    error = F.smooth_l1_loss(_distances(student), _distances(teacher), reduction="none").mean(1)
    return (error * weight).sum() / weight.sum().clamp(min=1.0)


def _distances(boxes: Tensor) -> Tensor:
    """(n, 4·bins, a) logits → the distances expected, (n, 4, a) in cells."""
    sides = boxes.reshape(len(boxes), 4, -1, boxes.shape[2])
    if sides.shape[2] == 1:
        return sides.squeeze(2)
    bins = torch.arange(sides.shape[2], dtype=sides.dtype, device=sides.device)
    return (sides.softmax(2) * bins[:, None]).sum(2)


def distillation(
    teacher_outputs: Callable[[Targets], tuple[Tensor, ...]],
    *,
    label_gain: float = 1.0,
    score_gain: float = 1.0,
    box_gain: float = 1.0,
) -> Callable[[DetectionModel], Objective]:
    """Labels plus the teacher's scores and boxes at every anchor.

    ``teacher_outputs(targets)`` gives ``(scores, boxes)`` for the batch, twice where the teacher
    is end-to-end. Heads are paired in the order of :func:`heads` and count alike; a one-to-one
    head whose partner has none learns from the labels. Anchors count for localization by the
    teacher's best class score there, so background does not.
    """

    def make(model: DetectionModel) -> Objective:
        from_labels = labels(model)

        def loss(predictions: Predictions, targets: Targets) -> Tensor:
            outputs = teacher_outputs(targets)
            pairs = list(zip(heads(predictions), outputs[::2], outputs[1::2], strict=False))
            total = torch.zeros((), device=outputs[0].device)
            for own, scores, boxes in pairs:
                weight = scores.sigmoid().amax(1)
                term = score_gain * score_bce(own["scores"], scores)
                term = term + box_gain * box_distance(own["boxes"], boxes, weight)
                total = total + term / len(pairs)
            if label_gain > 0:
                total = total + label_gain * from_labels(predictions, targets)
            return total

        return loss

    return make


def divergence_nats(scores: Tensor, boxes: Tensor, own_scores: Tensor, own_boxes: Tensor) -> Tensor:
    """Kullback-Leibler divergence of predictions from those of a reference, (n,) nats a frame.

    Of the class probabilities at every anchor, and of the distance distributions weighted by the
    reference's best class probability there, both summed over anchors. ``scores`` (n, classes, a)
    and ``boxes`` (n, 4·bins, a) are the reference's logits; with one bin (plain regression), sides
    have unit variance.
    """
    n, a = scores.shape[0], scores.shape[2]
    p = scores.sigmoid()
    classes = F.binary_cross_entropy_with_logits(own_scores, p, reduction="none")
    classes = classes - F.binary_cross_entropy_with_logits(scores, p, reduction="none")
    want, got = boxes.reshape(n, 4, -1, a), own_boxes.reshape(n, 4, -1, a)
    if want.shape[2] == 1:
        sides = (want - got).square().sum((1, 2)) / 2
    else:
        log_want, log_got = want.log_softmax(2), got.log_softmax(2)
        sides = (log_want.exp() * (log_want - log_got)).sum((1, 2))
    # no term is negative but by rounding, which would else be all there is where two models agree
    classes, sides = classes.clamp(min=0), sides.clamp(min=0)
    return classes.sum((1, 2)) + (sides * p.amax(1)).sum(1)


@torch.no_grad()
def divergence(
    reference: DetectionModel, model: DetectionModel, frames: Tensor, device: str = "cpu"
) -> float:
    """How far the predictions of ``model`` are from those of ``reference``, in nats a frame:
    :func:`divergence_nats`, mean over ``frames`` (N, 3, S, S) uint8; computed on ``device``."""
    frames, pair = frames.to(device), [reference, model]
    if not on_host(device):
        pair = [clone(m).to(device) for m in pair]
        for m in pair:
            keep_anchors(m)
    sums = []
    for start in range(0, len(frames), 8):
        images = frames[start : start + 8].float() / 255
        with computing("fp32", device):
            want, got = (heads(m.eval()(images)[1])[0] for m in pair)
        nats = divergence_nats(want["scores"], want["boxes"], got["scores"], got["boxes"])
        sums.append(nats.sum())
    return float(sum(torch.stack(sums).tolist())) / len(frames)


def imitation(whole: DetectionModel, device: str = "cpu") -> Callable[[DetectionModel], Objective]:
    """Nothing but the predictions of ``whole``: :func:`divergence_nats` from them, mean over the
    frames, for a detector that is ``whole`` but for a damage. No label is used.

    Unlike :func:`score_bce` it does not fade where two models almost agree, which is nearly
    everywhere: a pruned YOLOv8n comes back with this and gets worse with the other."""

    cache = TeacherCache(whole, device)

    def make(model: DetectionModel) -> Objective:
        def loss(predictions: Predictions, targets: Targets) -> Tensor:
            wanted = cache(targets)
            total = torch.zeros((), device=wanted[0].device)
            for i, own in enumerate(heads(predictions)):
                scores, boxes = wanted[2 * i : 2 * i + 2]
                total = total + divergence_nats(scores, boxes, own["scores"], own["boxes"]).mean()
            return total

        return loss

    return make


class FeatureL2(nn.Module):
    """Ultralytics' own feature distillation, as the baseline: labels plus, at each input map of
    the head, the squared error between the teacher's map and a learned projection of the
    student's, weighted by the teacher's best class score there (ultralytics.nn.distill_model,
    ``DistillationModel.loss_sl2``; its default gain is 6).

    The projections are trained with the student and thrown away.
    """

    def __init__(
        self, model: DetectionModel, teacher: DetectionModel, *, gain: float = 6.0, device: str
    ) -> None:
        super().__init__()
        self._labels = labels(model)
        self._teacher = TeacherCache(
            teacher, device, lambda raw: (heads(raw)[0]["scores"], *heads(raw)[0]["feats"])
        )
        self._gain = gain
        with torch.no_grad():
            probe = torch.zeros(1, 3, 64, 64, device=device)
            pairs = [
                (s.shape[1], t.shape[1])
                for s, t in zip(
                    *(
                        heads(m.eval()(probe)[1])[0]["feats"]
                        for m in (model, clone(teacher).to(device))
                    ),
                    strict=True,
                )
            ]
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Conv2d(s, t, 1), nn.ReLU(inplace=True), nn.Conv2d(t, t, 1))
            for s, t in pairs
        ).to(device)

    def forward(self, predictions: Predictions, targets: Targets) -> Tensor:
        scores, *maps = self._teacher(targets)
        best = scores.sigmoid().amax(1)
        total, start = self._labels(predictions, targets), 0
        for project, ours, theirs in zip(
            self.projections, heads(predictions)[0]["feats"], maps, strict=True
        ):
            anchors = theirs.shape[-2] * theirs.shape[-1]
            weight = best[:, start : start + anchors]
            start += anchors
            total = total + self._gain * weighted_l2(project(ours), theirs, weight)
        return total


def weighted_l2(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Mean squared error of maps (n, c, h, w), weighted over the n·h·w places by ``weight``
    (n, h·w) ≥ 0."""
    error = (student - teacher).square().flatten(2).mean(1)
    return (error * weight).sum() / (weight.sum() + 1e-9)
