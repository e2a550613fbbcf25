"""What the page's and the paper's figures share: colours, line styles, names of axes.

The palette is that of Okabe and Ito (2008), told apart by colour-blind readers; surfaces use
cividis (Nuñez, Anderton and Renslow 2018).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from endedge.allocator import display as show
from endedge.allocator.display import AXES, BLACK, BLUE, GREEN, GREY, RED, SKY
from endedge.allocator.policies import registry

__all__ = [
    "BANDWIDTH",
    "BLACK",
    "BLUE",
    "DOWN",
    "FAMILIES",
    "GREEN",
    "GREY",
    "KNOWN",
    "LIGHT",
    "MAP",
    "ORANGE",
    "PINK",
    "RED",
    "SHARE",
    "SKY",
    "UP",
    "UPDATE",
    "UPLOAD",
    "Style",
    "own",
    "style",
    "styles",
]

ORANGE, PINK, LIGHT = "#e69f00", "#cc79a7", "#e6e8eb"
UP, DOWN = BLUE, ORANGE  # the two directions, wherever they appear

UPLOAD, UPDATE, MAP = AXES["data"], AXES["model"], AXES["map"]
BANDWIDTH, SHARE = "bandwidth of the link (Hz)", "share of the bandwidth (%)"


@dataclass(frozen=True)
class Style:
    """A line: colour, dash as plotly and as matplotlib name it, width in px."""

    colour: str
    dash: str
    stroke: str
    width: float


_POLICIES = {  # those that a reader looks for
    "oracle": Style(BLACK, "dash", "--", 2.0),
    "fitted": Style(RED, "solid", "-", 3.0),
    "equal": Style(BLUE, "solid", "-", 2.0),
    "best-static": Style(GREEN, "dashdot", "-.", 2.0),
    "data-only": Style(SKY, "dot", ":", 2.0),
    "model-only": Style(ORANGE, "dot", ":", 2.0),
}
KNOWN = tuple(_POLICIES)

FAMILIES = tuple(
    Style(colour, dash, stroke, 1.5)
    for (colour, stroke), dash in zip(
        show.FAMILIES, ("solid", "dash", "dot", "dashdot", "longdash"), strict=True
    )
)


def style(policy: str) -> Style:
    """How a policy is drawn: thin and grey unless readers look for it."""
    return _POLICIES.get(policy, Style(GREY, "solid", "-", 1.2))


def own(policy: str) -> bool:
    """Whether a policy is none of ours: it came with a file, or with another package."""
    if re.fullmatch(r"static-0\.\d+|(oracle|static)-other-seeds", policy):
        return False
    known = registry().get(policy)
    return known is None or not str(known.__module__).startswith("endedge.")


_OTHERS = (  # for those that a reader asked for, or brought
    Style(PINK, "solid", "-", 2.6),
    Style(GREEN, "dash", "--", 2.2),
    Style(BLUE, "dashdot", "-.", 2.2),
    Style(ORANGE, "solid", "-", 2.2),
    Style(SKY, "dash", "--", 2.2),
    Style(PINK, "dot", ":", 2.2),
)


def styles(policies: Sequence[str], *, chosen: bool = False) -> dict[str, Style]:
    """How each is drawn: like ours that readers look for, too, where it is somebody's own, or
    where the policies were ``chosen`` one by one."""
    looks, others = {name: style(name) for name in policies}, 0
    for name in policies:
        if name not in KNOWN and (chosen or own(name)):
            looks[name] = _OTHERS[others % len(_OTHERS)]
            others += 1
    return looks
