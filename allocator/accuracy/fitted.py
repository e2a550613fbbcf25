"""Fitted curves as the solver and the figures see them, however they came about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from endedge.allocator.accuracy.joint import Joint, Kind
from endedge.allocator.accuracy.monotone import Monotone
from endedge.allocator.problem import Measured, OperatingPoint

__all__ = ["Fitted", "Options", "Tried"]

Floats = NDArray[np.float64]


class Tried(Protocol):
    """A kind of surface that was fitted."""

    @property
    def kind(self) -> Kind: ...

    @property
    def joint(self) -> Joint: ...


class Fitted(Measured, Protocol):
    """F(U, M) and how sure we are (:class:`endedge.allocator.Curves`)."""

    @property
    def joint(self) -> Joint: ...

    @property
    def candidates(self) -> Sequence[Tried]: ...

    @property
    def replicates(self) -> Sequence[Joint]: ...

    @property
    def reference(self) -> Monotone: ...

    @property
    def uploads(self) -> Sequence[OperatingPoint]: ...

    @property
    def updates(self) -> Sequence[OperatingPoint]: ...

    def predict(self, upload_bytes: Floats | float, update_bytes: Floats | float) -> Floats: ...

    def draws(self, upload_bytes: Floats | float, update_bytes: Floats | float) -> Floats: ...

    def interval(
        self, upload_bytes: Floats | float, update_bytes: Floats | float, level: float = 0.9
    ) -> tuple[Floats, Floats]: ...

    def extrapolates(self, upload_bytes: Floats | float, update_bytes: Floats | float) -> Any: ...


class Options(Protocol):
    """Operating points as columns of bytes (n,)."""

    @property
    def upload_bytes(self) -> Floats: ...

    @property
    def update_bytes(self) -> Floats: ...
