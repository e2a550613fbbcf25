"""Figures as people write them: sizes, bandwidths, shares, mAP and differences of it."""

from __future__ import annotations

import math

from endedge.lab.report.tabular import decimal

__all__ = [
    "bandwidth",
    "byte_size",
    "counted",
    "hundredths",
    "percent",
    "points",
    "quantity",
    "share_of",
]

_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def quantity(value: float, unit: str) -> str:
    """``1234567, "B"`` → ``1.23 MB``: three digits, powers of 1000, a space that does not break."""
    if not math.isfinite(value):
        return "–"
    scale, prefix = next(((s, p) for s, p in _PREFIXES if abs(value) >= s * 0.9995), (1.0, ""))
    digits = value / scale
    decimals = 0 if abs(digits) >= 99.95 else 1 if abs(digits) >= 9.995 else 2
    text = f"{digits:.{decimals}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text}\u00a0{prefix}{unit}"


def percent(accuracy: float) -> str:
    """mAP in [0, 1] as people write it: ``24.3``."""
    return "–" if math.isnan(accuracy) else f"{100 * accuracy:.1f}"


def points(difference: float) -> str:
    """A difference of mAP with its sign: ``+1.9 points``."""
    return f"{decimal(100 * difference, 1, signed=True)}\u00a0points"


def counted(n: int, what: str) -> str:
    """``1 seed``, ``2 seeds``."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def share_of(part: float) -> str:
    """``0.74`` → ``74 %``."""
    return f"{100 * part:.0f}\u00a0%"


def bandwidth(hz: float) -> str:
    """``20 kHz``."""
    return quantity(hz, "Hz")


def byte_size(n_bytes: float) -> str:
    """``1.23 MB``."""
    return quantity(n_bytes, "B")


def hundredths(accuracy: float) -> str:
    """mAP or a difference of it, in hundredths of a point: ``24.30``."""
    return decimal(100 * accuracy, 2)
