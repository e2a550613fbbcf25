"""Each loss against an implementation written out, place by place, from its paper."""

from __future__ import annotations

import math
import os
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from endedge.distill.loss import chosen
from endedge.distill.losses import (
    FeatureL2,
    Targets,
    TeacherCache,
    distillation,
    divergence_nats,
    imitation,
    labels,
    localization_kl,
    score_bce,
    weighted_l2,
)
from endedge.distill.model import DetectionModel
from endedge.distill.objectives import LOSSES

os.environ.setdefault("YOLO_OFFLINE", "1")


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_score_bce_is_quality_focal_loss_with_a_teacher() -> None:
    student, teacher = _random(2, 3, 5), 2 * _random(2, 3, 5) + 1
    total, best_sum = 0.0, 0.0
    for n in range(2):
        for a in range(5):
            best = 0.0
            for c in range(3):
                p = 1 / (1 + math.exp(-float(student[n, c, a])))
                y = 1 / (1 + math.exp(-float(teacher[n, c, a])))
                cross_entropy = -(y * math.log(p) + (1 - y) * math.log(1 - p))
                total += abs(y - p) * cross_entropy
                best = max(best, y)
            best_sum += best
    assert float(score_bce(student, teacher)) == pytest.approx(total / max(best_sum, 1), rel=1e-5)


def test_localization_kl_side_by_side() -> None:
    student, teacher, weight = _random(2, 12, 4), _random(2, 12, 4) * 2, _random(2, 4).abs()
    heat, bins = 2.0, 3
    total = 0.0
    for n in range(2):
        for a in range(4):
            divergence = 0.0
            for side in range(4):
                rows = slice(side * bins, (side + 1) * bins)
                s = torch.softmax(student[n, rows, a] / heat, 0)
                t = torch.softmax(teacher[n, rows, a] / heat, 0)
                divergence += float((t * (t / s).log()).sum())
            total += float(weight[n, a]) * divergence / 4
    expected = total / max(float(weight.sum()), 1) * heat**2
    assert float(localization_kl(student, teacher, weight, heat)) == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.parametrize("bins", [1, 3])
def test_divergence_nats_place_by_place(bins: int) -> None:
    """Bernoulli classes, categorical sides (or Gaussian ones of unit variance), per frame."""
    want, got = _random(2, 3, 4), _random(2, 3, 4) * 2 + 0.3
    want_sides, got_sides = _random(2, 4 * bins, 4) * 2, _random(2, 4 * bins, 4) - 0.2
    expected = [0.0, 0.0]
    for n in range(2):
        for a in range(4):
            best = 0.0
            for c in range(3):
                p, q = (1 / (1 + math.exp(-float(x[n, c, a]))) for x in (want, got))
                expected[n] += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
                best = max(best, p)
            for side in range(4):
                rows = slice(side * bins, (side + 1) * bins)
                t, s = want_sides[n, rows, a], got_sides[n, rows, a]
                if bins == 1:
                    nats = float((t - s) ** 2) / 2
                else:
                    t, s = torch.softmax(t, 0), torch.softmax(s, 0)
                    nats = float((t * (t / s).log()).sum())
                expected[n] += best * nats
    found = divergence_nats(want, want_sides, got, got_sides)
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def _stir(model: DetectionModel) -> None:
    """Move the last layers' biases: fresh detectors all say "nothing" alike."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.model[-1].parameters():
            if parameter.ndim == 1:
                parameter += 2 * torch.randn(parameter.shape, generator=generator)


def test_imitation_is_the_divergence_from_the_whole(
    tiny: DetectionModel, tiny_teacher: DetectionModel
) -> None:
    targets = _targets()
    _stir(tiny_teacher)
    loss = imitation(tiny_teacher)(tiny)
    own, whole = tiny.eval()(targets.images)[1], tiny_teacher.eval()(targets.images)[1]
    parts = (whole["scores"], whole["boxes"], own["scores"], own["boxes"])
    expected = float(divergence_nats(*parts).mean().detach())
    assert float(loss(own, targets).detach()) == pytest.approx(expected, rel=2e-2)  # kept as fp16
    assert float(imitation(tiny)(tiny)(own, targets).detach()) < 1e-2 * expected


def test_imitation_counts_both_heads_of_an_end_to_end_detector() -> None:
    detector = DetectionModel("yolo26n.yaml", nc=3, verbose=False)
    other = DetectionModel("yolo26n.yaml", nc=3, verbose=False)
    _stir(other)
    targets = _targets()
    own = detector.train()(targets.images)
    raw = other.eval()(targets.images)[1]
    expected = sum(
        float(
            divergence_nats(raw[h]["scores"], raw[h]["boxes"], own[h]["scores"], own[h]["boxes"])
            .mean()
            .detach()
        )
        for h in ("one2one", "one2many")
    )
    loss = imitation(other)(detector)
    assert float(loss(own, targets).detach()) == pytest.approx(expected, rel=2e-2)


def test_both_vanish_when_the_student_is_the_teacher() -> None:
    scores, boxes = _random(1, 3, 6), _random(1, 8, 6)
    assert float(localization_kl(boxes, boxes, torch.ones(1, 6), 1.0)) == pytest.approx(0, abs=1e-6)
    assert float(score_bce(scores, scores)) == 0


def test_weighted_l2_place_by_place() -> None:
    student, teacher, weight = _random(2, 3, 2, 2), _random(2, 3, 2, 2) * 2, _random(2, 4).abs()
    total = sum(
        float(weight[n, 2 * y + x]) * float(((student - teacher)[n, :, y, x] ** 2).mean())
        for n in range(2)
        for y in range(2)
        for x in range(2)
    )
    expected = total / float(weight.sum())
    assert float(weighted_l2(student, teacher, weight)) == pytest.approx(expected, rel=1e-5)


def _targets(n: int = 2) -> Targets:
    images = torch.rand(n, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    rows = torch.tensor([[0, 1, 0.5, 0.5, 0.4, 0.4], [1, 2, 0.3, 0.6, 0.3, 0.5]])
    return Targets(images, rows, tuple(range(n)), (False,) * n)


def test_feature_l2_is_what_ultralytics_computes(
    tiny: DetectionModel, tiny_teacher: DetectionModel
) -> None:
    from ultralytics.nn.distill_model import DistillationModel

    args = SimpleNamespace(**{**vars(tiny.args), "imgsz": 64, "dis": 6.0})
    tiny.args = args
    theirs = DistillationModel(tiny_teacher, tiny)
    ours = FeatureL2(tiny, tiny_teacher, gain=6.0, device="cpu")
    ours.projections.load_state_dict(theirs.projector.state_dict())
    theirs.train()
    tiny.eval()  # the same batch-norm statistics in both passes
    theirs.training = True
    targets = _targets()
    batch = {
        "img": targets.images,
        "batch_idx": targets.rows[:, 0],
        "cls": targets.rows[:, 1],
        "bboxes": targets.rows[:, 2:],
    }
    expected = float(theirs.loss(batch)[0].sum().detach()) / len(targets.images)
    theirs._remove_feature_hooks()
    got = float(ours(tiny(targets.images)[1], targets).detach())
    assert got == pytest.approx(expected, rel=1e-5)


def test_teacher_is_asked_once_a_view(tiny_teacher: DetectionModel) -> None:
    asked: list[int] = []
    tiny_teacher.model[0].register_forward_pre_hook(lambda _, x: asked.append(len(x[0])))
    cache, targets = TeacherCache(tiny_teacher), _targets()
    scores, boxes = cache(targets)
    again = cache(targets)
    assert asked == [2]
    assert (again[0] == scores).all()
    assert (again[1] == boxes).all()
    flipped = Targets(targets.images.flip(3), targets.rows, targets.at, (True, False))
    cache(flipped)
    assert asked == [2, 1]
    expected = tiny_teacher.eval()(targets.images)[1]["scores"]
    assert torch.allclose(scores, expected, atol=2e-2)  # kept as fp16


def test_gains_add_up(tiny: DetectionModel, tiny_teacher: DetectionModel) -> None:
    targets, cache = _targets(), TeacherCache(tiny_teacher)
    predictions = tiny.eval()(targets.images)[1]

    def total(**gains: float) -> float:
        return float(distillation(cache, **gains)(tiny)(predictions, targets).detach())

    none = {"label_gain": 0.0, "score_gain": 0.0, "box_gain": 0.0}
    parts = [total(**{**none, name: 1.0}) for name in none]
    assert parts[0] == pytest.approx(float(labels(tiny)(predictions, targets).detach()), rel=1e-6)
    assert total(label_gain=2, score_gain=3, box_gain=4) == pytest.approx(
        2 * parts[0] + 3 * parts[1] + 4 * parts[2], rel=1e-5
    )


# Chosen by a configuration -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ({}, {"label_gain": 1.0, "score_gain": 1.0, "box_gain": 1.0}),
        (
            {"loss": "responses", "box_gain": 0},
            {"label_gain": 1.0, "score_gain": 1.0, "box_gain": 0.0},
        ),
        ({"loss": "feature-l2"}, {"loss": "feature-l2", "gain": 6.0}),
        ({"loss": "feature-l2", "gain": 2}, {"loss": "feature-l2", "gain": 2.0}),
    ],
)
def test_a_loss_reads_back_as_it_was_chosen(
    given: dict[str, object], settings: dict[str, object]
) -> None:
    loss = chosen(given)
    assert loss.model_dump() == settings
    assert chosen(settings) == loss


def test_gains_that_are_chosen_are_those_of_the_loss(
    tiny: DetectionModel, tiny_teacher: DetectionModel
) -> None:
    """Each weighs its own part: three primes, and parts that differ."""
    targets, gains = _targets(), {"label_gain": 2.0, "score_gain": 3.0, "box_gain": 5.0}
    predictions = tiny.eval()(targets.images)[1]
    by_hand = distillation(TeacherCache(tiny_teacher), **gains)(tiny)(predictions, targets)
    by_name = chosen(gains).towards(tiny_teacher, "cpu")(tiny)(predictions, targets)
    assert float(by_name.detach()) == pytest.approx(float(by_hand.detach()), rel=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loss": "best"}, "no loss 'best'; there are (?=.*feature-l2).*responses"),
        ({"gain": 2}, "loss responses has no 'gain'; it has label_gain, score_gain, box_gain"),
        ({"loss": "feature-l2", "gain": -1}, "gain: .*greater than or equal to 0"),
    ],
)
def test_what_no_loss_has_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chosen(given)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_teaches_towards_the_teacher(
    name: str, tiny: DetectionModel, tiny_teacher: DetectionModel
) -> None:
    """A finite loss with a gradient, the same each time it is made."""
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([[0.0, 1, 0.5, 0.5, 0.4, 0.4], [1.0, 0, 0.3, 0.3, 0.2, 0.2]])
    targets = Targets(images, rows, (0, 1), (False, False))
    found = []
    for _ in range(2):
        loss_of = LOSSES[name]().towards(tiny_teacher, "cpu")(tiny)
        tiny.train().zero_grad()
        total = loss_of(tiny(images), targets)
        total.backward()  # type: ignore[no-untyped-call]
        found.append(float(total.detach()))
        moved = [p.grad for p in tiny.model[0].parameters() if p.grad is not None]
        assert any(float(g.abs().sum()) > 0 for g in moved)
    assert math.isfinite(found[0])
    assert found[0] == pytest.approx(found[1])
