"""Policies after published systems, for comparison: each with its source."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from endedge.allocator.policies import NO_UPDATE, Known, register
from endedge.allocator.problem import Split
from endedge.allocator.solve.search import worth

__all__ = ["ams_rate", "bandit", "exhaustive"]


@register("exhaustive")
def exhaustive(known: Known) -> Split:
    """The best of a thousand shares by the curves, tried one by one (the exhaustive search of
    Zhang et al., *Large Models for Aerial Edges*, IEEE JSAC 43(1), 2025)."""
    shares = np.linspace(0.0, 1.0, 1000)
    splits = [known.budget.with_share(float(share)) for share in shares]
    sent = [split for split in splits if split.sends]
    if not sent:
        return NO_UPDATE
    up, down = (np.array([getattr(s, n) for s in sent]) for n in ("upload_bytes", "update_bytes"))
    value = worth(known.curves.joint, known.budget, up, down)
    best = int(np.argmax(value))
    return sent[best] if value[best] > known.budget.stale else NO_UPDATE


@register("ams-rate")
def ams_rate(known: Known) -> Split:
    """A package of a twentieth of the largest, and frames at a rate that follows how fast the
    model in use grows stale, after AMS (Khani et al., *Real-Time Video Inference on Edge Devices
    via Adaptive Model Streaming*, ICCV 2021: 5 % of the weights, sampling rate by scene change).
    The rate starts at 1; a period that cost less than a point lowers it by a fifth."""
    budget = known.budget
    if budget.reason:
        return NO_UPDATE
    rate = 1.0
    for last, now in pairwise(known.history):
        stale = last.after - now.before
        rate = min(1.0, rate * 1.25) if stale > 0.01 else max(0.1, rate * 0.8)
    update = min(max(budget.update.low, 0.05 * budget.update.high), budget.update.high)
    most = min(budget.upload.high, (budget.room - budget.down * update) / budget.up)
    if most < budget.upload.low:
        return budget.with_upload(budget.upload.low)
    return Split(max(budget.upload.low, rate * most), update)


@register("bandit")
def bandit(known: Known) -> Split:
    """Learns by doing, without any curve: UCB1 (Auer, Cesa-Bianchi and Fischer 2002) over nine
    shares of the room, the middle one first; the reward is the mAP after the period. Where there
    is no history it stays at the middle."""
    budget = known.budget
    splits = [budget.with_share(float(share)) for share in np.linspace(0.1, 0.9, 9)]
    if not splits[4].sends:
        return NO_UPDATE
    # Limits make one split of several shares: each is one arm, the one nearest the middle.
    kept: dict[float, Split] = {}
    for _, split in sorted(enumerate(splits), key=lambda arm: abs(arm[0] - 4)):
        kept.setdefault(round(split.upload_bytes, 3), split)
    arms = list(kept.values())
    sizes = np.log([arm.upload_bytes for arm in arms])
    pulls, total = np.zeros(len(arms)), np.zeros(len(arms))
    for period in known.history:
        if period.upload_bytes > 0:
            arm = int(np.abs(sizes - np.log(period.upload_bytes)).argmin())
            pulls[arm] += 1
            total[arm] += period.after
    if (pulls == 0).any():
        return arms[int(np.argmin(pulls > 0))]
    bound = total / pulls + 0.1 * np.sqrt(2 * np.log(pulls.sum()) / pulls)  # mAP spans about 0.1
    return arms[int(np.argmax(bound))]
