"""Fair shares of compute."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from endedge.edge.server.jobs import FairQueue


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), st.integers(10, 60))
def test_backlogged_devices_get_equal_seconds(costs: list[int], rounds: int) -> None:
    queue, used = FairQueue(), dict.fromkeys(map(str, range(len(costs))), 0)
    for name in used:
        queue.add(name, 1)
    for _ in range(rounds):
        taken = queue.take()
        assert taken is not None
        cost = costs[int(taken[0])]
        used[taken[0]] += cost
        queue.done(taken[0], cost)
        queue.add(taken[0], taken[1] + 1)
        assert max(used.values()) - min(used.values()) <= max(costs)


def test_one_job_of_a_device_at_a_time_and_absence_earns_nothing() -> None:
    queue = FairQueue()
    queue.add("a", 1)
    for k in range(10):
        assert queue.take() == ("a", k + 1)
        assert queue.take() is None
        assert "a" in queue
        queue.done("a", 1.0)
        queue.add("a", k + 2)
    queue.add("b", 1)  # ten seconds late: it goes next, not ten times in a row
    order = []
    for _ in range(6):
        taken = queue.take()
        assert taken is not None
        order.append(taken[0])
        queue.done(taken[0], 1.0)
        queue.add(*taken)
    assert order.count("a") == order.count("b") == 3
