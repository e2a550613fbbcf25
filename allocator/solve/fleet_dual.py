"""What K devices answer to a price a hertz, all at once (the inner problem of fleet.py).

Each device maximises its surplus w·F(U, M) − λ·hertz. A grid of bytes finds the right hill, a
damped Newton method in log bytes its top. Devices are worked on in blocks that fit a cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from endedge.allocator.accuracy.joint import Kind

__all__ = ["FleetColumns", "FleetDual"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

_BLOCK = 2048
_CLOSED = 1e-13, 1e-18  # stop when steps promise less than this share of the surplus
_FEW = 200  # up to so many devices, the search is finer and goes on for longer


@dataclass(frozen=True)
class FleetColumns:
    """K devices as columns, devices of one kind side by side.

    ``kinds`` with their slices; ``theta`` (K, 7) parameters in the order of
    ``joint.PARAMETERS``; ``m0`` (K,) also the accuracy without an update; ``weight`` (K,);
    ``rate`` (K, 2) in Hz per byte (upload, update); ``low``, ``high`` (K, 2) bytes; ``seconds``
    (K, 2) of an edge, for an update at all and for a byte of its upload (None: none); ``count``
    (K,): how many alike each one stands for (None: itself).
    """

    kinds: tuple[tuple[Kind, slice], ...]
    theta: Floats
    m0: Floats
    weight: Floats
    rate: Floats
    low: Floats
    high: Floats
    seconds: Floats | None = None
    count: Ints | None = None

    def __len__(self) -> int:
        return len(self.weight)

    def runs(self, served: Bools | None = None) -> Ints:
        """Where runs of alike neighbours begin, of which all are ``served`` or none."""
        new = np.ones(len(self), dtype=bool)
        columns: list[Floats | Bools] = [self.theta, self.m0, self.weight, self.rate]
        columns += [self.low, self.high]
        columns += [c for c in (self.seconds, served) if c is not None]
        new[1:] = False
        for column in columns:
            differs = column[1:] != column[:-1]
            new[1:] |= differs if differs.ndim == 1 else differs.any(axis=1)
        new[[part.start for _, part in self.kinds]] = True
        return np.flatnonzero(new)

    def thinned(self, starts: Ints) -> FleetColumns:
        """One device for each of the :meth:`runs` that begin at ``starts``."""
        ends = np.searchsorted(starts, [part.stop for _, part in self.kinds]).tolist()
        kinds = zip((kind for kind, _ in self.kinds), [0, *ends], ends, strict=False)
        return FleetColumns(
            tuple((kind, slice(a, b)) for kind, a, b in kinds),
            self.theta[starts],
            self.m0[starts],
            self.weight[starts],
            self.rate[starts],
            self.low[starts],
            self.high[starts],
            None if self.seconds is None else self.seconds[starts],
            np.diff(np.append(starts, len(self))),
        )

    @property
    def idle(self) -> Floats:
        """Weighted accuracy (K,) without an update."""
        return self.weight * self.m0

    def blocks(self) -> Iterator[tuple[Kind, slice]]:
        """Slices of one kind and at most a few thousand devices."""
        for kind, part in self.kinds:
            for start in range(part.start, part.stop, _BLOCK):
                yield kind, slice(start, min(start + _BLOCK, part.stop))

    def sample(self, count: int) -> FleetColumns:
        """About ``count`` devices of all kinds, evenly spaced."""
        picks = [
            np.linspace(p.start, p.stop - 1, max(1, count * (p.stop - p.start) // len(self)))
            for _, p in self.kinds
        ]
        index = np.concatenate(picks).astype(np.int64)
        ends = np.cumsum([0, *(len(p) for p in picks)]).tolist()
        kinds = tuple(
            (kind, slice(a, b)) for (kind, _), a, b in zip(self.kinds, ends, ends[1:], strict=False)
        )
        return FleetColumns(
            kinds,
            self.theta[index],
            self.m0[index],
            self.weight[index],
            self.rate[index],
            self.low[index],
            self.high[index],
            None if self.seconds is None else self.seconds[index],
        )


class FleetDual:
    """Every device's best ``bytes`` (K, 2) and ``surplus`` (K,) at the last ``price``, and the
    least dual ``bound`` so far. An edge's second costs ``price_s`` and there are ``room_s``."""

    def __init__(
        self, fleet: FleetColumns, band_hz: float, price_s: float = 0.0, room_s: float = 0.0
    ) -> None:
        self.fleet, self.band = fleet, band_hz
        self.price_s, self.room_s, fee = price_s, room_s, np.zeros(len(fleet))
        if price_s and fleet.seconds is not None:
            fee = price_s * fleet.seconds[:, 0]
        self.fee, self.hurdle = fee, fleet.idle + fee  # surplus that an update has to bring
        self.few = len(fleet) <= _FEW
        self.blocks = [_Block(fleet, kind, part, price_s) for kind, part in fleet.blocks()]
        self.bytes = np.maximum(fleet.low, 1.0)
        self.surplus = np.zeros(len(fleet))
        self.price, self.bound = 0.0, math.inf
        self.slope = -2.0  # of log demand over log price: a guess until there are two points

    def cost(self) -> Floats:
        """Hertz of each device's bytes (K,)."""
        return np.asarray((self.fleet.rate * self.bytes).sum(axis=1))

    def value(self) -> Floats:
        """Weighted accuracy (K,) that each device's bytes reach."""
        return np.concatenate([b.evaluate(self.bytes[b.part])[0] for b in self.blocks])

    def search(self, price: float) -> None:
        """Answer ``price`` from every hill; weak duality then bounds what any split reaches."""
        size, rounds = (16, 60) if self.few else (8, 6)
        for block in self.blocks:
            self.bytes[block.part] = block.scan(self.bytes[block.part], price, size)
        self._climb(price, rounds)
        best = np.maximum(self.surplus, self.hurdle) - self.fee
        dual = price * self.band + self.price_s * self.room_s + self._total(best)
        self.bound = min(self.bound, dual)

    def _climb(self, price: float, rounds: int) -> None:
        self.price = price
        for block in self.blocks:
            at = block.part
            closed = _CLOSED[self.few]
            self.bytes[at], self.surplus[at] = block.climb(self.bytes[at], price, rounds, closed)

    def demand(self, price: float, served: Bools | None) -> float:
        """Hertz asked for at ``price`` by the devices that gain by it, or by the ``served``."""
        if served is None:
            self.search(price)
        else:
            self._climb(price, 60 if self.few else 5)
        asking = self.surplus > self.hurdle if served is None else served
        return self._total(np.where(asking, self.cost(), 0.0))

    def _total(self, each: Floats) -> float:
        """Over all devices, those that stand for several counted as such."""
        count = self.fleet.count
        return float(each.sum() if count is None else (count * each).sum())

    def root(self, price: float, served: Bools | None, tolerance: float) -> None:
        """Find the price at which demand meets the band, or just stays within it.

        Secants on the logarithms, inside a bracket; leaves the devices where the band
        sufficed last. Of alike neighbours one answers for all.
        """
        starts = self.fleet.runs(served)
        if 2 * len(starts) <= len(self.fleet):
            few = FleetDual(self.fleet.thinned(starts), self.band, self.price_s, self.room_s)
            few.bytes, few.slope = self.bytes[starts], self.slope
            few.root(price, None if served is None else served[starts], tolerance)
            count = few.fleet.count
            assert count is not None
            self.bytes, self.surplus = np.repeat(few.bytes, count, 0), few.surplus.repeat(count)
            self.price, self.slope = few.price, few.slope
            self.bound = min(self.bound, few.bound)
            return
        low, high, target = 0.0, math.inf, math.log(self.band)
        fits: tuple[float, Floats, Floats] | None = None
        last: tuple[float, float] | None = None
        slope = self.slope if served is None else -2.0
        for _ in range(100):
            excess = math.log(max(self.demand(price, served), 1e-300)) - target
            if excess > 0:
                low = price
            else:
                high, fits = price, (price, self.bytes.copy(), self.surplus.copy())
            if -tolerance < excess <= 0 or price < 1e-25 or low * (1 + tolerance / 9) > high:
                break
            here = math.log(price), excess
            if last is not None and here[0] != last[0]:
                self.slope = slope = min(max((here[1] - last[1]) / (here[0] - last[0]), -9.0), -0.2)
            aim = here[0] + min(max(-(excess + 0.3 * tolerance) / slope, -4.0), 4.0)
            if low and high < math.inf and not math.log(low) < aim < math.log(high):
                aim = (math.log(low) + math.log(high)) / 2
            last, price = here, math.exp(aim)
        if fits is not None:
            self.price, self.bytes, self.surplus = fits


class _Block:
    """Devices of one kind, side by side: their columns and their Newton steps."""

    def __init__(self, fleet: FleetColumns, kind: Kind, part: slice, price_s: float) -> None:
        self.kind, self.part = kind, part
        self.start, self.gain, log_u0, self.data_s, log_m0, self.model_s, self.depth = (
            np.ascontiguousarray(column) for column in fleet.theta[part].T
        )
        self.m0, self.weight, self.rate = fleet.m0[part], fleet.weight[part], fleet.rate[part].T
        self.toll = np.zeros_like(self.rate)  # value a byte that the edge's seconds cost
        if price_s and fleet.seconds is not None:
            self.toll[0] = price_s * fleet.seconds[part, 1]
        self.per_u0, self.per_m0 = np.exp(-log_u0), np.exp(-log_m0)
        low, high = np.maximum(fleet.low[part].T, 1.0), np.maximum(fleet.high[part].T, 1.0)
        if kind.model == "power":  # beyond the cap nothing is gained: a bound, not a kink
            high[1] = np.clip(np.exp(log_m0) * (1.0 - 1e-9), low[1], high[1])
        self.logs = np.log(low), np.log(high)

    def _paid(self, price: float) -> Floats:
        """Value that a byte costs each way (2, k)."""
        return np.asarray(price * self.rate + self.toll)

    def combine(self, data: Floats, model: Floats) -> Floats:
        """Weighted F from A and G."""
        if self.kind.composition == "product":
            value = data * model
        elif self.kind.composition == "additive":
            value = data - self.depth * (1.0 - model)
        else:
            value = self.m0 + (data - self.m0) * model
        return np.asarray(self.weight * value)

    def evaluate(self, n_bytes: Floats) -> tuple[Floats, ...]:
        """Weighted F at bytes (k, 2), and in log bytes its slopes and second derivatives."""
        data, model = self.kind.data_shape, self.kind.model_shape
        x, z = n_bytes[:, 0] * self.per_u0, n_bytes[:, 1] * self.per_m0
        r, g = data.value(x, self.data_s), model.value(z, self.model_s)
        r1, g1 = x * data.slope(x, self.data_s, r), z * model.slope(z, self.model_s, g)
        r2 = r1 * (1.0 + x * data.bend(x, self.data_s, r))
        g2 = g1 * (1.0 + z * model.bend(z, self.model_s, g))
        a, lift = self.start + self.gain * r, self.weight * self.gain
        if self.kind.composition == "additive":
            sink = self.weight * self.depth
            return self.combine(a, g), lift * r1, sink * g1, lift * r2, 0.0 * r1, sink * g2
        above = self.weight * (a - self.m0 if self.kind.composition == "share" else a)
        slopes = lift * r1 * g, above * g1
        return self.combine(a, g), *slopes, lift * r2 * g, lift * r1 * g1, above * g2

    def scan(self, n_bytes: Floats, price: float, size: int) -> Floats:
        """The better of ``n_bytes`` and the best point of a size x size grid of bytes."""
        low, high, steps = self.logs[0][..., None], self.logs[1][..., None], np.linspace(0, 1, size)
        u, m = np.exp(low + steps * (high - low))  # (k, size) each
        rise = self.kind.data_shape.value(u * self.per_u0[:, None], self.data_s[:, None])
        model = self.kind.model_shape.value(m * self.per_m0[:, None], self.model_s[:, None])
        data, each = self.start[:, None] + self.gain[:, None] * rise, np.arange(len(u))
        # Surplus up to a constant of the device: of F = base + above·G, or of A + depth·G.
        paid = self._paid(price)
        cost_u, cost_m = paid[0][:, None] * u, paid[1][:, None] * m
        weight, above = self.weight[:, None], data
        if self.kind.composition == "additive":
            i = (weight * data - cost_u).argmax(axis=1)
            j = (weight * self.depth[:, None] * model - cost_m).argmax(axis=1)
        else:
            if self.kind.composition == "share":
                above = data - self.m0[:, None]
            surplus = (weight * above)[:, :, None] * model[:, None, :]
            surplus -= cost_u[:, :, None]
            surplus -= cost_m[:, None, :]
            i, j = np.divmod(surplus.reshape(len(u), -1).argmax(axis=1), size)
        value = self.combine(data[each, i], model[each, j])
        best = value - cost_u[each, i] - cost_m[each, j]
        here = self.evaluate(n_bytes)[0] - (paid * n_bytes.T).sum(axis=0)
        point = np.stack([u[each, i], m[each, j]], axis=1)
        return np.where((best > here)[:, None], point, n_bytes)

    def climb(
        self, n_bytes: Floats, price: float, rounds: int, closed: float
    ) -> tuple[Floats, Floats]:
        """Newton steps from ``n_bytes``; returns the bytes reached and their surplus (k,)."""
        n_bytes, trust = n_bytes.T, np.ones(len(n_bytes))
        paid = self._paid(price)
        cost = paid * n_bytes
        state = np.stack(self.evaluate(n_bytes.T))
        surplus, logs = state[0] - cost.sum(axis=0), np.log(n_bytes)
        for _ in range(rounds):
            step, promised = self._step(state, cost, logs)
            if promised <= closed * np.abs(surplus).sum():
                break
            trial_logs = np.clip(logs + step * trust, *self.logs)
            trial = np.exp(trial_logs)
            trial_cost = paid * trial
            trial_state = np.stack(self.evaluate(trial.T))
            trial_surplus = trial_state[0] - trial_cost.sum(axis=0)
            better = trial_surplus >= surplus
            logs, cost = np.where(better, trial_logs, logs), np.where(better, trial_cost, cost)
            n_bytes, state = np.where(better, trial, n_bytes), np.where(better, trial_state, state)
            surplus = np.where(better, trial_surplus, surplus)
            trust = np.where(better, np.minimum(2.0 * trust, 1.0), 0.25 * trust)
        return n_bytes.T, surplus

    def _step(self, state: Floats, cost: Floats, logs: Floats) -> tuple[Floats, float]:
        """The projected Newton step (2, k) in log bytes, at most 1.5 in each, and the gain
        that all steps together promise."""
        _, f_u, f_m, f_uu, h_um, f_mm = state
        slope = np.stack([f_u, f_m]) - cost
        held = ((logs <= self.logs[0]) & (slope < 0)) | ((logs >= self.logs[1]) & (slope > 0))
        (g_u, g_m), h_uu, h_mm = slope, f_uu - cost[0], f_mm - cost[1]
        h_um = np.where(held.any(axis=0), 0.0, h_um)
        determinant = h_uu * h_mm - h_um * h_um
        peaked = (h_uu < 0) & (h_mm < 0) & (determinant > 0)
        determinant = np.where(peaked, determinant, 1.0)
        # Where there is no peak to aim at, each direction climbs by itself.
        alone = slope / np.maximum(np.abs(np.stack([h_uu, h_mm])), 1e-300)
        newton = np.stack([h_um * g_m - h_mm * g_u, h_um * g_u - h_uu * g_m]) / determinant
        step = np.clip(np.where(held, 0.0, np.where(peaked, newton, alone)), -1.5, 1.5)
        return step, float(np.abs(slope * step).sum())
