"""Synthetic accuracy surfaces: for tests, recovery studies and benchmarks of policies.

Nothing here stands for a measurement; a surface made here says so in its codec column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from endedge.allocator.accuracy.joint import Joint, Kind
from endedge.allocator.accuracy.monotone import Monotone
from endedge.allocator.fitting.curves import Curves
from endedge.allocator.fitting.surface import Surface
from endedge.allocator.problem import Range

__all__ = ["curves_of", "perturbed", "random_joint", "sample_surface"]

FRAMES = (16, 32, 64, 128, 256, 512, 1024)
BUDGETS = (3e4, 6e4, 1.2e5, 2.5e5, 5e5, 1e6)
BYTES_A_FRAME = 6000.0


def random_joint(kind: Kind, rng: np.random.Generator) -> Joint:
    """A surface of ``kind`` with its action between 1e5 and 6e6 bytes up, 3e4 and 1e6 down.

    m0 in [0.07, 0.2]; starts from 0.06 below to 0.03 above it (forgetting and a free gain);
    gains at 6 MB of upload of 0.05 to 0.3 over the start.
    """
    m0 = float(rng.uniform(0.07, 0.2))
    data, model = kind.data_shape, kind.model_shape
    u0 = float(np.exp(rng.uniform(np.log(1e5), np.log(3e6))))
    data_s = float(np.clip(np.exp(rng.normal(0.0, 0.5)), *data.bounds))
    typical = {"exponential": 2.0, "hill": 2.5, "power": 0.7, "weibull": 1.2}[kind.model]
    model_s = float(np.clip(typical * np.exp(rng.normal(0.0, 0.4)), *model.bounds))
    m0_bytes = float(np.exp(rng.uniform(np.log(5e4), np.log(4e5))))
    gain = rng.uniform(0.05, 0.3) / float(data.value(6e6 / u0, data_s))
    start = m0 + float(rng.uniform(-0.06, 0.03))
    return Joint(
        kind,
        m0,
        start=start,
        gain=float(gain),
        u0_bytes=u0,
        data_s=data_s if data.symbol else 1.0,
        m0_bytes=m0_bytes,
        model_s=model_s,
        # No deeper than the start: a mAP below 0 does not exist.
        depth=float(start * rng.uniform(0.3, 1.0)) if kind.composition == "additive" else 0.0,
    )


def curves_of(joint: Joint, upload: Range, update: Range) -> Curves:
    """Curves that are exactly ``joint``, without uncertainty."""
    edges = [np.array([r.low, max(r.high, r.low + 1.0)]) for r in (upload, update)]
    table = np.clip(joint.value(edges[0][:, None], edges[1][None, :]), 0.0, 1.0)
    return Curves(
        m0=joint.m0,
        joint=joint,
        candidates=(),
        replicates=(joint,),
        upload_range=upload,
        update_range=update,
        reference=Monotone(edges[0], edges[1], table),
        reference_held_out=float("nan"),
        uploads=(),
        updates=(),
        provenance={"synthetic": True},
    )


def perturbed(curves: Curves, size: float, rng: np.random.Generator) -> Curves:
    """``curves`` with a wrong surface: gain, depth, both scales and the distance of the start
    from m0 each off by a factor exp(N(0, ``size``)); 0.1 is about 10 %."""
    joint, off = curves.joint, np.exp(rng.normal(0.0, size, 5))
    wrong = replace(
        joint,
        start=joint.m0 + (joint.start - joint.m0) * float(off[0]),
        gain=joint.gain * float(off[1]),
        u0_bytes=joint.u0_bytes * float(off[2]),
        m0_bytes=joint.m0_bytes * float(off[3]),
        depth=joint.depth * float(off[4]),
    )
    return replace(curves, joint=wrong)


def sample_surface(
    joint: Joint,
    rng: np.random.Generator,
    *,
    seeds: int = 3,
    frames: Sequence[int] = FRAMES,
    budgets: Sequence[float] = BUDGETS,
    cell_noise: float = 0.006,
    seed_noise: float = 0.003,
) -> Surface:
    """Cells of a full grid drawn from ``joint``: normal noise of each cell, and one that all
    cells of a seed share (standard deviations in mAP; the defaults are those of a detector
    trained on a few hundred COCO frames)."""
    shared = rng.normal(0.0, seed_noise, seeds)
    rows = []
    for n in frames:
        for budget in budgets:
            for seed in range(seeds):
                upload, update = n * BYTES_A_FRAME, budget * rng.uniform(0.97, 1.0)
                value = joint.value(upload, update) + shared[seed] + rng.normal(0.0, cell_noise)
                rows.append(
                    {
                        "seed": seed,
                        "frames": n,
                        "codec": "synthetic",
                        "upload_bytes": upload,
                        "budget_bytes": budget,
                        "update_bytes": update,
                        "map": float(np.clip(value, 0.0, 1.0)),
                        "m0": joint.m0,
                    }
                )
    return Surface.from_rows(rows)
