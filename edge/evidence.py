"""What uploaded frames say about an adaptation that was not trained on them: gains, how sure they
are, and the verdict on a package."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from endedge.data.frames import Batch
from endedge.distill.model import DetectionModel
from endedge.edge.adapt import Verdict, held_back_losses

__all__ = [
    "FIRST_ROUND",
    "MOST_JUDGED",
    "Evidence",
    "Prior",
    "error_of",
    "gain_over",
    "judge_chosen",
    "left_of",
    "log_gains",
]

MOST_JUDGED = 64  #: frames of a fold, or on which models are compared

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Prior:
    """What an adaptation gained in earlier rounds: normal with ``mean`` and ``deviation``.
    ``noise``: that of one frame's gain, counted as ``weight`` frames seen before (a few frames
    agree by chance). A gain is the logarithm of the loss before over the loss after."""

    mean: float = 0.0
    deviation: float = 0.1
    noise: float = 0.1
    weight: float = 4.0

    def posterior(self, gains: Floats, groups: Sequence[str]) -> tuple[float, float]:
        """Mean and deviation of the true gain after ``gains`` (n,) of frames in ``groups``.
        Frames of a group count together: the error is that of the sums over groups."""
        n = len(gains)
        spread = spread_of(gains, groups)
        noise = (self.weight * self.noise**2 + n * spread) / (self.weight + n)
        precision = n / max(noise, 1e-12)
        own = 1 / max(self.deviation, 1e-12) ** 2
        mean = (precision * float(gains.mean()) + own * self.mean) / (precision + own)
        return mean, 1 / math.sqrt(precision + own)

    def after(self, gain: float) -> Prior:
        """The prior of the next round, this one having gained ``gain``: half of the way
        there, as rounds are few and differ."""
        return replace(self, mean=(self.mean + gain) / 2)


FIRST_ROUND = Prior()  #: nothing is known yet


@dataclass(frozen=True)
class Evidence:
    """What frames said that the judged models were not trained on: ``gain`` over the
    detector the device has (log ratio of the losses) and its ``error``, both after the prior;
    the loss ``before`` (geometric mean); how many ``frames`` in how many ``groups``."""

    gain: float
    error: float
    before: float
    frames: int
    groups: int


def gain_over(
    start: DetectionModel, model: DetectionModel, frames: Batch, *, device: str = "cpu"
) -> float:
    """What ``model`` gains over ``start`` on ``frames`` that it was not trained on, in the units of
    :class:`Evidence`: few frames count little."""
    before, after = (held_back_losses(m, frames, device) for m in (start, model))
    return FIRST_ROUND.posterior(log_gains(before, after), [str(i) for i in range(len(frames))])[0]


def judge_chosen(
    held: DetectionModel,
    student: DetectionModel,
    decoded: DetectionModel,
    evidence: Evidence,
    frames: Batch,
    *,
    sure: float = 1.0,
    device: str = "cpu",
) -> Verdict:
    """Whether ``decoded``, packed from ``student``, should take the place of ``held``: what is left
    of the gain that unseen frames showed must be more than ``sure`` standard errors.

    Args:
        held: What the device runs.
        student: Trained on ``frames``.
        decoded: What the device would run.
        evidence: For the student.
        frames: On which the three are compared.
        sure: Standard errors.
        device: Where they compute.
    """
    judges = frames.take(range(min(len(frames), MOST_JUDGED)))
    before = held_back_losses(held, judges, device)
    whole = log_gains(before, held_back_losses(student, judges, device))
    left, noise = left_of(
        evidence.gain, whole, log_gains(before, held_back_losses(decoded, judges, device))
    )
    after = evidence.before * math.exp(min(-left, 99.0))
    error = evidence.before * math.hypot(evidence.error, noise)
    return Verdict(evidence.before, after, error, evidence.frames, 1, sure)


def left_of(gain: float, whole: Floats, decoded: Floats) -> tuple[float, float]:
    """What packing left of a ``gain`` on unseen frames, and how unsure that is, by the gains (n,)
    of the ``whole`` student and the ``decoded`` one on frames that it was trained on.

    There gains are larger, and so is what packing takes of them; what carries over is the share
    that is left: all of it for a perfect package, none for one that changes nothing. Where the
    student gained nothing, there is no share, and what packing took is taken off."""
    n = len(whole)
    if not np.isfinite(decoded).all():
        return -math.inf, 0.0
    had = float(whole.mean())
    share = float(decoded.mean()) / had if gain > 0 and had > 0 else None
    if share is None:
        took = whole - decoded
        return gain - float(took.mean()), float(took.std(ddof=min(1, n - 1))) / math.sqrt(n)
    share = min(1.0, share)
    apart = decoded - share * whole
    return gain * share, gain * float(apart.std(ddof=min(1, n - 1))) / math.sqrt(n) / had


def spread_of(gains: Floats, groups: Sequence[str]) -> float:
    """Variance of one frame's gain, as if frames were alone: of the sums over groups."""
    sums: dict[str, float] = {}
    for gain, group in zip(gains - gains.mean(), groups, strict=True):
        sums[group] = sums.get(group, 0.0) + float(gain)
    return sum(v * v for v in sums.values()) / len(gains)


def error_of(gains: Floats, groups: Sequence[str]) -> float:
    """Standard error of the mean of ``gains`` (n,) of frames in ``groups``; infinite for one
    group, which says nothing of others."""
    if (m := len(set(groups))) < 2 or not np.isfinite(gains).all():
        return math.inf
    return math.sqrt(spread_of(gains, groups) / len(gains) * m / (m - 1))


def log_gains(before: Floats, after: Floats) -> Floats:
    """Log ratio of the losses of each frame (n,); minus infinity where a training blew up.

    A ratio and not a difference: a frame with one small object has twenty times the loss of
    another, and a handful of those would decide."""
    with np.errstate(invalid="ignore", divide="ignore"):
        gains = np.log(before) - np.log(after)
    return np.where(np.isfinite(gains), gains, -np.inf)
