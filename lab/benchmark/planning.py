"""One period's split as a results folder or a table plans it: its link, its rules, its limits,
overridden only by what is said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from endedge.allocator import (
    Allocation,
    Curves,
    Points,
    Rules,
    Span,
    Surface,
    allocate,
    regime_spans,
)
from endedge.data.errors import BadInput
from endedge.lab.benchmark.benchmark import captured, planned, rules_of, sendable
from endedge.lab.benchmark.table import Table, shipped_tables
from endedge.lab.config import LinkConfig, load_config

__all__ = ["SplitPlan", "plan"]


@dataclass(frozen=True)
class SplitPlan:
    """Curves with the ``link`` (without a bandwidth) and the ``rules`` to plan with; ``source``
    says where these come from; ``points``: what was measured, where there is more than curves."""

    curves: Curves
    link: LinkConfig
    rules: Rules
    source: str
    points: Points | None = None

    def allocate(self, bandwidth_hz: float, quantile: float | None = None) -> Allocation:
        """The best split at a bandwidth; with a ``quantile`` the one that is best by it."""
        return allocate(self.curves, self.link.at(bandwidth_hz), self.rules, quantile)

    def regimes(self, bandwidth_hz: float) -> list[Span]:
        """The regimes from a hundredth of a bandwidth to a hundred times as much."""
        around = [bandwidth_hz * 10 ** (k / 10) for k in range(-20, 21)]
        return regime_spans(self.curves, self.link.at(bandwidth_hz), around, self.rules)

    def record(self) -> dict[str, Any]:
        """What was planned with, as plain numbers and text."""
        link = self.link
        efficiency = {n: getattr(link, n) for n in ("up_bit_per_s_per_hz", "down_bit_per_s_per_hz")}
        return {
            "link": {"period_s": link.period_s, **efficiency, "source": self.source},
            "rules": asdict(self.rules),
            "falls": self.curves.falls,
        }

    def __str__(self) -> str:
        link, rules = self.link, self.rules
        return (
            f"link        {rules.schedule}, one update every {link.period_s:g} s, "
            f"{link.up_bit_per_s_per_hz:g} bit/s/Hz up, {link.down_bit_per_s_per_hz:g} down, "
            f"edge {rules.edge_s:.3g} s, objective {rules.objective} ({self.source})"
            + (f"\nnote        {self.curves.falls}" if self.curves.falls else "")
        )


def plan(where: Path, changes: Mapping[str, Any]) -> SplitPlan:
    """The plan of a results folder, of a shipped table by name, or of a curves file with the
    default link; ``changes`` to keys of ``link`` (``{"period_s": "30 s"}``).

    Raises :class:`BadInput` for what is not there or no value of its key.
    """
    named = not where.exists() and str(where) in shipped_tables()
    if named or (where / "table.yaml").is_file():
        return _plan_of_table(str(where), changes)
    folder = where if where.is_dir() else None
    curves = Curves.load(where / "curves.json" if folder else where)
    config = None
    if folder and (folder / "config.yaml").is_file():
        config = load_config(folder / "config.yaml")
    link = _changed(config.link if config else LinkConfig(), changes)
    source = f"{where / 'config.yaml'}" if config else "defaults"
    source += f", changed: {', '.join(changes)}" if changes else ""
    if config and folder and (folder / "surface.csv").is_file():
        surface = Surface.read(folder / "surface.csv")
        changed = config.model_copy(update={"link": link})
        points = Points.of(sendable(captured(surface, link), config.fewest_frames))
        return SplitPlan(curves, link, planned(changed, surface), source, points)
    return SplitPlan(curves, link, rules_of(link), source)


def _plan_of_table(name: str, changes: Mapping[str, Any]) -> SplitPlan:
    table = Table.load(name)
    table = replace(table, link=_changed(table.link, changes))
    source = f"table {name}" + (f", changed: {', '.join(changes)}" if changes else "")
    return SplitPlan(table.whole(), table.link, table.rules, source, Points.of(table.cells))


def _changed(link: LinkConfig, changes: Mapping[str, Any]) -> LinkConfig:
    try:
        return LinkConfig.model_validate({**link.model_dump(), **changes})
    except ValidationError as error:
        wrong = error.errors()[0]
        raise BadInput(f"{wrong['loc'][0]}: {wrong['msg']} (given: {wrong['input']!r})") from None
