"""CVXPY as a policy (`pip install cvxpy`): a linear program over tangents of the fitted curves.

Exact where the curves are concave; elsewhere an approximation, which is what it is here to show.
"""

from __future__ import annotations

import cvxpy
import numpy as np

from endedge.allocator import Known, Split, register


@register("cvxpy-tangents")
def cvxpy_tangents(known: Known) -> Split:
    """Bytes under the tangent planes of ln F at a grid of bytes, pipelined links."""
    budget, joint = known.budget, known.curves.joint
    if budget.reason:
        return Split(0.0, 0.0)
    up = np.geomspace(max(budget.upload.low, 1.0), budget.upload.high, 12)
    down = np.geomspace(max(budget.update.low, 1.0), budget.update.high, 12)
    x, top = cvxpy.Variable(2), cvxpy.Variable()
    low = np.array([budget.upload.low, budget.update.low])
    high = np.array([budget.upload.high, budget.update.high])
    price = np.array([budget.up, budget.down])
    rules = [x >= 0, x <= 1, price @ low + (price * (high - low)) @ x <= budget.room]
    for u in up:
        for m in down:
            here = max(float(joint.value(u, m)), 1e-6)
            slope = np.array(joint.slopes(u, m), float) * (high - low) / here
            at = (np.array([u, m]) - low) / np.maximum(high - low, 1e-9)
            rules.append(top <= np.log(here) + slope @ (x - at))
    cvxpy.Problem(cvxpy.Maximize(top), rules).solve()
    if x.value is None:
        return known.budget.with_share(0.5)
    bytes_ = low + np.clip(x.value, 0.0, 1.0) * (high - low)
    split = known.budget.with_upload(float(bytes_[0]))
    return split if known.worth(split) > budget.stale else Split(0.0, 0.0)
