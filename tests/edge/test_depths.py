"""How deep a student learned is a question of the budget: two depths compete for every package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import yaml

from endedge.configs import SHIPPED
from endedge.data.frames import Batch
from endedge.distill.losses import labels
from endedge.distill.model import DetectionModel, build_detector
from endedge.distill.package.choose import PreparedMenu
from endedge.distill.training import Recipe, train
from endedge.edge.adapt import Upload
from endedge.edge.choosing import Candidate, Chosen, choose_and_train
from endedge.edge.edge import EdgeEnd
from endedge.edge.evidence import Evidence
from endedge.edge.plan import Plan, Student, with_shallow
from endedge.lab.config import load_config

DEEP, SHALLOW = Student("a"), Student("a", shallow=True)
ALL = Candidate("all", None, 2e-2, True)
FRONT = Candidate("front", 5, 2e-2, True)
HARM = Candidate("harm", 5, 1e6, False)  # ends in numbers that are not finite
RECIPE = Recipe(steps=12, batch=4, lr=1.0, layers=None, ema=0.5, seed=0)
LONGER = replace(RECIPE, steps=40, batch=8, lr=1e-2, train_norm=True)


@pytest.fixture(scope="module")
def frames(squares: Callable[[int], Batch]) -> Batch:
    return squares(12)


@pytest.fixture(scope="module")
def held() -> DetectionModel:
    torch.manual_seed(0)
    return build_detector(yaml.safe_load((SHIPPED / "demo/student.yaml").read_text()))


@pytest.fixture(scope="module")
def chosen(held: DetectionModel, frames: Batch) -> Chosen:
    return choose_and_train(held, frames, RECIPE, candidates=(FRONT, ALL))


def _moved(model: DetectionModel, start: DetectionModel) -> set[int]:
    """The modules of the network whose weights are not those of ``start``."""
    before = start.state_dict()
    return {
        int(name.split(".")[1])
        for name, tensor in model.state_dict().items()
        if name in before and not torch.equal(tensor, before[name])
    }


def test_a_shallow_student_is_trained_beside_a_deep_one(
    chosen: Chosen, held: DetectionModel
) -> None:
    assert (chosen.candidate, chosen.shallow is not None) == ("all", True)
    shallow = chosen.shallow
    assert shallow is not None
    assert shallow.candidate == "front"
    assert _moved(shallow.model, held) == set(range(5))
    assert len(_moved(chosen.model, held)) > 10
    assert 0 < shallow.evidence.gain <= chosen.evidence.gain
    assert shallow.evidence.frames == chosen.evidence.frames


@pytest.mark.parametrize(
    ("candidates", "winner"),
    [
        pytest.param((FRONT,), "front", id="it is what won"),
        pytest.param((ALL,), "all", id="there is none"),
        pytest.param((HARM, ALL), "all", id="it would not help"),
    ],
)
def test_or_there_is_none(
    candidates: tuple[Candidate, ...], winner: str, held: DetectionModel, frames: Batch
) -> None:
    found = choose_and_train(held, frames, RECIPE, candidates=candidates)
    assert (found.candidate, found.shallow) == (winner, None)


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> EdgeEnd:
    config = load_config("demo", [])
    plan = Plan(
        teacher=config.teacher,
        student=config.student,
        recovery=config.recovery,
        loss=config.distillation,
        menu=with_shallow([Student("a")]),
        held_share=0.2,
        held_most=4,
        shares=(1.0,),
        least=2,
        labels="truth",
        mode="auto",
        side=64,
        device="cpu",
        chosen=True,
    )
    return EdgeEnd(plan, 0)


@pytest.fixture(scope="module")
def prepared(edge: EdgeEnd, held: DetectionModel, frames: Batch) -> PreparedMenu:
    deep = train(held, frames, labels, LONGER)
    shallow = train(held, frames, labels, replace(LONGER, layers=2))
    return edge.prepare([deep, shallow], held, Upload(frames, frames))


def test_each_budget_takes_the_depth_that_comes_through_it(
    edge: EdgeEnd, prepared: PreparedMenu, held: DetectionModel, frames: Batch
) -> None:
    """Little room: the one that changed little; much room: the better one."""
    known = Upload(frames, frames)
    said = {
        line.kin: Evidence(gain, 0.01, 1.0, 12, 12)
        for line, gain in ((DEEP, 1.0), (SHALLOW, 0.5))  # as if frames unseen had said so
    }
    picked = {
        budget: edge.line(edge.pack_from(prepared, budget, said, known, held))
        for budget in (2_000, 120_000)
    }
    assert picked == {2_000: SHALLOW, 120_000: DEEP}


def test_what_would_be_sent_comes_before_what_would_not(
    edge: EdgeEnd, prepared: PreparedMenu, held: DetectionModel, frames: Batch
) -> None:
    """A larger gain that nothing makes sure of is worth nothing to the device."""
    known = Upload(frames, frames)
    for sure, unsure in ((DEEP, SHALLOW), (SHALLOW, DEEP)):
        said = {
            sure.kin: Evidence(0.5, 0.01, 1.0, 12, 12),
            unsure.kin: Evidence(2.0, 9.0, 1.0, 12, 12),
        }
        assert edge.line(edge.pack_from(prepared, 120_000, said, known, held)) == sure


def test_one_student_at_both_depths_is_packed_once(
    edge: EdgeEnd, held: DetectionModel, frames: Batch
) -> None:
    prepared = edge.prepare([held, held], None, Upload(frames, frames))
    assert list(prepared.prepared) == [0]


def test_the_menu_names_both_depths_of_a_whole_one_only() -> None:
    small, half = Student("b"), Student("b", 0.5)
    lines = with_shallow([small, half])
    assert [str(line) for line in lines] == ["b", "b, first layers", "b at 50%"]
    assert [line.kin for line in lines] == ["b", "b, first layers", "b"]
