"""One period's split as a results folder plans it: its link, its rules, its limits, overridden only
by what is said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from endedge.allocator import Allocation, Curves, Rules, Surface, allocate
from endedge.data.errors import BadInput
from endedge.lab.benchmark.benchmark import planned, rules_of
from endedge.lab.config import Link, load_config

__all__ = ["Plan", "plan"]


@dataclass(frozen=True)
class Plan:
    """Curves with the ``link`` (without a bandwidth) and the ``rules`` to plan with; ``source``
    says where these come from."""

    curves: Curves
    link: Link
    rules: Rules
    source: str

    def allocate(self, bandwidth_hz: float) -> Allocation:
        """The best split at a bandwidth."""
        return allocate(self.curves, self.link.at(bandwidth_hz), self.rules)

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


def plan(where: Path, changes: Mapping[str, Any]) -> Plan:
    """Of a results folder, or of a curves file with the default link; ``changes`` to keys of
    ``link`` (``{"period_s": "30 s"}``).

    Raises :class:`BadInput` for what is not there or no value of its key.
    """
    folder = where if where.is_dir() else None
    curves = Curves.load(where / "curves.json" if folder else where)
    config = None
    if folder and (folder / "config.yaml").is_file():
        config = load_config(folder / "config.yaml")
    base = config.link if config else Link()
    try:
        link = Link.model_validate({**base.model_dump(), **changes})
    except ValidationError as error:
        wrong = error.errors()[0]
        raise BadInput(f"{wrong['loc'][0]}: {wrong['msg']} (given: {wrong['input']!r})") from None
    source = f"{where / 'config.yaml'}" if config else "defaults"
    source += f", changed: {', '.join(changes)}" if changes else ""
    if config and folder and (folder / "surface.csv").is_file():
        surface = Surface.read(folder / "surface.csv")
        return Plan(
            curves, link, planned(config.model_copy(update={"link": link}), surface), source
        )
    return Plan(curves, link, rules_of(link), source)
