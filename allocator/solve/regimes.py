"""How the split changes with the bandwidth: the regimes that appear, as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from endedge.allocator.accuracy.fitted import Fitted
from endedge.allocator.problem import Link, Rules
from endedge.allocator.solve.optimum import Allocation, allocate

__all__ = ["Span", "regime_spans", "regime_table"]


@dataclass(frozen=True)
class Span:
    """One regime from ``first`` to ``last`` bandwidth of a sweep."""

    regime: str
    first: Allocation
    last: Allocation

    def record(self) -> dict[str, Any]:
        """Its name, and the bandwidths that it lies between."""
        ends = self.first.link.bandwidth_hz, self.last.link.bandwidth_hz
        return {"regime": self.regime, "from_hz": ends[0], "to_hz": ends[1]}


def regime_spans(
    curves: Fitted, link: Link, bandwidths_hz: Sequence[float], rules: Rules | None = None
) -> list[Span]:
    """The regimes over rising ``bandwidths_hz``, their borders narrowed to 0.1 %.

    A regime that begins and ends between two bandwidths of the sweep with the same regime on
    both sides is missed.
    """
    rules = rules or Rules()

    def at(bandwidth_hz: float) -> Allocation:
        return allocate(curves, replace(link, bandwidth_hz=bandwidth_hz), rules)

    def between(low: Allocation, high: Allocation) -> list[Allocation]:
        """What is needed from ``low`` (left out) to ``high`` to see every border."""
        ratio = high.link.bandwidth_hz / max(low.link.bandwidth_hz, 1e-300)
        if low.regime == high.regime or ratio <= 1.001 or low.link.bandwidth_hz == 0:
            return [high]
        middle = at(math.sqrt(low.link.bandwidth_hz * high.link.bandwidth_hz))
        return between(low, middle) + between(middle, high)

    coarse = [at(hz) for hz in sorted(bandwidths_hz)]
    points = coarse[:1]
    for low, high in pairwise(coarse):
        points += between(low, high)
    spans: list[Span] = []
    for point in points:
        if spans and spans[-1].regime == point.regime:
            spans[-1] = replace(spans[-1], last=point)
        else:
            spans.append(Span(point.regime, point, point))
    return spans


def regime_table(spans: Sequence[Span]) -> str:
    """A table in plain text: bandwidth, shares of what is used, bytes, mAP at both ends."""
    head = f"{'regime':16} {'from Hz':>10} {'to Hz':>10} {'data share':>15} {'upload kB':>19}"
    lines = [f"{head} {'update kB':>17} {'mAP %':>13}"]
    for span in spans:
        ends = (span.first, span.last)
        shares = [_share(a) for a in ends]
        lines.append(
            f"{span.regime:16} {ends[0].link.bandwidth_hz:10.4g} {ends[1].link.bandwidth_hz:10.4g}"
            f" {shares[0]:>6} → {shares[1]:>6}"
            f" {ends[0].upload_bytes / 1e3:8.0f} → {ends[1].upload_bytes / 1e3:8.0f}"
            f" {ends[0].update_bytes / 1e3:7.0f} → {ends[1].update_bytes / 1e3:7.0f}"
            f" {100 * ends[0].predicted_map:5.1f} → {100 * ends[1].predicted_map:5.1f}"
        )
    return "\n".join(lines)


def _share(allocation: Allocation) -> str:
    used = allocation.uplink_hz + allocation.downlink_hz
    return f"{allocation.uplink_hz / used:.1%}" if used > 0 else "–"
