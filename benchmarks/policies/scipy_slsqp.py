"""SciPy's SLSQP as a policy: `endedge bench demo --policy benchmarks/policies/scipy_slsqp.py`."""

from __future__ import annotations

from scipy.optimize import minimize

from endedge.allocator import Known, Split, register


@register("scipy-slsqp")
def scipy_slsqp(known: Known) -> Split:
    """The share of the link that the curves like best, from three starts."""
    if known.budget.reason:
        return Split(0.0, 0.0)

    def loss(share: object) -> float:
        return -known.worth(known.budget.with_share(float(share[0])))  # type: ignore[index]

    runs = [minimize(loss, [s], bounds=[(0.0, 1.0)], method="SLSQP") for s in (0.2, 0.5, 0.8)]
    best = min(runs, key=lambda run: float(run.fun))
    split = known.budget.with_share(float(best.x[0]))
    return split if known.worth(split) > known.budget.stale else Split(0.0, 0.0)
