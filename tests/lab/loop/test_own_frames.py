"""A place of the loop with frames of its own: another folder, on the same day."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from endedge.data.errors import BadInput
from endedge.data.generated import generate
from endedge.lab.config import load_config
from endedge.lab.inputs import Inputs
from endedge.lab.loop.answers import Answers
from endedge.lab.loop.day import Day, evaluation_sets
from endedge.lab.store import Store

FRAMES = {
    "pool_annotations": "source-pool.json",
    "pool_images": "source-pool",
    "eval_annotations": "source-eval.json",
    "eval_images": "source-eval",
}


def _inputs(place: Path, **own: Any) -> Inputs:
    """A day at home, elsewhere, and at home again."""
    document = yaml.safe_load((place / "c.yaml").read_text()) | {
        "link": {"schedule": "sequential", "period_s": 50},
        "loop": {
            "bandwidth_hz": 8000,
            "domains": {
                "home": {"kind": "night", "severity": 2},
                "away": {"frames": {"root": str(place / "other"), **FRAMES, **own}},
            },
            "days": [[{"domain": d, "periods": 1} for d in ("home", "away", "home")]],
            "frames_per_period": 5,
            "eval_frames": 2,
            "monitor_frames": 2,
        },
    }
    (place / "loop.yaml").write_text(yaml.safe_dump(document))
    return Inputs.of(load_config(place / "loop.yaml"), place)


@pytest.fixture
def inputs(place: Path) -> Inputs:
    for split, n in (("pool", 7), ("eval", 6)):
        generate(place / "other", domain="source", split=split, n=n, seed=1, size=64)
    return _inputs(place)


def test_each_place_captures_and_scores_its_own_frames(inputs: Inputs, place: Path) -> None:
    day = Day(inputs, 0, 0)
    folders = ("field-pool", "source-pool", "field-pool")
    for period, folder in zip(day.periods, folders, strict=True):
        assert {c.frame.path.parent.name for c in period.captured} == {folder}
    home, away, again = day.periods
    assert not {c.frame.image_id for c in home.captured} & {c.frame.image_id for c in away.captured}
    scored = {p.domain.name: day.stream.evaluation(p.domain) for p in day.periods}
    for name, folder in (("home", "field-eval"), ("away", "source-eval")):
        assert len(scored[name]) > 0
        assert {f.path.parent.name for f in scored[name].frames} == {folder}
    assert again.returning


def test_no_frame_is_both_captured_and_scored(inputs: Inputs) -> None:
    results, monitor = evaluation_sets(inputs)
    ids = [f.image_id for some in (inputs.seen[0], results, monitor) for f in some.frames]
    assert len(ids) == len(set(ids)) == 12 + 7 + 4 + 6


def test_the_edge_knows_the_truth_of_either_place(inputs: Inputs, tmp_path: Path) -> None:
    """The boxes of the frame that was uploaded, not those of another one of its number."""
    edge, day = Answers(inputs, Store(tmp_path / "answers"), 0), Day(inputs, 0, 0)
    for period in day.periods:
        for seen in period.captured:
            assert edge._annotated[seen.frame.image_id] is seen.frame


def test_other_frames_are_other_results(inputs: Inputs, place: Path) -> None:
    fewer = _inputs(
        place,
        eval_annotations="source-pool.json",
        eval_images="source-pool",
        pool_annotations="source-eval.json",
        pool_images="source-eval",
    )
    assert fewer.hashes["places"] != inputs.hashes["places"]
    assert {k: v for k, v in fewer.hashes.items() if k != "places"} == {
        k: v for k, v in inputs.hashes.items() if k != "places"
    }


def test_a_loop_without_such_places_is_named_as_before(place: Path) -> None:
    inputs = Inputs.of(load_config(place / "c.yaml"), place)
    assert set(inputs.hashes) == {"pool", "evaluation", "teacher", "student"}
    assert inputs.seen == (inputs.pool, inputs.evaluation)


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"root": "/no/such/folder"}, r"loop\.domains\.away\.frames\.root is not a folder"),
        ({"pool_annotations": "nothing.json"}, r"nothing\.json"),
        (
            {"eval_annotations": "source-pool.json", "eval_images": "source-pool"},
            "are the same picture",
        ),
    ],
)
def test_bad_folders_are_one_line(
    inputs: Inputs, place: Path, own: dict[str, str], says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        Day(_inputs(place, **own), 0, 0)
