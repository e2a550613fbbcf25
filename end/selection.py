"""Which frames go up: orders of the captured frames, made on the device before any label exists.

Every rule returns an *order* of all captured frames; what a byte budget buys is a prefix of it
(:func:`endedge.data.codec.frames_within`), so selections are nested in the budget. The rules
look only at what the device has: times of capture, and one forward pass of its own student,
which it makes anyway to do its work (:func:`observe` takes detections and features from the
same pass). Random is the baseline that any other rule has to beat.

Sources: uncertainty summed over detections, entropy and 1-vs-2 margin: C.-A. Brust, C. Käding,
J. Denzler, *Active Learning for Deep Object Detection*, VISAPP 2019 (arXiv 1809.09875).
Diversity: T. Gonzalez' farthest-first traversal (1985), as core-set selection: O. Sener,
S. Savarese, *Active Learning for Convolutional Neural Networks*, ICLR 2018 (arXiv 1708.00489).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from endedge.data.errors import BadInput
from endedge.data.frames import Batch
from endedge.distill.model import DetectionModel
from endedge.end.inference import Detections, computed_order, detect

__all__ = [
    "BY_FEATURES",
    "RULES",
    "Observations",
    "disagreement",
    "entropy",
    "k_centre",
    "margin",
    "observe",
    "select",
]

_MIN_SCORE = 0.05  # below, detections are the noise floor that mAP needs and uncertainty does not
_NEIGHBOURS = 5

Order = NDArray[np.int64]
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Observations:
    """What the device knows of n captured frames: ``detections`` of its student, ``features``
    (n, d) float32, ``time_s`` (n,) of capture."""

    detections: Sequence[Detections]
    features: NDArray[np.float32]
    time_s: Array

    def __post_init__(self) -> None:
        lengths = {len(self.detections), len(self.features), len(self.time_s)}
        if len(lengths) != 1 or self.features.ndim != 2:
            raise BadInput(
                f"{len(self.detections)} detections, features of shape {self.features.shape} and "
                f"{len(self.time_s)} times; give one of each a frame"
            )

    def __len__(self) -> int:
        return len(self.time_s)


def observe(
    model: DetectionModel,
    frames: Batch,
    time_s: Sequence[float] | Array,
    *,
    batch_size: int = 16,
    device: torch.device | str = "cpu",
) -> Observations:
    """Detections and features of ``frames`` (seen at ``time_s``) in one pass of the student.

    A feature vector is the average over the picture of each map that enters the detection head,
    each scaled to length 1 (so that no level outweighs another), joined.
    """
    pooled: list[torch.Tensor] = []

    def keep(_: Any, inputs: tuple[Any, ...]) -> None:
        means = [torch.nn.functional.normalize(m.mean((2, 3)).float(), dim=1) for m in inputs[0]]
        pooled.append(torch.cat(means, 1))

    handle = model.model[-1].register_forward_pre_hook(keep)
    try:
        detections = detect(model, frames, batch_size=batch_size, device=device)
    finally:
        handle.remove()
    features = np.zeros((0, 1), np.float32)
    if pooled:  # the last ones: where memory was short, the pass began anew
        computed = torch.cat(pooled)[-len(frames) :].cpu().numpy()
        features = np.empty_like(computed)
        features[computed_order(model, frames)] = computed
    return Observations(detections, features, np.asarray(time_s, np.float64))


def select(rule: str, observed: Observations, seed: int) -> Order:
    """The order (n,) of the frames of ``observed`` under one of :data:`RULES`, for any budget.

    Raises :class:`BadInput` for an unknown rule.
    """
    if rule not in RULES:
        raise BadInput(f"unknown selection rule {rule!r}; one of {', '.join(RULES)}")
    return RULES[rule](observed, np.random.default_rng([seed, 0x5E1EC7]))


# Scores: one number a frame, larger = more worth sending -----------------------------------


def entropy(detections: Sequence[Detections]) -> Array:
    """Sum over a frame's detections of the binary entropy of their score, in bits. (n,)"""
    return np.array([_binary_entropy(_kept(d)).sum() for d in detections], np.float64)


def margin(detections: Sequence[Detections]) -> Array:
    """Sum over a frame's boxes of (1 - (p1 - p2))², p1 and p2 the two best class scores. (n,)

    Multi-label NMS keeps one entry a class for the same box; a class that scored below the
    floor counts as 0.
    """
    out = np.zeros(len(detections))
    for i, detected in enumerate(detections):
        kept = detected.scores >= _MIN_SCORE
        if not kept.any():
            continue
        _, box = np.unique(detected.boxes[kept], axis=0, return_inverse=True)
        box, scores = box.reshape(-1), detected.scores[kept]
        best = np.zeros(box.max() + 1)
        np.maximum.at(best, box, scores)
        order = np.lexsort((-scores, box))
        second = np.zeros(len(best))
        after_first = order[1:][np.diff(box[order]) == 0]
        np.maximum.at(second, box[after_first], scores[after_first])
        out[i] = ((1 - (best - second)) ** 2).sum()
    return out


def disagreement(observed: Observations, neighbours: int = _NEIGHBOURS) -> Array:
    """How differently the student sees a frame and those that look alike to it. (n,) in [0, 1]

    For each frame the expected count of every class (sum of scores) is compared with that of
    its nearest frames in feature space: |a - b|₁ / (|a|₁ + |b|₁), averaged over neighbours.
    """
    n = len(observed)
    k = min(neighbours, n - 1)
    if k < 1:
        return np.zeros(n)
    counts = _class_counts(observed.detections)
    features = observed.features.astype(np.float64)
    out = np.empty(n)
    for start in range(0, n, 256):  # bounded memory: 256 x n distances at a time
        rows = np.arange(start, min(start + 256, n))
        distance = _squared_distances(features[rows], features)
        distance[np.arange(len(rows)), rows] = np.inf
        near = np.argsort(distance, axis=1, kind="stable")[:, :k]
        apart = np.abs(counts[rows, None] - counts[near]).sum(2)
        total = (counts[rows].sum(1)[:, None] + counts.sum(1)[near]).clip(1e-12)
        out[rows] = (apart / total).mean(1)
    return out


# Orders -------------------------------------------------------------------------------------


def k_centre(features: NDArray[Any], first: int, weight: Array | None = None) -> Order:
    """Farthest-first traversal of ``features`` (n, d) from frame ``first``: each next frame is
    the one whose distance to its nearest chosen frame, times its ``weight`` (n,) > 0, is
    largest. Any prefix of k frames covers within twice the optimal k-centre radius (unweighted).
    O(n² d) time, O(n d) memory.
    """
    points = features.astype(np.float64)
    n, squares = len(points), (points**2).sum(1)
    order = np.empty(n, np.int64)
    nearest = np.full(n, np.inf)
    scale = np.ones(n) if weight is None else weight
    taken = np.zeros(n, bool)
    chosen = first
    for step in range(n):
        order[step] = chosen
        taken[chosen] = True
        distance = squares + squares[chosen] - 2 * points @ points[chosen]
        np.minimum(nearest, distance.clip(0), out=nearest)
        chosen = int(np.argmax(np.where(taken, -1.0, np.sqrt(nearest) * scale)))
    return order


def _random(observed: Observations, rng: np.random.Generator) -> Order:
    return rng.permutation(len(observed)).astype(np.int64)


def _uniform(observed: Observations, rng: np.random.Generator) -> Order:
    """Evenly over time at every prefix: the frames nearest to a van der Corput sequence over the
    span of the capture, rotated by the seed."""
    n = len(observed)
    order = np.empty(n, np.int64)
    if n == 0:
        return order
    start, end = observed.time_s.min(), observed.time_s.max()
    rotation = rng.random()
    left = np.ones(n, bool)
    for step in range(n):
        target = start + (end - start) * ((_van_der_corput(step) + rotation) % 1.0)
        away = np.where(left, np.abs(observed.time_s - target), np.inf)
        order[step] = np.argmin(away)
        left[order[step]] = False
    return order


def _diversity(observed: Observations, rng: np.random.Generator) -> Order:
    return (
        k_centre(observed.features, int(rng.integers(len(observed))))
        if len(observed)
        else _random(observed, rng)
    )


def _combined(observed: Observations, rng: np.random.Generator) -> Order:
    """Farthest-first with distances weighted by the ranks of entropy and disagreement: far from
    what is already chosen *and* uncertain. Ranks, since the two scores have no common scale."""
    if not len(observed):
        return _random(observed, rng)
    weight = _rank(entropy(observed.detections), rng) + _rank(disagreement(observed), rng)
    return k_centre(observed.features, int(np.argmax(weight)), weight)


RULES: dict[str, Callable[[Observations, np.random.Generator], Order]] = {
    "random": _random,
    "uniform": _uniform,
    "entropy": lambda seen, rng: _descending(entropy(seen.detections), rng),
    "margin": lambda seen, rng: _descending(margin(seen.detections), rng),
    "diversity": _diversity,
    "disagreement": lambda seen, rng: _descending(disagreement(seen), rng),
    "combined": _combined,
}
"""Selection rules by name; each returns an order of all frames, nested in the budget."""

BY_FEATURES = ("diversity", "disagreement", "combined")
"""Those that look at features."""


# Small parts --------------------------------------------------------------------------------


def _descending(score: Array, rng: np.random.Generator) -> Order:
    """Largest first; ties (frames without detections, say) in a seeded random order."""
    return np.lexsort((rng.permutation(len(score)), -score)).astype(np.int64)


def _rank(score: Array, rng: np.random.Generator) -> Array:
    """Rank from 1 / n (smallest) to 1 (largest); ties broken by the seed."""
    out = np.empty(len(score))
    out[_descending(score, rng)] = np.arange(len(score), 0, -1) / len(score)
    return out


def _kept(detections: Detections) -> Array:
    return detections.scores[detections.scores >= _MIN_SCORE]


def _binary_entropy(p: Array) -> Array:
    p = p.clip(1e-12, 1 - 1e-12)
    return -p * np.log2(p) - (1 - p) * np.log2(1 - p)


def _class_counts(detections: Sequence[Detections]) -> Array:
    classes = 1 + max((int(d.labels.max()) for d in detections if len(d.labels)), default=0)
    counts = np.zeros((len(detections), classes))
    for row, boxes in zip(counts, detections, strict=True):
        kept = boxes.scores >= _MIN_SCORE
        np.add.at(row, boxes.labels[kept], boxes.scores[kept])
    return counts


def _squared_distances(a: Array, b: Array) -> Array:
    """(m, n) squared Euclidean distances between rows, without the (m, n, d) intermediate."""
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.asarray(squares.clip(0))


def _van_der_corput(index: int) -> float:
    """Bits of ``index`` mirrored at the binary point: 0, 1/2, 1/4, 3/4, 1/8, ..."""
    value, half = 0.0, 0.5
    while index:
        value += half * (index & 1)
        index >>= 1
        half /= 2
    return value
