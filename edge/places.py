"""Where a device is, told by the frames that came and by nothing else: has the world changed, and
was it like this before?

The edge runs models that it remembers on every upload: the one that the device came with, and
later ones. In another place their losses are others. A batch is compared with every place met so
far, frame losses of several models being correlated, for they are of the same frames; the place
that explains it best is taken, a new one where none does (a filter over a hidden Markov chain whose
states are not known in advance, one decision a batch: after Adams and MacKay, *Bayesian Online
Changepoint Detection*, 2007, with places that return).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Places", "recognise"]

Floats = NDArray[np.float64]

_CHANGE = 1 / 7  # prior probability that the place changes from one batch to the next
_NEW = 0.5  # of a change: that it goes to a place nobody has seen
_DRIFT = 0.05  # nats: how far the mean log loss of a place moves by itself
_APART = 0.7  # nats: how far places differ
_ONE_FRAME = 0.3  # nats: deviation of a frame's log loss, counted as four frames seen before


@dataclass
class _Place:
    """Sums over the frames met in a place, by model: numbers of frames and sums of log losses."""

    frames: dict[str, float] = field(default_factory=dict)
    total: dict[str, float] = field(default_factory=dict)

    def add(self, losses: Mapping[str, Floats]) -> None:
        for name, each in losses.items():
            self.frames[name] = self.frames.get(name, 0.0) + len(each)
            self.total[name] = self.total.get(name, 0.0) + float(each.sum())


class Places:
    """Places met so far, numbered from 0 in the order of their discovery."""

    def __init__(self) -> None:
        self._met: list[_Place] = []
        self._now = 0

    def __len__(self) -> int:
        return len(self._met)

    def heard(self, losses: Mapping[str, Sequence[float]]) -> int:
        """The place of a batch, from the loss (> 0) of each of its n frames under each remembered
        model by name; every model on the same frames. The batch then belongs to that place."""
        logs = {k: np.log(np.maximum(np.asarray(v, float), 1e-9)) for k, v in losses.items()}
        logs = {k: v for k, v in logs.items() if len(v) and np.isfinite(v).all()}
        if not logs:
            return self._now
        if self._met:
            score = [self._likelihood(place, logs) for place in self._met]
            others = len(self._met) - 1
            for i in range(len(score)):
                back = _CHANGE * (1 - _NEW) / max(others, 1)
                score[i] += np.log(1 - _CHANGE if i == self._now else back)
            score.append(self._anywhere(logs) + np.log(_CHANGE * (_NEW if others else 1.0)))
            self._now = int(np.argmax(score))
        if self._now == len(self._met):
            self._met.append(_Place())
        self._met[self._now].add(logs)
        return self._now

    def _likelihood(self, place: _Place, logs: Mapping[str, Floats]) -> float:
        """Log density of the batch's means in ``place``, by the models that were run there; what
        the others say counts as it would anywhere, so that no place gains by a model less."""
        shared_names = [name for name in logs if name in place.frames]
        if not shared_names:
            return self._anywhere(logs)
        x, cover = _means(logs, shared_names)
        mean = np.array([place.total[k] / place.frames[k] for k in shared_names])
        before = np.array([place.frames[k] for k in shared_names])
        n = len(logs[shared_names[0]])
        shared = cover * (1 / n + 1 / np.maximum.outer(before, before))
        likelihood = _normal(x - mean, shared + _DRIFT**2 * np.eye(len(shared_names)))
        rest = [name for name in logs if name not in place.frames]
        return likelihood + (self._anywhere({k: logs[k] for k in rest}) if rest else 0.0)

    def _anywhere(self, logs: Mapping[str, Floats]) -> float:
        """Log density of the batch's means in a place nobody has seen."""
        names = list(logs)
        x, cover = _means(logs, names)
        middle = [
            sum(p.total.get(k, 0.0) for p in self._met)
            / max(sum(p.frames.get(k, 0.0) for p in self._met), 1.0)
            if any(k in p.frames for p in self._met)
            else float(x[i])
            for i, k in enumerate(names)
        ]
        size = len(names)
        apart = _APART**2 * 0.5 * (np.eye(size) + np.ones((size, size)))
        return _normal(x - np.array(middle), cover / len(logs[names[0]]) + apart)


def recognise(batches: Sequence[Mapping[str, Sequence[float]]]) -> list[int]:
    """The places of ``batches``, oldest first, as :class:`Places` names one after the other."""
    places = Places()
    return [places.heard(losses) for losses in batches]


def _means(logs: Mapping[str, Floats], names: Sequence[str]) -> tuple[Floats, Floats]:
    """Mean log losses (m,) and the covariance (m, m) of one frame's, shrunk as by four frames."""
    table = np.stack([logs[name] for name in names])
    n = table.shape[1]
    off = table - table.mean(axis=1, keepdims=True)
    cover = (off @ off.T + 4 * _ONE_FRAME**2 * np.eye(len(names))) / (n + 3)
    return table.mean(axis=1), cover


def _normal(off: Floats, cover: Floats) -> float:
    sign, size = np.linalg.slogdet(cover)
    assert sign > 0
    return float(-0.5 * (off @ np.linalg.solve(cover, off) + size + len(off) * np.log(2 * np.pi)))
