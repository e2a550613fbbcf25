"""Units of the link, and the reading of quantities that people write.

Names carry units everywhere (``upload_bytes``, ``bandwidth_hz``, ``period_s``); this module
holds the conversions and the reading of quantities that people write (``"2.5 MHz"``).
"""

from __future__ import annotations

import math
import re

from endedge.data.errors import BadInput, Unfinished

__all__ = ["BadInput", "Unfinished", "bytes_in_period", "hz_for_bytes", "parse_quantity"]


_SCALE = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "ki": 2.0**10, "mi": 2.0**20, "gi": 2.0**30}
_QUANTITY = re.compile(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*(ki|mi|gi|k|m|g)?\s*([a-z/]*)\s*", re.I)


def parse_quantity(text: str | float, unit: str) -> float:
    """Read ``"2.5 MHz"``, ``"300kB"`` or a plain number as a float in ``unit``.

    ``unit`` is the unit expected, e.g. ``"Hz"``, ``"B"``, ``"bit/s"``, ``"s"``; it may be
    left out in ``text``. Prefixes k, M, G are powers of 1000; Ki, Mi, Gi of 1024.
    Raises :class:`BadInput` for anything else, and for values that are not finite and >= 0.
    """
    if isinstance(text, str):
        match = _QUANTITY.fullmatch(text)
        if match is None or match[3].lower() not in ("", unit.lower()):
            raise BadInput(
                f"cannot read {text!r} as a quantity in {unit}; write e.g. '2.5 M{unit}'"
            )
        try:
            value = float(match[1]) * _SCALE[(match[2] or "").lower()]
        except ValueError:
            raise BadInput(f"cannot read {text!r} as a quantity in {unit}") from None
    else:
        value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise BadInput(f"{text!r} is not a finite quantity >= 0 in {unit}")
    return value


def bytes_in_period(bandwidth_hz: float, spectral_efficiency: float, period_s: float) -> float:
    """Bytes that ``bandwidth_hz`` carries in ``period_s`` at ``spectral_efficiency`` bit/s/Hz."""
    return bandwidth_hz * spectral_efficiency * period_s / 8.0


def hz_for_bytes(n_bytes: float, spectral_efficiency: float, period_s: float) -> float:
    """The inverse of :func:`bytes_in_period`: bandwidth in Hz that carries ``n_bytes``."""
    return 8.0 * n_bytes / (spectral_efficiency * period_s)
