"""Devices as they are named on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endedge.data.errors import BadInput
from endedge.lab.fleet.members import Member, are_several, read_members, total


def test_words() -> None:
    words = ["demo*3", "runs/mine@0.5", "a*2@2e-1", "plain"]
    assert read_members(words) == (
        Member("demo", 3),
        Member("runs/mine", 1, 0.5),
        Member("a", 2, 0.2),
        Member("plain"),
    )
    assert total(read_members(words)) == 7


@given(
    place=st.from_regex(r"[a-z/-]{1,12}", fullmatch=True),
    count=st.integers(1, 10**5),
    weight=st.floats(1e-3, 1e3).map(lambda w: float(f"{w:g}")),
)
def test_a_member_reads_back_as_it_is_written(place: str, count: int, weight: float) -> None:
    member = Member(place, count, weight)
    assert read_members([str(member)]) == (member,)


def test_a_folder_may_be_called_anything(tmp_path: Path) -> None:
    odd = tmp_path / "runs*2@3"
    odd.mkdir()
    assert read_members([str(odd)]) == (Member(str(odd)),)
    assert not are_several([str(odd)])
    assert read_members([f"{odd}*4"])[0].count == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["demo*0"], "'0' devices"),
        (["demo*-2"], "'-2' devices"),
        (["demo*"], "'' devices"),
        (["demo*2.5"], "whole number"),
        (["demo@0"], "weight '0'"),
        (["demo@-1"], "above 0"),
        (["demo@nan"], "above 0"),
        (["demo@inf"], "above 0"),
        (["demo@much"], "above 0"),
        (["demo*600000", "demo*600000"], "at most 1000000"),
    ],
)
def test_bad_words(words: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message.replace("*", r"\*")):
        read_members(words)


def test_what_is_several() -> None:
    assert are_several(["demo", "demo"])
    assert are_several(["demo*2"])
    assert are_several(["demo@2"])
    assert not are_several(["demo"])
