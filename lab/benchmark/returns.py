"""What a split returns for its bytes, and how long one has to try it to know."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from endedge.allocator import (
    Allocation,
    Budget,
    Curves,
    Ledger,
    Points,
    Prices,
    Rules,
    ledger,
    worthwhile,
)
from endedge.data.errors import BadInput

__all__ = ["Return", "returns"]

# A one-sided test at 5 % that finds with 80 % what is there (normal quantiles).
_FOUND = 1.645 + 0.842


@dataclass(frozen=True)
class Return:
    """One period's ``books`` in the user's currency.

    ``worthwhile_hz``: beyond this bandwidth another byte costs more than it returns (NaN in a
    sequential period, infinite where bytes are free). ``break_even_map``: the gain (mAP, over the
    period) that the bytes cost. ``period_sd``: standard deviation of the gain from one measured
    round to another (NaN for fewer than two ``rounds``).
    """

    books: Ledger
    gain_map: float
    worthwhile_hz: float
    break_even_map: float
    period_sd: float
    rounds: int

    @property
    def pilot_periods(self) -> float:
        """How many show whether the gain is above what it costs: at least 2; NaN where nothing is
        sent or the spread is not known."""
        ahead = abs(self.gain_map - self.break_even_map)
        if math.isnan(self.period_sd) or ahead == 0 or self.books.cost == 0:
            return math.nan
        return max(2.0, math.ceil((_FOUND * self.period_sd / ahead) ** 2))

    def record(self) -> dict[str, Any]:
        """As JSON has it: what is not known, or has no end, is null."""
        numbers = {
            "gain": self.books.gain,
            "cost": self.books.cost,
            "net": self.books.net,
            "break_even_map": self.break_even_map,
            "worthwhile_hz": self.worthwhile_hz,
            "pilot_periods": self.pilot_periods,
            "period_sd_map": self.period_sd,
            "measured_rounds": self.rounds,
        }
        return {k: v if math.isfinite(v) else None for k, v in numbers.items()}

    def __str__(self) -> str:
        books = self.books
        if books.cost == 0:
            return "return      nothing is sent, so nothing is paid and nothing gained"
        gained, even = 100 * self.gain_map, 100 * self.break_even_map
        from_when = f"from {even:.2f} points on" if math.isfinite(even) else "at no gain"
        lines = [
            (
                f"return      {books.net:+.4g} a period: {books.gain:.4g} for {gained:.2f} points, "
                f"less {books.cost:.4g} for the bytes; it pays {from_when}"
            )
        ]
        if math.isfinite(self.worthwhile_hz):
            lines.append(
                f"worthwhile  up to {self.worthwhile_hz / 1e3:,.4g} kHz: beyond that, another byte "
                "costs more than it returns"
                if self.worthwhile_hz > 0
                else "worthwhile  at no bandwidth"
            )
        periods = self.pilot_periods
        if not math.isnan(periods):
            lines.append(
                f"pilot       {periods:.0f} periods tell whether it pays (5 %, one-sided, "
                f"80 % power): the gain differs by {100 * self.period_sd:.2f} points from round to "
                f"round ({self.rounds} measured)"
            )
        else:
            lines.append("pilot       of unknown length: that takes rounds of two seeds or more")
        return "\n".join(lines)


def returns(
    allocation: Allocation,
    curves: Curves,
    rules: Rules,
    *,
    price_per_mb: float,
    value_per_point: float,
    points: Points | None = None,
) -> Return:
    """The returns of the split ``allocation``.

    Args:
        found: What was allocated; its average mAP over the period is what is paid for.
        curves: Those it was found by.
        rules: Of its period.
        price_per_mb: Of a megabyte (1e6 bytes), whichever way; >= 0.
        value_per_point: Of one mAP point (0.01) held for an hour, in the same currency; >= 0.
        points: What was measured; its spread over seeds says how long a pilot has to be.

    Raises:
        BadInput: for a price or a value that is negative or not finite.
    """
    for name, value in (("--price-per-mb", price_per_mb), ("--value-per-point", value_per_point)):
        if not (math.isfinite(value) and value >= 0):
            raise BadInput(f"{name} {value:g} must be a finite number that is not negative")
    prices = Prices(1e3 * price_per_mb, 1e3 * price_per_mb, map_point_hour=value_per_point)
    stale, period_s = Budget.of(allocation.link, rules, curves).stale, allocation.link.period_s
    books = ledger(
        prices,
        upload_bytes=allocation.upload_bytes,
        update_bytes=allocation.update_bytes,
        average_map=allocation.average_map,
        m0=stale,
        period_s=period_s,
    )
    hertz = math.nan
    if rules.schedule == "pipelined":
        hertz = worthwhile(curves, allocation.link, prices, rules)[0] if price_per_mb else math.inf
    point_hours = value_per_point * 100.0 * period_s / 3600.0
    even = books.cost / point_hours if point_hours > 0 else math.inf
    spread, rounds = _spread(allocation, points)
    return Return(books, allocation.average_map - stale, hertz, even, spread, rounds)


def _spread(allocation: Allocation, points: Points | None) -> tuple[float, int]:
    """Standard deviation over seeds of the measured round that the split comes down to, and how
    many there are. What the device had before is the same for all of them."""
    row = (
        None if points is None else points.fitting(allocation.upload_bytes, allocation.update_bytes)
    )
    if points is None or row is None:
        return math.nan, 0
    seeds = int(points.seeds[row])
    return float(points.map_error[row]) * math.sqrt(seeds), seeds
