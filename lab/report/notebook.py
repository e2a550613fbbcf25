"""A results folder as a notebook shows it: its findings in words, its figures drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from endedge.allocator import display as show
from endedge.lab.report import results
from endedge.lab.report.captions import contour, policies, share, surface
from endedge.lab.report.paper_figures import draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Results"]


class Results(results.Results):
    """:class:`endedge.lab.report.results.Results` that can be looked at."""

    def plot(self, what: str) -> Figure:
        """A figure of :mod:`~endedge.lab.report.paper_figures`: surface, curves, share, regret…"""
        return draw(self, what)

    def _summary(self) -> dict[str, str]:
        facts = {"surface": surface, "best split": contour, "shares": share, "policies": policies}
        return {name: say(self) for name, say in facts.items()}

    def __repr__(self) -> str:
        return show.one_line(f"Results of {self.name}", self._summary())

    def _repr_html_(self) -> str:
        return show.html_table(f"Results of {self.name}", self._summary())
