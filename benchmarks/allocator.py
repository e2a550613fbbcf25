"""How fast and how exact is the allocator? Beside SciPy's SLSQP and brute force, and CVXPY.

    python -m benchmarks.allocator [--problems 120] [--devices 100000] [--out allocator.json]

One device: random problems of every family, median time, and how far each method stays below
the best value that any of them found. K devices: the same fleet for all methods that can take
it, then a large one. CVXPY (not a dependency) is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize

from endedge.allocator import Budget, Joint, Kind, Link, Range, Rules, allocate
from endedge.allocator.fitting.fit import all_kinds
from endedge.allocator.fitting.synthetic import curves_of, random_joint
from endedge.allocator.solve.fleet import FleetDevice, allocate_fleet, fleet_of
from endedge.allocator.solve.fleet_dual import FleetColumns
from endedge.allocator.solve.knapsack import allocate_menus
from endedge.allocator.solve.search import best_split, worth

cvxpy: Any = None
with contextlib.suppress(ImportError):
    cvxpy = importlib.import_module("cvxpy")

UPLOAD, UPDATE = Range(9.6e4, 6e6), Range(3e4, 1e6)
Solver = Callable[[Joint, Budget], float]


def ours(joint: Joint, budget: Budget) -> float:
    return best_split(joint, budget)[2]


def slsqp(joint: Joint, budget: Budget) -> float:
    """From the middle of the box, in units of its size."""
    u, m = budget.upload, budget.update

    def at(x: Any) -> tuple[Any, Any]:
        return u.low + (u.high - u.low) * x[0], m.low + (m.high - m.low) * x[1]

    def left(x: Any) -> Any:
        upload, update = at(x)
        return (budget.room - budget.up * upload - budget.down * update) / budget.room

    found = optimize.minimize(
        lambda x: -worth(joint, budget, *at(x)),
        (0.1, 0.5),
        method="SLSQP",
        bounds=((0.0, 1.0), (0.0, 1.0)),
        constraints={"type": "ineq", "fun": left},
    )
    inside = left(found.x) >= -1e-6 and np.isfinite(found.fun)
    return max(float(-found.fun) if inside else -np.inf, budget.stale)


def brute(joint: Joint, budget: Budget) -> float:
    """SciPy's brute over 200 x 200 byte pairs, with its usual polish."""
    u, m = budget.upload, budget.update

    def loss(x: Any) -> Any:
        upload, update = x
        fits = budget.up * upload + budget.down * update <= budget.room
        fits = fits and u.low <= upload <= u.high and m.low <= update <= m.high
        return -worth(joint, budget, upload, update) if fits else 0.0

    found = optimize.brute(loss, ((u.low, u.high), (m.low, m.high)), Ns=200, full_output=True)
    return max(float(-found[1]), budget.stale)


def cvxpy_split(joint: Joint, budget: Budget) -> float:
    """log(A − base) + log(G) for concave families: pipelined, product and share."""
    up, down = cvxpy.Variable(), cvxpy.Variable()
    data = 1 - cvxpy.exp(-up) if joint.kind.data == "exponential" else cvxpy.log(1 + up)
    gained = joint.start - joint.base + joint.gain * data
    kept = 1 - joint.model_s * cvxpy.exp(-down)
    cost = budget.up * joint.u0_bytes * up + budget.down * joint.m0_bytes * down
    limits = [
        cost / budget.room <= 1,
        up >= budget.upload.low / joint.u0_bytes,
        up <= budget.upload.high / joint.u0_bytes,
        down >= budget.update.low / joint.m0_bytes,
        down <= budget.update.high / joint.m0_bytes,
    ]
    problem = cvxpy.Problem(cvxpy.Maximize(cvxpy.log(gained) + cvxpy.log(kept)), limits)
    value = problem.solve(solver="CLARABEL")
    if value is None or not np.isfinite(value):
        return budget.stale
    return max(joint.base + float(np.exp(value)), budget.stale)


def problems(kinds: list[Kind], rules: Rules, count: int) -> list[tuple[Joint, Budget]]:
    rng = np.random.default_rng(0)
    found: list[tuple[Joint, Budget]] = []
    while len(found) < count:
        joint = random_joint(kinds[len(found) % len(kinds)], rng)
        link = Link(float(np.exp(rng.uniform(np.log(8e3), np.log(3e5)))), 60.0)
        budget = Budget.of(link, rules, curves_of(joint, UPLOAD, UPDATE))
        if not budget.reason:
            found.append((joint, budget))
    return found


def compare(name: str, tasks: list[tuple[Joint, Budget]], solvers: dict[str, Solver]) -> Any:
    """Every task by every solver in turn, so that a busy machine slows all alike."""
    seconds: dict[str, list[float]] = {solver: [] for solver in solvers}
    values: dict[str, list[float]] = {solver: [] for solver in solvers}
    for joint, budget in tasks:
        for solver, solve in solvers.items():
            started = time.perf_counter()
            value = solve(joint, budget)
            seconds[solver].append(time.perf_counter() - started)
            values[solver].append(value)
    best = np.max(list(values.values()), axis=0)
    print(f"\n{name}: {len(tasks)} problems")
    print(f"{'':14}{'median':>12}{'ratio':>10}{'mean gap':>12}{'worst gap':>12}   (mAP points)")
    rows = {}
    for solver in solvers:
        median = statistics.median(seconds[solver])
        gap = 100 * (best - np.array(values[solver]))
        ratio = median / statistics.median(seconds["endedge"])
        rows[solver] = {
            "median_us": median * 1e6,
            "ratio": ratio,
            "mean_gap": float(gap.mean()),
            "worst_gap": float(gap.max()),
        }
        print(f"{solver:14}{median * 1e6:9.0f} µs{ratio:10.1f}{gap.mean():12.2e}{gap.max():12.2e}")
    return rows


def devices(count: int, kinds: list[Kind]) -> list[FleetDevice]:
    rng = np.random.default_rng(1)
    found = []
    for k in range(count):
        joint = random_joint(kinds[k % len(kinds)], rng)
        rates = float(rng.uniform(1, 4)), float(rng.uniform(2, 8))
        found.append(FleetDevice(joint, UPLOAD, UPDATE, float(rng.uniform(0.5, 2)), *rates))
    return found


def concave(count: int) -> list[FleetDevice]:
    """Devices that CVXPY takes too: concave, and all of them better off with an update."""
    found = devices(count, [Kind("additive", "exponential", "exponential")])
    return [replace(d, joint=replace(d.joint, model_s=0.7, m0=0.0)) for d in found]


def fleet_ours(fleet: FleetColumns, band: float) -> float:
    return allocate_fleet(fleet, band).objective


def fleet_cvxpy(fleet: FleetColumns, band: float) -> float:
    t, count = fleet.theta, len(fleet)
    u0, m0 = np.exp(t[:, 2]), np.exp(t[:, 4])
    up, down = cvxpy.Variable(count), cvxpy.Variable(count)
    lost = cvxpy.multiply(t[:, 6] * t[:, 5], cvxpy.exp(-down))
    value = t[:, 0] + cvxpy.multiply(t[:, 1], 1 - cvxpy.exp(-up)) - lost
    cost = (fleet.rate[:, 0] * u0 / band) @ up + (fleet.rate[:, 1] * m0 / band) @ down
    limits = [
        cost <= 1,
        up >= fleet.low[:, 0] / u0,
        up <= fleet.high[:, 0] / u0,
        down >= fleet.low[:, 1] / m0,
        down <= fleet.high[:, 1] / m0,
    ]
    return float(cvxpy.Problem(cvxpy.Maximize(fleet.weight @ value), limits).solve("CLARABEL"))


def fleet_slsqp(fleet: FleetColumns, band: float) -> float:
    t, count = fleet.theta, len(fleet)
    u0, m0 = np.exp(t[:, 2]), np.exp(t[:, 4])
    low, span = fleet.low.T, (fleet.high - fleet.low).T

    def at(x: Any) -> Any:
        return low + span * x.reshape(2, count)

    def loss(x: Any) -> float:
        upload, update = at(x)
        data = t[:, 0] + t[:, 1] * -np.expm1(-upload / u0)
        return -float(fleet.weight @ (data - t[:, 6] * t[:, 5] * np.exp(-update / m0)))

    def left(x: Any) -> float:
        return 1.0 - float((fleet.rate.T * at(x)).sum()) / band

    found = optimize.minimize(
        loss,
        np.zeros(2 * count),
        method="SLSQP",
        bounds=[(0.0, 1.0)] * (2 * count),
        constraints={"type": "ineq", "fun": left},
        options={"maxiter": 500},
    )
    return float(-found.fun) if left(found.x) > -1e-6 else -np.inf


def timed(solve: Callable[[], float]) -> tuple[float, float]:
    started = time.perf_counter()
    value = solve()
    return time.perf_counter() - started, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=120)
    parser.add_argument("--devices", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path("allocator.json"))
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of the methods compared with
    plain: dict[str, Solver] = {"endedge": ours, "SciPy SLSQP": slsqp}
    kinds = list(all_kinds())
    results: dict[str, Any] = {}
    tasks = problems(kinds, Rules(), args.problems)
    results["pipelined"] = compare("One device, pipelined, every family", tasks, plain)
    slow = {**plain, "SciPy brute": brute}
    results["brute"] = compare("One device, with brute force", tasks[:6], slow)
    sequential = Rules(schedule="sequential", edge_s=10.0)
    tasks = problems(kinds, sequential, args.problems)
    results["sequential"] = compare("One device, sequential, period average", tasks, plain)
    if cvxpy is not None:
        names = ("exponential", "logarithm")
        few = [Kind(c, a, "exponential") for c in ("product", "share") for a in names]
        tasks = [
            (j, b) for j, b in problems(few, Rules(), 40) if j.model_s <= 1 and j.start > j.base
        ]
        with_cvxpy = {**plain, "CVXPY": cvxpy_split}
        results["cvxpy"] = compare("One device, concave, with CVXPY", tasks, with_cvxpy)

    joint = random_joint(Kind("share", "power", "hill"), np.random.default_rng(3))
    known = curves_of(joint, UPLOAD, UPDATE)
    whole = [timed(lambda: allocate(known, Link(4e4, 60.0)).predicted_map)[0] for _ in range(500)]
    results["allocate_us"] = statistics.median(whole) * 1e6
    print(f"\nallocate(), with marginal values and regime: {results['allocate_us']:.0f} µs")

    print("\nK devices on one band                       seconds      objective   below the bound")
    rows: list[Any] = []
    for count in (10, 100, 1000):
        fleet, band = fleet_of(concave(count), 60.0)[0], count * 3e4
        jobs: dict[str, Callable[[FleetColumns, float], float]] = {"endedge": fleet_ours}
        if count <= 100:
            jobs["SciPy SLSQP"] = fleet_slsqp
        if cvxpy is not None:
            jobs["CVXPY"] = fleet_cvxpy
        bound = allocate_fleet(fleet, band).bound
        for name, job in jobs.items():
            seconds, value = timed(partial(job, fleet, band))
            rows.append({"devices": count, "method": name, "seconds": seconds, "objective": value})
            print(f"{count:9} concave  {name:14}{seconds:18.4f}{value:15.6f}{bound - value:15.1e}")
    for name, some in (("3 kinds", kinds[::25]), ("60 kinds", kinds)):
        fleet, band = fleet_of(devices(args.devices, some), 60.0)[0], args.devices * 3e4
        runs = [timed(partial(fleet_ours, fleet, band)) for _ in range(5)]
        seconds = statistics.median(s for s, _ in runs)
        gap = allocate_fleet(fleet, band).bound - runs[0][1]
        rows.append({"devices": args.devices, "method": name, "seconds": seconds, "gap": gap})
        print(f"{args.devices:9} {name:8} endedge{seconds:25.3f}{runs[0][1]:15.4f}{gap:15.1e}")
    rng = np.random.default_rng(0)
    cost = np.sort(rng.uniform(0, 1e5, (args.devices, 42)), axis=1)
    cost[:, 0] = 0.0
    worths = np.sort(rng.uniform(0, 0.5, cost.shape), axis=1)
    started = time.perf_counter()
    menus = allocate_menus(cost, worths, args.devices * 1e4)
    seconds, gap = time.perf_counter() - started, menus.bound - menus.objective
    rows.append({"devices": args.devices, "method": "menus of 42", "seconds": seconds, "gap": gap})
    print(f"{args.devices:9} menus of 42 points{seconds:21.3f}{menus.objective:15.4f}{gap:15.1e}")
    results["fleet"] = rows
    args.out.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
