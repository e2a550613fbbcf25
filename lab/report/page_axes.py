"""What plotly.js figures of the pages have in common: axes, layout, numbers, shaded intervals."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

from endedge.lab.benchmark.outcomes import Floats, Spread
from endedge.lab.report.style import GREY, LIGHT

__all__ = [
    "Figure",
    "laid_out",
    "linear_axis",
    "log_axis",
    "number_table",
    "numbers",
    "shaded",
]

Figure: TypeAlias = dict[str, Any]


def linear_axis(title: str, **more: Any) -> dict[str, Any]:
    return {
        "title": {"text": title, "standoff": 8},
        "gridcolor": LIGHT,
        "zeroline": False,
        "linecolor": GREY,
        "ticks": "outside",
        "tickcolor": GREY,
        "automargin": True,
        **more,
    }


def log_axis(title: str, **more: Any) -> dict[str, Any]:
    return linear_axis(title, type="log", tickformat="~s", dtick="D2", **more)


def laid_out(x: dict[str, Any], y: dict[str, Any], **more: Any) -> dict[str, Any]:
    legend = {
        "orientation": "h",
        "yref": "container",
        "y": 0,
        "yanchor": "bottom",
        "x": 0,
        "entrywidth": 0.5,
        "entrywidthmode": "fraction",
    }
    return {
        "xaxis": x,
        "yaxis": y,
        "margin": {"l": 50, "r": 10, "t": 12, "b": 40},
        "height": 440,
        "legend": legend,
        "hovermode": "closest",
        **more,
    }


def numbers(values: Any) -> list[float | None]:
    """Six digits are more than a screen shows; NaN is null in JSON."""
    return [float(f"{v:.6g}") if math.isfinite(v) else None for v in np.asarray(values).ravel()]


def number_table(values: Floats) -> list[list[float | None]]:
    return [numbers(row) for row in values]


def shaded(x: Floats, seen: Spread, colour: str) -> dict[str, Any]:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [*numbers(x), *numbers(x[::-1])],
        "y": [*numbers(seen.low), *numbers(seen.high[::-1])],
        "fill": "toself",
        "fillcolor": f"rgba({red},{green},{blue},0.2)",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
    }
