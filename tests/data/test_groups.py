from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from endedge.data.groups import folds_of, group_in, groups_of


@given(
    st.lists(st.sampled_from("abcdefg"), min_size=3, max_size=60),
    st.integers(2, 3),
    st.integers(0, 5),
)
def test_a_group_is_never_on_both_sides(names: list[str], folds: int, seed: int) -> None:
    groups = groups_of(names, len(names), folds)
    found = folds_of(groups, folds, seed)
    assert len({(g, f) for g, f in zip(groups, found, strict=True)}) == len(set(groups))
    assert set(found) == set(range(folds))  # none is empty
    assert folds_of(groups, folds, seed) == found


def test_frames_without_groups_are_dealt_evenly_and_differently_by_seed() -> None:
    groups = groups_of(None, 16, 3)
    dealt = folds_of(groups, 3, 0)
    assert sorted(dealt.count(f) for f in range(3)) == [5, 5, 6]
    assert dealt != folds_of(groups, 3, 1)


def test_too_few_groups_to_divide_are_not_used() -> None:
    assert groups_of(["day", "day", "night"], 3, 3) == ["frame 0", "frame 1", "frame 2"]
    assert groups_of(["a", "b", "b", "c"], 4, 3) == ["a", "b", "b", "c"]


def test_the_group_of_a_record() -> None:
    assert group_in({"id": 1, "group": "2020-12-17/1", "video_id": 7}) == "2020-12-17/1"
    assert group_in({"id": 1, "video_id": 7}) == "7"
    for value in ("", None, True, [1], 0.5):
        record: dict[str, object] = {"id": 1, "group": value}
        assert group_in(record) is None
