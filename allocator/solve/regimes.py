"""How the split changes with the bandwidth: the regimes that appear, as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from endedge.allocator.accuracy.fitted import Fitted
from endedge.allocator.problem import Link, Rules
from endedge.allocator.solve.optimum import Allocation, allocate

__all__ = ["Span", "regime_spans", "regime_table", "sweep"]


def sweep(
    curves: Fitted, link: Link, bandwidths_hz: Sequence[float], rules: Rules | None = None
) -> list[Allocation]:
    """``allocate`` at every bandwidth; ``link`` gives all the rest."""
    rules = rules or Rules()
    return [allocate(curves, replace(link, bandwidth_hz=hz), rules) for hz in bandwidths_hz]


@dataclass(frozen=True)
class Span:
    """One regime from ``first`` to ``last`` bandwidth of a sweep."""

    regime: str
    first: Allocation
    last: Allocation


def regime_spans(
    curves: Fitted, link: Link, bandwidths_hz: Sequence[float], rules: Rules | None = None
) -> list[Span]:
    """The regimes over rising ``bandwidths_hz``, their borders narrowed to 0.1 %.

    A regime that begins and ends between two bandwidths of the sweep with the same regime on
    both sides is missed.
    """
    rules = rules or Rules()

    def between(low: Allocation, high: Allocation) -> list[Allocation]:
        """What is needed from ``low`` (left out) to ``high`` to see every border."""
        ratio = high.link.bandwidth_hz / max(low.link.bandwidth_hz, 1e-300)
        if low.regime == high.regime or ratio <= 1.001 or low.link.bandwidth_hz == 0:
            return [high]
        middle_hz = math.sqrt(low.link.bandwidth_hz * high.link.bandwidth_hz)
        middle = allocate(curves, replace(link, bandwidth_hz=middle_hz), rules)
        return between(low, middle) + between(middle, high)

    points = sweep(curves, link, sorted(bandwidths_hz), rules)
    seen = points[:1]
    for low, high in pairwise(points):
        seen += between(low, high)
    spans: list[Span] = []
    for point in seen:
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
