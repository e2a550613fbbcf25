"""What rounds taught: a posterior over the law of an update and over the ceilings of places.

Given one guess at the law, a gain is linear in the ceiling, so each ceiling stays a normal with a
mean and a variance and only the law needs guesses (Rao-Blackwellized particles: Doucet et al.,
UAI 2000). An update that the edge held back says "the gain was below the verdict's threshold" and
not "it was zero": a censored observation, taken in by matching the two moments of the truncated
normal (assumed density filtering: Minka, 2001).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtr

from endedge.allocator.online.law import Achievable, Rates
from endedge.allocator.policies import NOT_KNOWN, Observed

__all__ = ["NOISE", "VERDICT_NOISE", "Belief", "believe"]

Floats = NDArray[np.float64]

NOISE = 0.02  # mAP: of a measured gain (some hundred frames), and of a training
VERDICT_NOISE = 0.015  # mAP: of the verdict on held-back frames


@dataclass(frozen=True)
class Belief:
    """``log_weight`` (n,) of the guesses ``rates``; for each place seen its ceiling as
    ``mean`` and ``variance`` (n,) under each guess; ``first`` is what is thought of a new one."""

    rates: Rates
    first: Achievable
    log_weight: Floats
    mean: Mapping[int, Floats] = field(default_factory=dict)
    variance: Mapping[int, Floats] = field(default_factory=dict)

    @classmethod
    def at_first(cls, rates: Rates, first: Achievable) -> Belief:
        return cls(rates, first, rates.log_weight)

    @property
    def weight(self) -> Floats:
        """(n,), sums to 1."""
        raw = np.exp(self.log_weight - self.log_weight.max())
        return np.asarray(raw / raw.sum())

    def ceiling(self, place: int, before: float) -> tuple[Floats, Floats]:
        """Mean and variance (n,) of a place's ceiling; of one not seen, where a device that has
        ``before`` would get."""
        if place in self.mean:
            return self.mean[place], self.variance[place]
        ones = np.ones(len(self.rates))
        return ones * (before + self.first.gain), ones * self.first.deviation**2

    def gap(self, place: int, now: float) -> Floats:
        """What a detector with ``now`` is expected to lack of a place's ceiling (n,), >= 0. The
        edge sends no update that seems to do harm, so a ceiling below ``now`` counts as none."""
        mean, variance = self.ceiling(place, now)
        spread = np.sqrt(variance)
        z = (mean - now) / spread
        density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
        return np.asarray(spread * (density + z * ndtr(z)))

    def after(self, period: Observed) -> Belief:
        """With one more round. Nothing is learned where nothing was sent up, nor from frames of one
        place judged in another."""
        unknown = NOT_KNOWN in (period.learned_in, period.judged_in)
        if not period.upload_bytes > 0 or unknown or period.learned_in != period.judged_in:
            return self
        rate = self.rates(period.upload_bytes, period.update_bytes)[:, 0]
        mean, variance = self.ceiling(period.judged_in, period.before)
        expected = rate * (mean - period.before)
        if period.refused:
            spread = np.sqrt(VERDICT_NOISE**2 + rate**2 * variance)
            z = -expected / spread
            log_likelihood = log_ndtr(z)
            mills = np.exp(-0.5 * z**2 - 0.5 * np.log(2 * np.pi) - log_likelihood)
            gain = rate * variance / spread
            mean = mean - gain * mills
            variance = variance - gain**2 * mills * (mills + z)
        else:
            spread2 = NOISE**2 + rate**2 * variance
            off = period.after - period.before - expected
            log_likelihood = -0.5 * (off**2 / spread2 + np.log(spread2))
            gain = rate * variance / spread2
            mean = mean + gain * off
            variance = variance * (1 - gain * rate)
        return replace(
            self,
            log_weight=self.log_weight + log_likelihood,
            mean={**self.mean, period.judged_in: mean},
            variance={**self.variance, period.judged_in: np.maximum(variance, 1e-9)},
        )


def believe(rates: Rates, first: Achievable, history: Sequence[Observed]) -> Belief:
    """The belief after all of ``history``, oldest first."""
    belief = Belief.at_first(rates, first)
    for period in history:
        belief = belief.after(period)
    return belief
