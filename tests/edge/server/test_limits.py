"""Token buckets and the quota of the disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endedge.data.errors import BadInput
from endedge.edge.server.limits import DiskQuota, Limits, TokenBucket


@given(
    st.floats(0.5, 50),
    st.floats(1, 100),
    st.lists(st.tuples(st.floats(0, 5), st.floats(0, 20)), max_size=60),
)
def test_no_more_than_the_burst_and_the_rate(
    per_s: float, burst: float, asked: list[tuple[float, float]]
) -> None:
    """Whoever waits as it is told has spent at most burst + rate x time at any time."""
    now_s = spent = 0.0
    pace = TokenBucket(per_s, burst, clock=lambda: now_s)
    for gap_s, cost in asked:
        now_s += gap_s
        spent += cost
        now_s += pace.spend(cost)
        assert spent <= burst + per_s * now_s + 1e-6


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 9)), max_size=60))
def test_what_is_not_granted_costs_nothing(asked: list[tuple[float, float]]) -> None:
    now_s = granted = 0.0
    pace = TokenBucket(2.0, 10.0, clock=lambda: now_s)
    for gap_s, cost in asked:
        now_s += gap_s
        wait_s = pace.wait_s(cost)
        granted += cost if wait_s == 0 else 0
        assert granted <= 10 + 2 * now_s + 1e-6
        if wait_s:
            now_s += wait_s + 1e-9
            assert pace.wait_s(cost) == 0
            granted += cost


def test_the_quota_counts_the_whole_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x").write_bytes(bytes(600))
    quota = DiskQuota(tmp_path, 1000)
    assert quota.has_room(400)
    assert not quota.has_room(401)
    monkeypatch.setattr("endedge.edge.server.limits._LOOK_EVERY_S", 0.0)
    (tmp_path / "y").write_bytes(bytes(300))
    assert not quota.has_room(101)
    assert DiskQuota(tmp_path, None).limit_bytes > 900


def test_limits_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="messages_per_s"):
        Limits(messages_per_s=0)
    with pytest.raises(BadInput, match="disk_bytes"):
        Limits(disk_bytes=-1)
