from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from endedge.configs import SHIPPED
from endedge.data.errors import BadInput
from endedge.data.frames import Batch
from endedge.distill.adapter import adapter_of, attach, kind_of, start_adapter
from endedge.distill.adapter_training import learn_adapter
from endedge.distill.loss import Make
from endedge.distill.losses import labels
from endedge.distill.model import DetectionModel, build_detector, clone, model_hash
from endedge.distill.precision import computing
from endedge.distill.training import Recipe, train
from endedge.edge.adapt import held_back_loss
from endedge.edge.choosing import (
    CANDIDATES,
    Candidate,
    choose_adapter,
    choose_and_train,
)
from endedge.edge.evidence import Evidence, Prior, gain_over, judge_chosen, left_of

RECIPE = Recipe(steps=24, batch=4, lr=1.0, layers=None, ema=0.5, seed=0)


@pytest.fixture(scope="module")
def frames(squares: Callable[[int], Batch]) -> Batch:
    return squares(12)


@pytest.fixture(scope="module")
def skilled(frames: Batch) -> DetectionModel:
    """A detector that knows the frames as they are."""
    torch.manual_seed(0)
    start = build_detector(yaml.safe_load((SHIPPED / "demo/student.yaml").read_text()))
    recipe = replace(RECIPE, steps=100, batch=8, lr=1e-2, train_norm=True)
    return train(start, frames, labels, recipe)


def _inverted(frames: Batch) -> Batch:
    return replace(frames, images=255 - frames.images)


def test_an_inverted_camera_is_seen_and_undone(skilled: DetectionModel, frames: Batch) -> None:
    model, losses = choose_adapter(skilled, _inverted(frames))
    adapter = adapter_of(model)
    assert adapter is not None
    assert torch.equal(adapter.curve, start_adapter("inverted").curve)
    assert losses["inverted"] < losses["as it is"]
    assert held_back_loss(model, _inverted(frames)) < held_back_loss(skilled, _inverted(frames))


def test_no_adapter_is_kept_that_does_not_surely_help(
    skilled: DetectionModel, frames: Batch
) -> None:
    model, _ = choose_adapter(skilled, frames, sure=100.0)
    assert model_hash(model) == model_hash(skilled)
    one, _ = choose_adapter(skilled, _inverted(frames).take([0]))  # one frame is no evidence
    assert one is skilled


def test_an_adapter_is_learned_and_nothing_else(skilled: DetectionModel, frames: Batch) -> None:
    dim = replace(frames, images=(frames.images.float() * 0.4).byte())
    learned = learn_adapter(skilled, dim, replace(RECIPE, lr=3e-2))
    assert held_back_loss(learned, dim) < held_back_loss(skilled, dim)
    attach(learned, None)
    assert model_hash(learned) == model_hash(skilled)
    with pytest.raises(BadInput, match="no frames"):
        learn_adapter(skilled, frames.take([]), RECIPE)


STRONG = Candidate("all", None, 2e-2, True)
HARMFUL = Candidate("harm", None, 1e6, False)  # ends in numbers that are not finite


def test_the_better_candidate_wins_within_the_steps(tiny: DetectionModel, frames: Batch) -> None:
    before = model_hash(tiny)
    found = choose_and_train(tiny, frames, RECIPE, candidates=(HARMFUL, STRONG))
    assert found.candidate == "all"
    assert found.choosing_steps <= found.training_steps == RECIPE.steps
    assert found.evidence.gain > 0
    assert found.evidence.frames == 8  # two folds of three: one alone is too few
    assert held_back_loss(found.model, frames) < held_back_loss(tiny, frames)
    assert model_hash(tiny) == before
    again = choose_and_train(tiny, frames, RECIPE, candidates=(HARMFUL, STRONG))
    assert model_hash(again.model) == model_hash(found.model)
    assert again.trials == found.trials


def test_where_nothing_helps_nothing_is_trained(skilled: DetectionModel, frames: Batch) -> None:
    found = choose_and_train(skilled, frames, RECIPE, candidates=(HARMFUL,))
    assert found.candidate == "none"
    assert (found.share, found.training_steps) == (0.0, 0)


def test_short_trainings_leave_the_bold_candidates_out(tiny: DetectionModel, frames: Batch) -> None:
    found = choose_and_train(tiny, frames, replace(RECIPE, steps=8))
    tried = {name for _, name, _, _ in found.trials}
    assert tried == {"none", CANDIDATES[0].name, CANDIDATES[1].name}
    assert found.choosing_steps <= 8


def test_too_few_frames_and_no_candidates_are_one_line(tiny: DetectionModel, frames: Batch) -> None:
    with pytest.raises(BadInput, match="5 frames cannot judge an adaptation; upload at least 6"):
        choose_and_train(tiny, frames.take(range(5)), RECIPE)
    with pytest.raises(BadInput, match="no candidates"):
        choose_and_train(tiny, frames, RECIPE, candidates=())


def test_the_posterior_is_the_mean_of_many_frames_and_the_prior_without_them() -> None:
    prior = Prior(mean=0.05, deviation=0.1)
    many = np.full(10_000, 0.8)
    mean, error = prior.posterior(many, [str(i) for i in range(10_000)])
    assert mean == pytest.approx(0.8, abs=1e-3)
    assert error < 0.01
    few_mean, few_error = prior.posterior(np.array([0.2, 0.2]), ["a", "b"])
    assert 0.05 < few_mean < 0.18  # drawn to 0.05
    assert few_error > 0.03


def test_frames_of_one_flight_are_one_witness() -> None:
    rng = np.random.default_rng(0)
    flights = np.repeat(rng.normal(0.1, 0.2, 8), 10)
    apart = Prior().posterior(flights, [str(i) for i in range(80)])[1]
    together = Prior().posterior(flights, [str(i // 10) for i in range(80)])[1]
    assert together > 1.5 * apart


def test_a_gain_raises_the_prior_of_the_next_round() -> None:
    assert Prior(mean=0.0).after(0.2).mean == pytest.approx(0.1)


def test_what_packing_lost_counts_against_the_gain(
    skilled: DetectionModel, tiny: DetectionModel, frames: Batch
) -> None:
    evidence = Evidence(gain=0.5, error=0.1, before=3.0, frames=8, groups=8)
    kept = judge_chosen(tiny, skilled, clone(skilled), evidence, frames)
    assert kept.helps
    assert kept.after == pytest.approx(3.0 * np.exp(-0.5))
    assert not judge_chosen(tiny, skilled, tiny, evidence, frames).helps  # a ruin arrives
    unsure = replace(evidence, error=0.6)
    assert not judge_chosen(tiny, skilled, clone(skilled), unsure, frames).helps
    assert judge_chosen(tiny, skilled, clone(skilled), unsure, frames, sure=0.5).helps


def test_kind_of_a_chosen_adapter_is_named(skilled: DetectionModel, frames: Batch) -> None:
    found = choose_and_train(skilled, _inverted(frames), RECIPE, candidates=(HARMFUL,))
    assert found.candidate == "none"
    assert found.kind == kind_of(found.model) != "none"


def test_a_teacher_must_be_ahead_of_what_labels_alone_teach(
    skilled: DetectionModel, tiny: DetectionModel, frames: Batch
) -> None:
    told: list[float] = []

    def objective(gain: float) -> Make:
        told.append(gain)
        return labels

    found = choose_and_train(tiny, frames, RECIPE, candidates=(STRONG,), objective=objective)
    assert told == [found.evidence.gain]
    assert not found.taught
    assert gain_over(tiny, skilled, frames) > 0.2
    assert gain_over(skilled, tiny, frames) < 0
    assert gain_over(tiny, skilled, frames) > gain_over(tiny, skilled, frames.take([0, 1])) > 0


@pytest.mark.parametrize(
    ("gain", "whole", "decoded", "left", "noise"),
    [
        pytest.param(0.4, [0.8, 0.6], [0.8, 0.6], 0.4, 0.0, id="a perfect package"),
        pytest.param(0.4, [0.8, 0.6], [0.0, 0.0], 0.0, 0.0, id="one that changes nothing"),
        pytest.param(0.4, [0.8, 0.4], [0.4, 0.2], 0.2, 0.0, id="half of it"),
        pytest.param(0.4, [0.5, 0.5], [0.9, 0.9], 0.4, 0.0, id="never more than all"),
        pytest.param(0.4, [0.5, 0.5], [-0.5, -0.5], -0.4, 0.0, id="a ruin"),
        # The share is 0.75, frames are 0.25 from it: 0.4 · 0.25 · √2 / √2.
        pytest.param(0.4, [1.0, 1.0], [0.5, 1.0], 0.3, 0.1, id="frames that disagree"),
        pytest.param(-0.1, [0.5, 0.5], [0.3, 0.3], -0.3, 0.0, id="no gain to share"),
        pytest.param(0.4, [-0.5, -0.5], [-0.6, -0.6], 0.3, 0.0, id="nothing learned by heart"),
        pytest.param(0.4, [0.5], [0.25], 0.2, 0.0, id="one frame"),
        pytest.param(0.4, [0.5, 0.5], [0.5, -np.inf], -np.inf, 0.0, id="not finite"),
    ],
)
def test_what_packing_left_of_a_gain(
    gain: float, whole: list[float], decoded: list[float], left: float, noise: float
) -> None:
    found = left_of(gain, np.array(whole), np.array(decoded))
    assert found == pytest.approx((left, noise))


def test_bf16_chooses_and_judges_alike(
    skilled: DetectionModel, tiny: DetectionModel, frames: Batch
) -> None:
    evidence = Evidence(gain=0.5, error=0.1, before=3.0, frames=8, groups=8)
    exact = judge_chosen(tiny, skilled, clone(skilled), evidence, frames)
    with computing("bf16"):
        model, losses = choose_adapter(skilled, _inverted(frames))
        judged = judge_chosen(tiny, skilled, clone(skilled), evidence, frames)
        ruined = judge_chosen(tiny, skilled, _ruin(skilled), evidence, frames)
        found = choose_and_train(skilled, frames, RECIPE, candidates=(HARMFUL,))
    adapter = adapter_of(model)
    assert adapter is not None
    assert torch.equal(adapter.curve, start_adapter("inverted").curve)
    assert (judged.helps, ruined.helps) == (exact.helps, False)
    assert judged.after == pytest.approx(exact.after, rel=0.02)
    assert found.candidate == "none"
    assert all(np.isfinite(loss) for loss in losses.values())


def _ruin(model: DetectionModel) -> DetectionModel:
    ruin = clone(model)
    for parameter in ruin.parameters():
        parameter.data.zero_()
    return ruin
