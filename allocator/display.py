"""Surfaces, curves and allocations as people look at them: data frames, HTML tables, figures.

pandas and matplotlib are imported when something is asked for, so that the allocator itself
needs neither.
"""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from endedge.allocator.accuracy.fitted import Fitted, Options, Tried
from endedge.allocator.problem import Measured
from endedge.data.errors import BadInput

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = [
    "AXES",
    "Axis",
    "along",
    "cells_along",
    "curve_axes",
    "data_frame",
    "figure",
    "html_table",
    "log_axis",
    "one_line",
    "rivals",
    "sizes",
    "surface_axes",
]

Floats: TypeAlias = NDArray[np.float64]
Axis: TypeAlias = Literal["data", "model"]


class Scored(Options, Protocol):
    """Operating points with what was measured at them."""

    @property
    def map(self) -> Floats: ...


class Cells(Scored, Protocol):
    """Cells of a surface (:class:`endedge.allocator.Surface`)."""

    @property
    def frames(self) -> Floats: ...

    @property
    def codec(self) -> NDArray[np.str_]: ...

    @property
    def budget_bytes(self) -> Floats: ...

    def __len__(self) -> int: ...

    def select(self, rows: Any) -> Self: ...


C = TypeVar("C", bound=Cells)

# Okabe and Ito (2008): told apart by colour-blind readers. Surfaces use cividis.
BLACK, BLUE, RED, GREEN, PINK, SKY, GREY = (
    "#000000",
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#8a8f98",
)
FAMILIES = ((BLUE, "-"), (RED, "--"), (GREEN, ":"), (PINK, "-."), (SKY, "--"))

AXES = {
    "data": "frames uploaded per period (bytes)",
    "model": "model package per period (bytes)",
    "map": "mAP50-95 on the device (%)",
}


def data_frame(columns: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> DataFrame:
    """A pandas table. Raises :class:`BadInput` that names the extra where pandas is missing."""
    try:
        import pandas
    except ImportError:
        raise BadInput("tables need pandas: pip install 'endedge[notebook]'") from None
    return pandas.DataFrame(columns)


def html_table(title: str, rows: Mapping[str, object]) -> str:
    """What a notebook shows of an object: a title and one line a fact."""
    lines = "".join(
        f"<tr><th style='text-align:left'>{html.escape(str(name))}</th>"
        f"<td style='text-align:left'>{html.escape(str(value))}</td></tr>"
        for name, value in rows.items()
    )
    return f"<b>{html.escape(title)}</b><table>{lines}</table>"


def one_line(title: str, rows: Mapping[str, object]) -> str:
    """The same for a console."""
    return f"{title}({'; '.join(f'{name}: {value}' for name, value in rows.items())})"


def sizes(curves: Measured, axis: Axis, n: int = 120) -> Floats:
    """``n`` log-spaced sizes in bytes over what was measured along one axis."""
    range_ = curves.upload_range if axis == "data" else curves.update_range
    low = max(range_.low, 1.0)
    return np.geomspace(low, max(range_.high, low * 1.001), n)


def along(curves: Measured, axis: Axis, sizes: Floats) -> tuple[Floats, Floats]:
    """(U, M) for ``sizes`` along one axis, the other at its largest."""
    if axis == "data":
        return sizes, np.full_like(sizes, curves.update_range.high)
    return np.full_like(sizes, curves.upload_range.high), sizes


def rivals(curves: Fitted, axis: Axis) -> dict[str, Tried]:
    """The best candidate of each family of one curve, best first."""
    best: dict[str, Tried] = {}
    for candidate in curves.candidates:  # sorted by held-out error
        family = candidate.kind.data if axis == "data" else candidate.kind.model
        best.setdefault(family, candidate)
    return best


def cells_along(surface: C, axis: Axis) -> C:
    """The measured cells of one curve: of each upload the largest budget, or of the largest
    upload all budgets."""
    s = surface
    if axis == "model":
        most = int(s.upload_bytes.argmax())
        return s.select((s.frames == s.frames[most]) & (s.codec == s.codec[most]))
    here = np.zeros(len(s), dtype=bool)
    for frames, codec in set(zip(s.frames, s.codec, strict=True)):
        same = (s.frames == frames) & (s.codec == codec)
        here |= same & (s.budget_bytes == s.budget_bytes[same].max())
    return s.select(here)


def figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty figure (inches) that a notebook shows. Without pyplot: that would keep it, and
    choose a window system."""
    from matplotlib.figure import Figure

    class Shown(Figure):
        def _repr_png_(self) -> bytes:
            picture = io.BytesIO()
            self.savefig(picture, format="png", dpi=150)
            return picture.getvalue()

    made = Shown(figsize=(width, height), layout="constrained")
    return made, list(made.subplots(1, columns, squeeze=False)[0])


def log_axis(axes: Axes, label: str, *, vertical: bool = False) -> None:
    """A logarithmic axis with ticks 1, 2, 5 and SI prefixes."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    axis = axes.yaxis if vertical else axes.xaxis
    (axes.set_yscale if vertical else axes.set_xscale)("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
    axis.set_major_formatter(EngFormatter(sep=""))
    axis.set_minor_formatter(NullFormatter())
    (axes.set_ylabel if vertical else axes.set_xlabel)(label)


def curve_axes(axes: Axes, curves: Fitted, axis: Axis, cells: Cells | None = None) -> None:
    """A(U) at the largest package or g(M) at the largest upload: the families compared, the
    90 % interval, the monotone fit, and the measured ``cells`` where they are given."""
    x = sizes(curves, axis)
    low, high = curves.interval(*along(curves, axis, x))
    axes.fill_between(x, 100 * low, 100 * high, color=BLUE, alpha=0.2, lw=0, label="90 % interval")
    for (family, candidate), (colour, stroke) in zip(
        rivals(curves, axis).items(), FAMILIES, strict=False
    ):
        chosen = candidate.joint == curves.joint
        y = 100 * np.clip(candidate.joint.value(*along(curves, axis, x)), 0, 1)
        name = f"{family} (chosen)" if chosen else family
        axes.plot(x, y, stroke, color=colour, lw=1.6 if chosen else 0.8, label=name)
    reference = 100 * curves.reference.predict(*along(curves, axis, x))
    axes.plot(x, reference, ":", color=GREY, lw=0.8, label="monotone fit")
    if cells is not None:
        shown = cells_along(cells, axis)
        bytes_ = shown.upload_bytes if axis == "data" else shown.update_bytes
        axes.plot(bytes_, 100 * shown.map, "o", color=BLACK, mfc="none", mew=0.7, label="measured")
    axes.axhline(100 * curves.m0, color=GREY, lw=0.7, ls="--", label="before any update")
    log_axis(axes, AXES[axis])
    axes.set_ylabel(AXES["map"])
    axes.legend(loc="best")


def surface_axes(axes: Axes, points: Scored, levels: Any = None) -> None:
    """The measured operating points: bytes up, bytes down, mAP as colour."""
    drawn = axes.scatter(
        points.upload_bytes,
        points.update_bytes,
        c=100 * points.map,
        cmap="cividis",
        edgecolors="white",
        linewidths=0.7,
        s=22,
        zorder=3,
        clip_on=False,
        label="measured",
        **({} if levels is None else {"vmin": levels[0], "vmax": levels[-1]}),
    )
    log_axis(axes, AXES["data"])
    log_axis(axes, AXES["model"], vertical=True)
    axes.grid(False)
    if levels is None and axes.figure is not None:
        axes.figure.colorbar(drawn, ax=axes, label=AXES["map"])
