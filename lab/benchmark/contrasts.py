"""The comparisons that were named before anything was measured, and what may be said of them.

Three of them, so that their p-values are corrected together (S. Holm, *A Simple Sequentially
Rejective Multiple Test Procedure*, Scand. J. Statist. 6, 1979).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import ndtr, stdtr

from endedge.lab.benchmark.headroom import Contrast
from endedge.lab.benchmark.score import Score

__all__ = ["NAMED", "Comparison", "compared", "holm", "p_value"]

#: The policy, and the one that it is held to. The second is the best split fixed in advance.
NAMED = (("fitted", "equal"), ("static-other-seeds", "equal"), ("fitted", "monotone"))


@dataclass(frozen=True)
class Comparison:
    """How far ``one`` is ahead of ``other`` in the mean over the sweep, the two-sided ``p`` of that
    and the same corrected for all comparisons that were named (NaN where no error is known)."""

    one: str
    other: str
    contrast: Contrast
    p: float
    corrected: float


def compared(score: Score) -> list[Comparison]:
    """The named comparisons that the policies of ``score`` allow."""
    named = [pair for pair in NAMED if set(pair) <= set(score.policies)]
    gaps = [score.contrast(*pair) for pair in named]
    p_values = [p_value(gap) for gap in gaps]
    return [
        Comparison(one, other, gap, p, corrected)
        for (one, other), gap, p, corrected in zip(
            named, gaps, p_values, holm(p_values), strict=True
        )
    ]


def p_value(gap: Contrast) -> float:
    """Two-sided, that there is no difference: by Student's t with the degrees of freedom that
    Satterthwaite's rule gives to few seeds and many evaluation frames together (F. E.
    Satterthwaite, 1946). One seed: by the frames alone; NaN where neither error is known."""
    if math.isnan(gap.error):
        return math.nan
    if gap.error == 0:
        return 0.0 if gap.mean else 1.0
    t = -abs(gap.mean) / gap.error
    if math.isnan(gap.seed_error) or gap.seed_error == 0:
        return 2.0 * float(ndtr(t))
    freedom = (gap.seeds - 1) * (gap.error / gap.seed_error) ** 4
    return 2.0 * float(stdtr(freedom, t))


def holm(p_values: Sequence[float]) -> list[float]:
    """Step-down: the k-th smallest of n times n − k + 1, never below one before it, at most 1. What
    is NaN stays so, and counts among the n."""
    n, highest = len(p_values), 0.0
    corrected = [math.nan] * n
    finite = [i for i in range(n) if not math.isnan(p_values[i])]
    for rank, i in enumerate(sorted(finite, key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (n - rank) * p_values[i]))
        corrected[i] = highest
    return corrected
