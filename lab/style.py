"""What the page's and the paper's figures share: colours, line styles, names of axes.

The palette is that of Okabe and Ito (2008), told apart by colour-blind readers; surfaces use
cividis (Nuñez, Anderton and Renslow 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "BANDWIDTH", "BLACK", "BLUE", "DOWN", "FAMILIES", "GREY", "KNOWN", "LIGHT", "MAP", "RED",
    "SHARE", "UP", "UPDATE", "UPLOAD", "Style", "style",
]  # fmt: skip

BLACK, ORANGE, SKY, GREEN = "#000000", "#e69f00", "#56b4e9", "#009e73"
BLUE, RED, PINK, GREY, LIGHT = "#0072b2", "#d55e00", "#cc79a7", "#8a8f98", "#e6e8eb"
UP, DOWN = BLUE, ORANGE  # the two directions, wherever they appear

UPLOAD, UPDATE = "frames uploaded per period (bytes)", "model package per period (bytes)"
BANDWIDTH, SHARE = "bandwidth of the link (Hz)", "share of the bandwidth (%)"
MAP = "mAP50-95 on the device (%)"


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

FAMILIES = (
    Style(BLUE, "solid", "-", 1.5),
    Style(RED, "dash", "--", 1.5),
    Style(GREEN, "dot", ":", 1.5),
    Style(PINK, "dashdot", "-.", 1.5),
    Style(SKY, "longdash", "--", 1.5),
)


def style(policy: str) -> Style:
    """How a policy is drawn: thin and grey unless readers look for it."""
    return _POLICIES.get(policy, Style(GREY, "solid", "-", 1.2))
