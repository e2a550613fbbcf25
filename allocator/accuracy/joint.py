"""The joint accuracy surface F(U, M): one data curve, one model curve, one composition."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from endedge.allocator.accuracy.shapes import DATA_SHAPES, MODEL_SHAPES, TINY, Number, Shape
from endedge.data.errors import BadInput

__all__ = ["COMPOSITIONS", "PARAMETERS", "Joint", "Kind", "joint_value"]

Floats = NDArray[np.float64]

COMPOSITIONS = ("product", "additive", "share")

# The order of a parameter vector theta: start, gain, ln U0, data shape, ln M0, model shape, depth.
PARAMETERS = ("start", "gain", "log_U0", "data_s", "log_M0", "model_s", "depth")


@dataclass(frozen=True)
class Kind:
    """Which families make up a surface."""

    composition: str
    data: str
    model: str

    def __post_init__(self) -> None:
        if self.composition not in COMPOSITIONS:
            raise BadInput(f"composition {self.composition!r} is not one of {COMPOSITIONS}")
        if self.data not in DATA_SHAPES:
            raise BadInput(f"data family {self.data!r} is not one of {tuple(DATA_SHAPES)}")
        if self.model not in MODEL_SHAPES:
            raise BadInput(f"model family {self.model!r} is not one of {tuple(MODEL_SHAPES)}")

    @property
    def data_shape(self) -> Shape:
        return DATA_SHAPES[self.data]

    @property
    def model_shape(self) -> Shape:
        return MODEL_SHAPES[self.model]

    @property
    def free(self) -> NDArray[np.bool_]:
        """Which of the seven parameters this kind has."""
        return np.array(
            [
                True,
                True,
                True,
                bool(self.data_shape.symbol),
                True,
                bool(self.model_shape.symbol),
                self.composition == "additive",
            ]
        )

    def __str__(self) -> str:
        return f"{self.composition}({self.data}, {self.model})"


def joint_value(kind: Kind, theta: Floats, m0: float, upload: Number, update: Number) -> Floats:
    """F for parameter vectors ``theta`` (..., 7) at bytes (n,): (..., n), not clipped."""
    start, gain, log_u0, data_s, log_m0, model_s, depth = (
        theta[..., k, None] for k in range(len(PARAMETERS))
    )
    data = start + gain * kind.data_shape.value(upload * np.exp(-log_u0), data_s)
    model = kind.model_shape.value(update * np.exp(-log_m0), model_s)
    if kind.composition == "product":
        return np.asarray(data * model)
    if kind.composition == "additive":
        return np.asarray(data - depth * (1.0 - model))
    return np.asarray(m0 + (data - m0) * model)


@dataclass(frozen=True)
class Joint:
    """F(U, M) with fixed parameters; bytes in, mAP out (not clipped to [0, 1]).

    A(U) = start + gain·r(U/U0), G(M) = r(M/M0) in [0, 1], and F is A·G (``product``),
    A − depth·(1 − G) (``additive``) or m0 + (A − m0)·G (``share``). ``start`` below ``m0``
    says that small uploads make the detector forget.
    """

    kind: Kind
    m0: float
    start: float
    gain: float
    u0_bytes: float
    data_s: float
    m0_bytes: float
    model_s: float
    depth: float = 0.0

    def __post_init__(self) -> None:
        kind = self.kind
        ranges: dict[str, tuple[float, tuple[float, float]]] = {
            "m0": (self.m0, (0.0, 1.0)),
            "start": (self.start, (-10.0, 10.0)),
            "gain": (self.gain, (0.0, 10.0)),  # a curve may not fall
            "U0_bytes": (self.u0_bytes, (1e-3, 1e15)),
            f"data_{kind.data_shape.symbol}": (self.data_s, kind.data_shape.bounds),
            "M0_bytes": (self.m0_bytes, (1e-3, 1e15)),
            f"model_{kind.model_shape.symbol}": (self.model_s, kind.model_shape.bounds),
            "depth": (self.depth, (0.0, 10.0)),
        }
        for name, (value, (low, high)) in ranges.items():
            if not low * (1 - 1e-9) - 1e-9 <= value <= high * (1 + 1e-9):
                raise BadInput(f"curve {kind}: {name} = {value:g} must lie in [{low:g}, {high:g}]")

    @classmethod
    def of(cls, kind: Kind, theta: Floats, m0: float) -> Joint:
        """From one parameter vector (7,) in the order of ``PARAMETERS``."""
        t = [float(x) for x in theta]
        return cls(kind, m0, t[0], t[1], math.exp(t[2]), t[3], math.exp(t[4]), t[5], t[6])

    @property
    def theta(self) -> Floats:
        """The parameter vector (7,)."""
        logs = math.log(self.u0_bytes), math.log(self.m0_bytes)
        return np.array(
            [self.start, self.gain, logs[0], self.data_s, logs[1], self.model_s, self.depth]
        )

    def data(self, upload: Number) -> Number:
        """A(U): mAP at full model size."""
        return self.start + self.gain * self.kind.data_shape.value(
            upload / self.u0_bytes, self.data_s
        )

    def data_line(self, upload: Number) -> tuple[Number, Number]:
        """A(U) and dA/dU in mAP per byte."""
        x, shape = upload / self.u0_bytes + TINY, self.kind.data_shape
        rise = shape.value(x, self.data_s)
        slope = shape.slope(x, self.data_s, rise) * (self.gain / self.u0_bytes)
        return self.start + self.gain * rise, slope

    def model(self, update: Number) -> Number:
        """G(M) in [0, 1]: share of the accuracy that M bytes of model keep."""
        return self.kind.model_shape.value(update / self.m0_bytes, self.model_s)

    def model_line(self, update: Number) -> tuple[Number, Number]:
        """G(M) and dG/dM per byte."""
        x, shape = update / self.m0_bytes + TINY, self.kind.model_shape
        rise = shape.value(x, self.model_s)
        return rise, shape.slope(x, self.model_s, rise) / self.m0_bytes

    def combine(self, data: Number, model: Number) -> Number:
        """F from A and G."""
        if self.kind.composition == "product":
            return data * model
        if self.kind.composition == "additive":
            return data - self.depth * (1.0 - model)
        return self.m0 + (data - self.m0) * model

    def weights(self, data: Number, model: Number) -> tuple[Number, Number]:
        """(dF/dA, dF/dG)."""
        if self.kind.composition == "product":
            return model, data
        if self.kind.composition == "additive":
            return model * 0.0 + 1.0, data * 0.0 + self.depth
        return model, data - self.m0

    def value(self, upload: Number, update: Number) -> Number:
        """F(U, M)."""
        return self.combine(self.data(upload), self.model(update))

    def slopes(self, upload: Number, update: Number) -> tuple[Number, Number]:
        """(dF/dU, dF/dM) in mAP per byte."""
        (data, data_slope), (model, model_slope) = self.data_line(upload), self.model_line(update)
        by_data, by_model = self.weights(data, model)
        return by_data * data_slope, by_model * model_slope

    @property
    def base(self) -> float:
        """The constant that F − base = (A − base)·G is free of (0 for ``additive``)."""
        return self.m0 if self.kind.composition == "share" else 0.0

    def parameters(self) -> dict[str, Any]:
        """Names and numbers as ``curves.json`` shows them."""
        named: dict[str, Any] = {"start": self.start, "gain": self.gain, "U0_bytes": self.u0_bytes}
        if self.kind.data_shape.symbol:
            named[f"data_{self.kind.data_shape.symbol}"] = self.data_s
        named["M0_bytes"] = self.m0_bytes
        if self.kind.model_shape.symbol:
            named[f"model_{self.kind.model_shape.symbol}"] = self.model_s
        if self.kind.composition == "additive":
            named["depth"] = self.depth
        return named

    @classmethod
    def from_parameters(cls, kind: Kind, m0: float, named: dict[str, Any]) -> Joint:
        """The inverse of :meth:`parameters`; :class:`BadInput` for a missing or odd one."""

        def number(name: str) -> float:
            value = named.get(name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise BadInput(f"curve {kind}: parameter {name} = {value!r} is not a number")
            return float(value)

        data_symbol, model_symbol = kind.data_shape.symbol, kind.model_shape.symbol
        return cls(
            kind,
            m0,
            number("start"),
            number("gain"),
            number("U0_bytes"),
            number(f"data_{data_symbol}") if data_symbol else 1.0,
            number("M0_bytes"),
            number(f"model_{model_symbol}") if model_symbol else 1.0,
            number("depth") if kind.composition == "additive" else 0.0,
        )
