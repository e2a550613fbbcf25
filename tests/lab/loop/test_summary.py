"""``summary.csv`` by hand: averages over time, devices and seeds, and what comes back."""

from __future__ import annotations

from typing import Any

import pytest

from endedge.lab.loop.summary import backward_transfer, summarize
from tests.lab.loop.test_columns import WANTED


def test_backward_transfer_by_hand() -> None:
    def row(k: int, domain: str, returned: int, before: float, after: float) -> dict[str, Any]:
        return {
            "device": 0,
            "round": k,
            "domain": domain,
            "returned": returned,
            "map_before": before,
            "map_after": after,
        }

    rows = [
        row(1, "a", 0, 0.1, 0.3),
        row(2, "a", 0, 0.3, 0.4),
        row(3, "b", 0, 0.1, 0.2),
        row(4, "a", 1, 0.35, 0.5),
        row(5, "b", 1, 0.3, 0.3),
    ]
    assert backward_transfer(rows) == pytest.approx([-0.05, 0.1])


def test_the_summary_averages_over_time_devices_and_seeds() -> None:
    base = {
        "policy": "equal",
        "round": 1,
        "domain": "a",
        "returned": 0,
        "map_before": 0.1,
        "map_after": 0.2,
        "upload_bytes": 10,
        "update_bytes": 5,
        "sent": 1,
        "applied": 1,
        "edge_seconds": 1.0,
        "device_seconds": 0.0,
        "identifiable": 4,
        "exposed": 1,
    }
    rows = [
        base | {"seed": s, "device": d, "map": 0.1 * s + 0.02 * d} for s in (1, 2) for d in (0, 1)
    ]
    (one,) = summarize(rows)
    assert one["map"] == pytest.approx(0.16)
    assert (one["low"], one["high"]) == pytest.approx((0.11, 0.21))
    assert (one["upload_bytes"], one["update_bytes"]) == (20, 10)
    assert one["exposed"] == pytest.approx(0.25)


def test_the_summary_by_hand() -> None:
    """Two rounds of two devices with two seeds, and every sum or mean is another figure."""
    first, second = WANTED
    later = {"round": 4, "device_seconds": 4.0}
    kept = {"sent": 0, "applied": 0, "update_bytes": 500, "map": 0.4, "map_after": 0.45}
    rows = [
        {**first, "device_seconds": 2.0, "map": 0.1},
        {**second, "device_seconds": 2.0, "map": 0.2},
        {**first, **later, **kept},
        {**second, **later, "map": 0.3, "map_after": 0.65, "applied": 0, "lost": 1},
    ]
    rows += [replace_seed(row, 8) for row in rows]
    (found,) = summarize(rows)
    wanted = {
        "policy": "fitted+redacted",
        "map": 0.3,  # of seed 7: (0.1 + 0.2 + 0.4 + 0.3) / 4, of seed 8 0.1 more
        "low": 0.25,
        "high": 0.35,
        "seeds": 2,
        "last_map": 0.55,  # after the last round alone
        "upload_bytes": 2 * (3000 + 4000),  # a seed
        "update_bytes": 1000 + 2000 + 2000,  # a seed; what stayed at home did not fly
        "sent": 6,
        "applied": 4,
        "rounds": 8,
        "edge_seconds": 2.0,
        "device_seconds": 3.0,
        "exposed": 5 / 17,
    }
    for column, value in wanted.items():
        assert found[column] == (pytest.approx(value) if isinstance(value, float) else value), (
            column
        )


def replace_seed(row: dict[str, Any], seed: int) -> dict[str, Any]:
    """The same row of another seed, a tenth better on average over its period."""
    return {**row, "seed": seed, "map": row["map"] + 0.1}
