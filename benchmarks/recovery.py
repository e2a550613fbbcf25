"""Are fitted curves right, and does it matter? Surfaces drawn from every kind, fitted blind.

    python -m benchmarks.recovery [--surfaces 60] [--seed 0] [--out recovery.json]

For each surface: was its composition chosen; how often does the 90 % interval hold the true
mean accuracy (at every grid point); what does the fitted allocator lose against the true
optimum, averaged over 12 bandwidths.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from endedge.allocator.fitting.fit import all_kinds, fit
from endedge.allocator.fitting.synthetic import random_joint, sample_surface
from endedge.allocator.problem import Budget, Link, Rules
from endedge.allocator.solve.search import best_split

BANDWIDTHS_HZ = np.geomspace(8e3, 6e5, 12)


def study(index: int, seed: int) -> dict[str, Any]:
    """One surface: drawn, fitted, compared with the truth."""
    rng = np.random.default_rng([seed, index])
    kind = all_kinds()[(index * 7) % len(all_kinds())]
    truth = random_joint(kind, rng)
    surface = sample_surface(truth, rng)
    started = time.perf_counter()
    curves = fit(surface, seed=index)
    seconds = time.perf_counter() - started

    points = surface.points()
    u, m = points.upload_bytes, points.update_bytes
    real = np.clip(truth.value(u, m), 0.0, 1.0)
    low, high = curves.interval(u, m)
    losses = []
    for bandwidth in BANDWIDTHS_HZ:
        budget = Budget.of(Link(float(bandwidth), 60.0), Rules(), curves)
        best = best_split(truth, budget)[2]
        upload, update, _ = best_split(curves.joint, budget)
        got = float(truth.value(upload, update)) if upload > 0 else truth.m0
        losses.append(best - got)
    return {
        "kind": str(kind),
        "composition": kind.composition,
        "chosen": str(curves.joint.kind),
        "right": curves.joint.kind.composition == kind.composition,
        "rivals": len({j.kind for j in curves.replicates}),
        "right_among_rivals": kind.composition in {j.kind.composition for j in curves.replicates},
        "coverage": float(((low <= real) & (real <= high)).mean()),
        "width": float((high - low).mean()),
        "error": float(np.abs(curves.predict(u, m) - real).mean()),
        "regret": float(np.mean(losses)),
        "worst_regret": float(np.max(losses)),
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--surfaces", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("recovery.json"))
    args = parser.parse_args()
    rows = [study(i, args.seed) for i in range(args.surfaces)]
    args.out.write_text(json.dumps(rows, indent=1), encoding="utf-8")

    print(f"{len(rows)} surfaces, 7 uploads x 6 budgets x 3 seeds each; regrets in mAP points")
    print("composition  right  among rivals  coverage  width  error  regret  worst  s a fit")
    for name in ("product", "additive", "share", "all"):
        some = [r for r in rows if name in (r["composition"], "all")]
        if not some:
            continue

        def mean(key: str, some: list[dict[str, Any]] = some) -> float:
            return float(np.mean([r[key] for r in some]))

        print(
            f"{name:11}  {mean('right'):5.0%}  {mean('right_among_rivals'):12.0%}"
            f"  {mean('coverage'):8.1%}  {100 * mean('width'):5.2f}  {100 * mean('error'):5.2f}"
            f"  {100 * mean('regret'):6.3f}  {100 * max(r['worst_regret'] for r in some):5.2f}"
            f"  {mean('seconds'):7.1f}"
        )


if __name__ == "__main__":
    main()
