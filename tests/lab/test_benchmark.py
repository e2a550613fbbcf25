from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from endedge.allocator import Rules, Surface, fit
from endedge.data.units import BadInput
from endedge.lab.benchmark import bandwidths, benchmark, outcomes_csv, summary
from endedge.lab.config import Link


def _surface() -> Surface:
    """4 uploads x 3 budgets x 2 seeds of a smooth made-up F (not a measurement)."""
    rows = []
    for seed in (0, 1):
        for frames in (8, 32, 128, 512):
            for budget in (20_000, 60_000, 200_000):
                gain = 0.3 * (1 - np.exp(-frames / 100)) * (1 - np.exp(-budget / 40_000))
                rows.append(
                    {"cell": f"{seed}-{frames}-{budget}", "seed": seed, "frames": frames,
                     "codec": "jpeg-q75-128", "upload_bytes": frames * 3000 + seed,
                     "budget_bytes": budget, "update_bytes": budget - 10 - seed,
                     "map": 0.2 + gain + 0.002 * seed, "m0": 0.2, "bits": 4, "prune": 0,
                     "mode": "full", "sent": 1}
                )  # fmt: skip
    return Surface.from_rows(rows)


def test_decisions_are_executed_on_measured_rounds() -> None:
    surface, link = _surface(), Link(bandwidths=8)
    curves = fit(surface, replicates=10)
    sweep = bandwidths(surface, link)
    assert len(sweep) == 8
    assert np.all(np.diff(sweep) > 0)
    outcomes = benchmark(surface, curves, link, Rules(), sweep)
    measured = {
        (int(s), int(f), int(b)): (u, m, v)
        for s, f, b, u, m, v in zip(
            surface.seed, surface.frames, surface.budget_bytes, surface.upload_bytes,
            surface.update_bytes, surface.map, strict=True,
        )
    }  # fmt: skip
    for o in outcomes:
        used = 8 * (o.upload_bytes / 2.55 + o.update_bytes / 5.0) / 60
        assert used <= o.bandwidth_hz * (1 + 1e-9), "more was sent than the link carries"
        if o.frames:
            assert measured[o.seed, o.frames, o.budget_bytes] == (
                o.upload_bytes,
                o.update_bytes,
                o.map,
            )
        else:
            assert o.map == pytest.approx(0.2)
    # The first bandwidth carries nothing, the last everything.
    assert {o.frames for o in outcomes if o.bandwidth_hz == sweep[0]} == {0}
    top = [o for o in outcomes if o.bandwidth_hz == sweep[-1] and o.policy == "oracle"]
    assert all((o.frames, o.budget_bytes) == (512, 200_000) for o in top)
    oracle = {(o.bandwidth_hz, o.seed): o.map for o in outcomes if o.policy == "oracle"}
    for o in outcomes:
        assert o.regret == pytest.approx(oracle[o.bandwidth_hz, o.seed] - o.map)
        assert o.policy != "oracle" or o.regret == 0
    mean = {
        (b, p): np.mean([o.map for o in outcomes if (o.bandwidth_hz, o.policy) == (b, p)])
        for b, p in {(o.bandwidth_hz, o.policy) for o in outcomes}
    }
    assert all(value <= mean[b, "oracle"] + 1e-12 for (b, _), value in mean.items())
    # The same surface gives the same benchmark, random policy and all.
    assert outcomes_csv(outcomes) == outcomes_csv(benchmark(surface, curves, link, Rules(), sweep))


def test_the_summary_needs_a_benchmark(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="endedge bench"):
        summary(tmp_path / "benchmark.csv")
    (tmp_path / "benchmark.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BadInput, match="cannot read"):
        summary(tmp_path / "benchmark.csv")
