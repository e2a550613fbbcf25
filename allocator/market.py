"""What K devices answer to a price a hertz, all at once (the inner problem of fleet.py).

A coarse grid of bytes finds the right hill of each device's surplus w·F(U, M) − λ·hertz, a
damped Newton method in log bytes its top.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from endedge.allocator.joint import Kind

__all__ = ["Fleet", "Market"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_COARSE = 8  # grid of bytes per direction in the search for the right hill


@dataclass(frozen=True)
class Fleet:
    """K devices as columns, devices of one kind side by side.

    ``kinds`` with their slices; ``theta`` (K, 7) parameters in the order of
    ``joint.PARAMETERS``; ``m0`` (K,) also the accuracy without an update; ``weight`` (K,);
    ``rate`` (K, 2) in Hz per byte (upload, update); ``low``, ``high`` (K, 2) bytes.
    """

    kinds: tuple[tuple[Kind, slice], ...]
    theta: Floats
    m0: Floats
    weight: Floats
    rate: Floats
    low: Floats
    high: Floats

    def __len__(self) -> int:
        return len(self.weight)

    @property
    def idle(self) -> Floats:
        """Weighted accuracy (K,) without an update."""
        return self.weight * self.m0


class Market:
    """Every device's best ``bytes`` (K, 2) at the last price, and the dual ``bound`` so far."""

    def __init__(self, fleet: Fleet, band_hz: float) -> None:
        self.fleet, self.band = fleet, band_hz
        self.low, self.high = _useful(fleet)
        self.logs = np.log(self.low), np.log(self.high)
        self.bytes = self.high.copy()
        self.price, self.bound = 0.0, math.inf

    def cost(self) -> Floats:
        """Hertz of each device's bytes (K,)."""
        return np.asarray((self.fleet.rate * self.bytes).sum(axis=1))

    def value(self) -> Floats:
        """Weighted accuracy (K,) that each device's bytes reach."""
        return self._evaluate(self.bytes)[0]

    def _evaluate(self, n_bytes: Floats) -> tuple[Floats, ...]:
        """Weighted F (K,), then its first and second derivatives in bytes."""
        fleet = self.fleet
        out = np.empty((6, len(fleet)))
        for kind, part in fleet.kinds:
            out[:, part] = _derivatives(kind, fleet.theta[part], fleet.m0[part], n_bytes[part])
        return tuple(out * fleet.weight)

    def scan(self, price: float) -> None:
        """Move every device to the best point of a coarse grid, where that beats its own."""
        steps = np.linspace(0.0, 1.0, _COARSE)[:, None, None]
        everywhere = np.exp(self.logs[0] + steps * (self.logs[1] - self.logs[0]))
        most = self.value() - price * self.cost()
        for kind, part in self.fleet.kinds:
            fleet, grid = self.fleet, everywhere[:, part]
            t, weight = fleet.theta[part], fleet.weight[part]
            cost = price * fleet.rate[part] * grid
            rise = kind.data_shape.value(grid[..., 0] * np.exp(-t[:, 2]), t[:, 3])
            model = kind.model_shape.value(grid[..., 1] * np.exp(-t[:, 4]), t[:, 5])
            data = t[:, 0] + t[:, 1] * rise
            best, at = most[part], np.full(len(weight), -1)
            for i in range(_COARSE):
                for j in range(_COARSE):
                    value = _combine(kind, t[:, 6], fleet.m0[part], data[i], model[j])
                    surplus = weight * value - cost[i, :, 0] - cost[j, :, 1]
                    at = np.where(surplus > best, i * _COARSE + j, at)
                    best = np.maximum(best, surplus)
            moved, each = at >= 0, np.arange(len(weight))
            point = np.stack([grid[at // _COARSE, each, 0], grid[at % _COARSE, each, 1]], axis=1)
            self.bytes[part] = np.where(moved[:, None], point, self.bytes[part])

    def climb(self, price: float, rounds: int) -> Floats:
        """Newton steps in log bytes from where each device is; returns the surplus (K,)."""
        fleet, trust = self.fleet, np.ones(len(self.fleet))
        state = self._evaluate(self.bytes)
        surplus = state[0] - price * self.cost()
        for _ in range(rounds):
            step = self._step(state, price) * trust[:, None]
            trial = np.exp(np.clip(np.log(self.bytes) + step, *self.logs))
            trial = np.clip(trial, self.low, self.high)
            trial_state = self._evaluate(trial)
            trial_surplus = trial_state[0] - price * (fleet.rate * trial).sum(axis=1)
            better = trial_surplus >= surplus
            gained = np.where(better, trial_surplus - surplus, 0.0).sum()
            self.bytes = np.where(better[:, None], trial, self.bytes)
            state = tuple(np.where(better, t, s) for t, s in zip(trial_state, state, strict=True))
            surplus = np.where(better, trial_surplus, surplus)
            trust = np.where(better, np.minimum(2.0 * trust, 1.0), 0.25 * trust)
            if gained <= 1e-13 * np.abs(surplus).sum() and (better | (trust < 1e-6)).all():
                break
        return surplus

    def _step(self, state: tuple[Floats, ...], price: float) -> Floats:
        """The projected Newton step (K, 2) in log bytes, at most 1.5 in each."""
        _, f_u, f_m, f_uu, f_um, f_mm = state
        (u, m), rate = self.bytes.T, self.fleet.rate
        g_u, g_m = u * (f_u - price * rate[:, 0]), m * (f_m - price * rate[:, 1])
        h_uu, h_um, h_mm = u * u * f_uu + g_u, u * m * f_um, m * m * f_mm + g_m
        still_u = _held(g_u, u, self.low[:, 0], self.high[:, 0])
        still_m = _held(g_m, m, self.low[:, 1], self.high[:, 1])
        h_um = np.where(still_u | still_m, 0.0, h_um)
        determinant = h_uu * h_mm - h_um * h_um
        peaked = (h_uu < 0) & (h_mm < 0) & (determinant > 0)
        determinant = np.where(peaked, determinant, 1.0)
        # Where there is no peak to aim at, each direction climbs by itself.
        alone_u = g_u / np.maximum(np.abs(h_uu), 1e-300)
        alone_m = g_m / np.maximum(np.abs(h_mm), 1e-300)
        step_u = np.where(peaked, (h_um * g_m - h_mm * g_u) / determinant, alone_u)
        step_m = np.where(peaked, (h_um * g_u - h_uu * g_m) / determinant, alone_m)
        step = np.stack([np.where(still_u, 0.0, step_u), np.where(still_m, 0.0, step_m)], axis=1)
        return np.asarray(np.clip(step, -1.5, 1.5))

    def demand(self, price: float, rounds: int, served: Bools | None = None) -> float:
        """Hertz asked for at ``price`` by the devices that gain by it, or by the ``served``."""
        self.price = price
        surplus = self.climb(price, rounds)
        if served is None:
            dual = price * self.band + float(np.maximum(surplus, self.fleet.idle).sum())
            self.bound = min(self.bound, dual)
            served = surplus > self.fleet.idle
        return float(self.cost()[served].sum())

    def root(self, price: float, rounds: int, served: Bools | None, tolerance: float) -> float:
        """The price at which demand meets the band, or just stays within it.

        Secants on the logarithms, inside a bracket; leaves the devices where the band
        sufficed. Returns that price (0 when the band suffices for everything).
        """
        low, high, target = 0.0, math.inf, math.log(self.band)
        fits: tuple[float, Floats] | None = None
        last: tuple[float, float] | None = None
        for _ in range(100):
            excess = math.log(max(self.demand(price, rounds, served), 1e-300)) - target
            if excess > 0:
                low = price
            else:
                high, fits = price, (price, self.bytes.copy())
            if -tolerance < excess <= 0 or price < 1e-25 or (low and high / low < 1 + 1e-13):
                break
            here, slope = (math.log(price), excess), -1.0
            if last is not None and here[0] != last[0]:
                slope = min((here[1] - last[1]) / (here[0] - last[0]), -0.05)
            aim = here[0] + min(max(-(excess + 0.3 * tolerance) / slope, -4.0), 4.0)
            if low and high < math.inf and not math.log(low) < aim < math.log(high):
                aim = (math.log(low) + math.log(high)) / 2
            last, price = here, math.exp(aim)
        if fits is None:
            return price
        self.price, self.bytes = fits
        return self.price


def _held(slope: Floats, at: Floats, low: Floats, high: Floats) -> Bools:
    near = 1.0 + 1e-12  # exp(log(x)) is not x
    return np.asarray(((at <= low * near) & (slope < 0)) | ((at * near >= high) & (slope > 0)))


def _useful(fleet: Fleet) -> tuple[Floats, Floats]:
    """Byte limits (K, 2): from 1 byte (logarithms), and not beyond the cap of a capped curve."""
    low, high = np.maximum(fleet.low, 1.0), np.maximum(fleet.high, 1.0)
    for kind, part in fleet.kinds:
        if kind.model == "power":
            cap = np.exp(fleet.theta[part, 4])
            high[part, 1] = np.clip(cap, low[part, 1], high[part, 1])
    return low, high


def _combine(kind: Kind, depth: Any, m0: Any, data: Floats, model: Floats) -> Floats:
    if kind.composition == "product":
        return data * model
    if kind.composition == "additive":
        return np.asarray(data - depth * (1.0 - model))
    return np.asarray(m0 + (data - m0) * model)


def _derivatives(kind: Kind, theta: Floats, m0: Floats, n_bytes: Floats) -> tuple[Floats, ...]:
    """F and its first and second derivatives (each (k,)) at bytes (k, 2)."""
    start, gain, log_u0, data_s, log_m0, model_s, depth = theta.T
    x, z = n_bytes[:, 0] * np.exp(-log_u0), n_bytes[:, 1] * np.exp(-log_m0)
    data, model = kind.data_shape, kind.model_shape
    a, g = data.value(x, data_s), model.value(z, model_s)
    a1, g1 = data.slope(x, data_s, a), model.slope(z, model_s, g)
    a2, g2 = a1 * data.bend(x, data_s, a), g1 * model.bend(z, model_s, g)
    du, dm = x / n_bytes[:, 0], z / n_bytes[:, 1]
    a, a1, a2 = start + gain * a, gain * du * a1, gain * du * du * a2
    g1, g2 = g1 * dm, g2 * dm * dm
    value = _combine(kind, depth, m0, a, g)
    if kind.composition == "additive":
        return value, a1, depth * g1, a2, 0.0 * a1, depth * g2
    above = a - m0 if kind.composition == "share" else a
    return value, a1 * g, above * g1, a2 * g, a1 * g1, above * g2
