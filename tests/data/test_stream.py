"""A device's day: what is captured when, through which camera, and what never leaves."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from endedge.data.coco import Dataset, Frame
from endedge.data.errors import BadInput
from endedge.data.shift import Shift
from endedge.data.stream import Domain, Period, Segment, Stream, hold_out

NAMES = ("cat", "dog")
DAY = Domain("day")
NIGHT = Domain("night", Shift("night", 4))
FOG = Domain("fog", Shift("fog", 3))


def frames(n: int, first_id: int = 0, seed: int = 0) -> Dataset:
    """Frames with one to three boxes of two classes each; no pictures."""
    rng = np.random.default_rng([seed, first_id])
    made = []
    for i in range(n):
        k = int(rng.integers(1, 4))
        made.append(
            Frame(
                first_id + i,
                Path("none"),
                10,
                10,
                np.ones((k, 4), np.float32),
                rng.integers(0, 2, k),
                np.zeros(k, np.bool_),
            )
        )
    return Dataset(tuple(made), NAMES, (1, 2))


POOL, EVALUATION = frames(200), frames(60, first_id=1000)


def stream(
    segments: list[Segment], *, seed: int = 0, capture_hz: float = 1.0, period_s: float = 10.0
) -> Stream:
    return Stream(
        POOL,
        EVALUATION,
        segments,
        period_s=period_s,
        capture_hz=capture_hz,
        eval_frames=20,
        seed=seed,
    )


def ids(period: Period) -> list[int]:
    return [c.frame.image_id for c in period.captured]


DAY_NIGHT_DAY = [Segment(DAY, 3), Segment(NIGHT, 4), Segment(DAY, 2)]


def test_periods_follow_the_segments() -> None:
    periods = stream(DAY_NIGHT_DAY).periods
    assert [p.index for p in periods] == list(range(9))
    assert [p.start_s for p in periods] == [10.0 * i for i in range(9)]
    assert [p.domain.name for p in periods] == ["day"] * 3 + ["night"] * 4 + ["day"] * 2
    assert [p.segment for p in periods] == [0] * 3 + [1] * 4 + [2] * 2
    assert [p.returning for p in periods] == [False] * 7 + [True] * 2
    for period in periods:
        assert {c.shift for c in period.captured} == {period.domain.shift}


def test_the_same_domain_going_on_is_not_a_return() -> None:
    periods = stream([Segment(DAY, 1), Segment(DAY, 1), Segment(FOG, 1), Segment(DAY, 1)]).periods
    assert [p.returning for p in periods] == [False, False, False, True]


@given(
    st.integers(0, 50),
    st.floats(0.13, 7.0),
    st.floats(1.0, 20.0),
    st.sampled_from(["sudden", "gradual"]),
)
@settings(deadline=None, max_examples=20)
def test_capture_rate_and_no_evaluation_frame_and_no_repeat_in_a_period(
    seed: int, capture_hz: float, period_s: float, change: str
) -> None:
    if not 1 <= capture_hz * period_s <= 60:
        return
    segments = [Segment(DAY, 3), Segment(NIGHT, 3, change), Segment(DAY, 3, change)]  # type: ignore[arg-type]
    made = stream(segments, seed=seed, capture_hz=capture_hz, period_s=period_s)
    evaluated = {f.image_id for d in made.domains for f in made.evaluation(d).frames}
    total = 0
    for period in made.periods:
        assert len(set(ids(period))) == len(period.captured)
        assert not evaluated & set(ids(period))
        assert abs(len(period.captured) - capture_hz * period_s) <= 1
        for c in period.captured:
            assert period.start_s - 1e-5 <= c.time_s <= period.start_s + period_s + 1e-5
        total += len(period.captured)
    assert abs(total - 9 * capture_hz * period_s) <= 1


def test_a_stream_repeats_with_its_seed_and_differs_with_another() -> None:
    def trace(seed: int) -> list[tuple[int, Shift]]:
        segments = [Segment(DAY, 2), Segment(NIGHT, 3, "gradual")]
        return [
            (c.frame.image_id, c.shift)
            for p in stream(segments, seed=seed).periods
            for c in p.captured
        ]

    assert trace(1) == trace(1)
    assert trace(1) != trace(2)


def test_frames_repeat_only_when_the_domain_has_no_more() -> None:
    made = stream([Segment(DAY, 4), Segment(NIGHT, 4), Segment(DAY, 18)])  # day: 220 of 200
    seen = Counter(i for p in made.periods if p.domain is DAY for i in ids(p))
    assert len(seen) == 200
    assert set(seen.values()) == {1, 2}
    assert sum(seen.values()) == 220


def test_a_returning_domain_is_evaluated_on_the_same_frames() -> None:
    made = stream(DAY_NIGHT_DAY)
    first, last = made.periods[0], made.periods[-1]
    assert made.evaluation(first.domain) is made.evaluation(last.domain)
    assert len(made.evaluation(DAY)) == 20
    other = {f.image_id for f in made.evaluation(NIGHT).frames}
    assert other != {f.image_id for f in made.evaluation(DAY).frames}


def test_gradual_change_mixes_in_more_and_harder_frames() -> None:
    made = stream([Segment(DAY, 1), Segment(NIGHT, 10, "gradual")], capture_hz=10.0)
    night = [[c for c in p.captured if c.shift.kind == "night"] for p in made.periods[1:]]
    share = [len(n) / 100 for n in night]
    want = [(i + 0.5) / 10 for i in range(10)]
    assert np.abs(np.array(share) - want).max() < 0.2
    severity = [max(c.shift.severity for c in n) for n in night if n]
    assert severity == sorted(severity)
    assert (severity[0], severity[-1]) == (1, 4)
    assert all(c.shift == DAY.shift for p in made.periods[:1] for c in p.captured)


def test_gradual_from_shift_to_shift_keeps_the_old_camera_until_then() -> None:
    made = stream([Segment(FOG, 1), Segment(NIGHT, 4, "gradual")], capture_hz=5.0)
    kinds = Counter(c.shift.kind for p in made.periods[1:] for c in p.captured)
    assert set(kinds) == {"fog", "night"}
    assert {c.shift for p in made.periods for c in p.captured if c.shift.kind == "fog"} == {
        FOG.shift
    }


def test_class_mix_changes_with_the_domain_and_holds_for_evaluation() -> None:
    cats = Domain("cats", class_weights={"dog": 0.05})
    made = stream([Segment(DAY, 5), Segment(cats, 5)])

    def cat_share(labels: list[int]) -> float:
        return labels.count(0) / len(labels)

    def of(periods: tuple[Period, ...]) -> float:
        return cat_share([int(x) for p in periods for c in p.captured for x in c.frame.labels])

    assert of(made.periods[:5]) < 0.6
    assert of(made.periods[5:]) > 0.7
    assert cat_share([int(x) for f in made.evaluation(cats).frames for x in f.labels]) > 0.7


def test_a_class_of_weight_zero_alone_is_never_seen() -> None:
    made = stream([Segment(Domain("dogs", class_weights={"cat": 0.0}), 5)])
    assert all((c.frame.labels == 1).any() for p in made.periods for c in p.captured)


def test_look_is_the_camera_of_that_moment(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(path)
    one = Frame(
        7, path, 8, 8, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_)
    )
    made = Stream(
        Dataset((one,), NAMES, (1, 2)),
        EVALUATION,
        [Segment(NIGHT, 1)],
        period_s=1,
        capture_hz=1,
        eval_frames=1,
        seed=0,
    )
    seen = made.periods[0].captured[0].look()
    np.testing.assert_array_equal(seen, NIGHT.shift.apply(np.full((8, 8, 3), 200, np.uint8), 7))
    assert seen.mean() < 150


def test_hold_out_is_a_seeded_partition() -> None:
    rest, held = hold_out(POOL, 50, seed=3)
    assert (len(rest), len(held)) == (150, 50)
    assert {f.image_id for f in rest.frames} | {f.image_id for f in held.frames} == set(range(200))
    small = hold_out(POOL, 20, seed=3)[1]
    assert {f.image_id for f in small.frames} < {f.image_id for f in held.frames}
    for n in (0, 200):
        with pytest.raises(BadInput):
            hold_out(POOL, n, seed=0)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"segments": []}, "at least one segment"),
        ({"evaluation": POOL}, "both captured and evaluated"),
        ({"evaluation": Dataset(EVALUATION.frames, ("a", "b"), (1, 2))}, "different classes"),
        ({"capture_hz": 0.01}, "at least 1 a period"),
        ({"capture_hz": float("nan")}, "at least 1 a period"),
        ({"capture_hz": 21.0}, "captured a period"),
        ({"capture_hz": 1e9}, "in all"),
        ({"eval_frames": 0}, "evaluation frames"),
        ({"segments": [Segment(Domain("x", class_weights={"cow": 1.0}), 1)]}, "unknown class"),
        (
            {"segments": [Segment(Domain("x", class_weights={"cat": 0, "dog": 0}), 1)]},
            "weighs 0",
        ),
        ({"segments": [Segment(DAY, 1), Segment(Domain("day", NIGHT.shift), 1)]}, "two different"),
    ],
)
def test_bad_streams_are_refused(change: dict[str, object], match: str) -> None:
    arguments: dict[str, object] = {
        "capture": POOL,
        "evaluation": EVALUATION,
        "segments": [Segment(DAY, 1)],
        "period_s": 10.0,
        "capture_hz": 1.0,
        "eval_frames": 5,
        "seed": 0,
    }
    with pytest.raises(BadInput, match=match):
        Stream(**(arguments | change))  # type: ignore[arg-type]


def test_bad_segments_are_refused() -> None:
    with pytest.raises(BadInput):
        Segment(DAY, 0)
    with pytest.raises(BadInput):
        Segment(DAY, 1, "slow")  # type: ignore[arg-type]
    with pytest.raises(BadInput):
        Domain("x", class_weights={"cat": -1.0})
