"""Pictures of many devices on one band: the shares of a plan, the gains of a benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from endedge.lab.fleet.planning import Shares
from endedge.lab.fleet.score import FleetScore
from endedge.lab.report.plotting import FORMATS, drawn, kind_of, save
from endedge.lab.report.style import BLACK, BLUE, DOWN, GREEN, GREY, ORANGE, RED, SKY, UP

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_allocation", "draw_score"]

_DRAWN = 100  # devices
_LINES = {  # rivals that a reader looks for
    "equal": (BLUE, "-"),
    "turns": (SKY, "--"),
    "turns-spare": (GREEN, "-."),
    "greedy": (ORANGE, ":"),
    "auction": (RED, "-"),
    "oracle": (BLACK, "--"),
}


def draw_allocation(shares: Shares, out: Path) -> Path:
    """Hertz of the first hundred devices, up and down, and what these lift their mAP by."""
    return save(out, drawn(lambda: _allocation(shares), kind_of(out, FORMATS)))


def draw_score(score: FleetScore, out: Path) -> Path:
    """mAP of the rivals over the band, and what each step from the plainest rule adds."""
    return save(out, drawn(lambda: _score(score), kind_of(out, FORMATS)))


def _allocation(shares: Shares) -> Figure:
    from matplotlib.figure import Figure

    n = min(len(shares), _DRAWN)
    at = np.arange(1, n + 1)
    figure = Figure(figsize=(7.16, 3.6))
    top, low = figure.subplots(2, 1, sharex=True)
    up, down = shares.uplink_hz[:n] / 1e3, shares.downlink_hz[:n] / 1e3
    top.bar(at, up, 0.8, color=UP, label="uplink")
    top.bar(at, down, 0.8, up, color=DOWN, label="downlink")
    top.set_ylabel("bandwidth (kHz)")
    top.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    more = "" if n == len(shares) else f", the first {n} of {len(shares):,} devices"
    top.set_title(f"{shares.bandwidth_hz / 1e3:,.0f} kHz{more}", loc="left")
    before, after = 100 * shares.m0[:n], 100 * shares.map[:n]
    low.vlines(at, before, after, color=RED, lw=min(max(1.0, 80 / n), 6.0))
    low.plot(at, before, "_", color=GREY, label="before")
    low.plot(at, after, ".", color=RED, label="after, predicted")
    low.set_ylabel("mAP50-95 (%)")
    low.set_xlabel("device")
    figure.legend(*low.get_legend_handles_labels(), loc="outside lower right", ncols=2)
    _name_members(low, shares, n)
    return figure


def _name_members(axes: Axes, shares: Shares, n: int) -> None:
    """The members' names where their devices begin."""
    member = shares.member[:n]
    starts = [k for k in range(n) if k == 0 or member[k] != member[k - 1]]
    for start in starts:
        axes.axvline(start + 0.5, color=GREY, lw=0.5)
        axes.text(
            start + 0.6,
            1.02,
            str(shares.plan.members[member[start]]),
            fontsize=6.5,
            color=GREY,
            transform=axes.get_xaxis_transform(),
        )


def _score(score: FleetScore) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.16, 3.0))
    left, right = figure.subplots(1, 2)
    each = np.array(score.bandwidth_hz) / score.devices / 1e3
    for name, (colour, stroke) in _LINES.items():
        worth = 100 * score.worth[score.policies.index(name)].mean(axis=-1)
        left.plot(each, worth, stroke, color=colour, label=name, marker="o", markersize=2.5)
    left.plot(each, 100 * score.bound, ":", color=GREY, lw=0.8, label="bound")
    left.set_xscale("log")
    left.set_xlabel("bandwidth a device (kHz)")
    left.set_ylabel(f"mAP50-95, {score.settings.objective} (%)")
    left.legend(loc="upper left")
    colours = {"how": ORANGE, "when": SKY, "spare": GREEN, "who": RED}
    names = [name for name, _, _ in score.steps()]
    width = 0.8 / len(names)
    for n, name in enumerate(names):
        found = [score.steps(k)[n][2] for k in range(len(each))]
        gain = [100 * c.mean for c in found]
        error = [0.0 if np.isnan(c.error) else 100 * c.error for c in found]
        at = np.arange(len(each)) + (n - (len(names) - 1) / 2) * width
        right.bar(
            at, gain, width, yerr=error, color=colours[name], label=name, error_kw={"lw": 0.6}
        )
    right.axhline(0, color=GREY, lw=0.6)
    right.set_xticks(range(len(each)), [f"{hz:.3g}" for hz in each])
    right.set_xlabel("bandwidth a device (kHz)")
    right.set_ylabel("points gained by each step")
    right.legend(loc="upper right")
    return figure
