"""Figures for papers, and tables of the same, from a results folder or a shipped table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from endedge.allocator import display as show
from endedge.allocator.display import Axis
from endedge.data.errors import BadInput
from endedge.lab.benchmark.outcomes import spread
from endedge.lab.report import captions, figure_tables
from endedge.lab.report.plotting import FORMATS, Look, drawn, kind_of, save, styled
from endedge.lab.report.results import Results, judged_name
from endedge.lab.report.style import (
    BANDWIDTH,
    BLACK,
    DOWN,
    FAMILIES,
    GREY,
    KNOWN,
    MAP,
    RED,
    SHARE,
    UP,
    own,
    styles,
)
from endedge.lab.report.tables import families
from endedge.lab.report.tabular import ReportTable, decimal
from endedge.lab.report.wording import bandwidth

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ALL", "AXES", "FIGURES", "Choice", "draw", "plot", "plot_all"]

_COLUMN, _PAGE = 3.5, 7.16  # inches
AXES = {  # of the figure of policies: what is along x, and its name
    "bandwidth": BANDWIDTH,
    "upload": "frames uploaded per period (bytes)",
    "update": "model package per period (bytes)",
    "traffic": "traffic per period, both ways (bytes)",
}


@dataclass(frozen=True)
class Choice:
    """What of a figure is wanted: ``policies`` (none: all of them), and the axis ``x`` of theirs
    (a key of :data:`AXES`). Raises :class:`BadInput` for another axis."""

    policies: tuple[str, ...] = ()
    x: str = "bandwidth"
    look: Look = field(default_factory=Look)

    def __post_init__(self) -> None:
        if self.x not in AXES:
            raise BadInput(f"no axis {self.x!r}; there are {', '.join(AXES)}")

    def of(self, results: Results) -> list[str]:
        """The policies to draw. Raises :class:`BadInput` for one that was not benchmarked."""
        bench = results.benchmark
        for name in self.policies:
            bench.of(name)
        return list(self.policies) or [bench.policies[k] for k in bench.drawn]


def plot(where: str | Path, what: str, out: Path, choice: Choice | None = None) -> Path:
    """Draw the figure ``what`` (a key of :data:`FIGURES`) of a results folder or a shipped table
    into ``out``, or its table into a ``.tex`` or ``.csv``. The same results give the same bytes.
    Returns ``out``.

    Raises :class:`BadInput` for another ``what`` or format, and for files that are missing.
    """
    _known(what)
    kind_of(out, (*FORMATS, "csv", "tex"))
    return _write(Results.find(where), what, out, choice or Choice())


def plot_all(
    where: str | Path, folder: Path, choice: Choice | None = None, kind: str = "pdf"
) -> list[Path]:
    """Every figure of :data:`ALL` and its table (``.tex``) in ``folder``; returns their paths."""
    if kind not in FORMATS:
        raise BadInput(f"no format {kind!r}; there are {', '.join(FORMATS)}")
    results = Results.find(where)
    return [
        _write(results, what, folder / f"{what}.{suffix}", choice or Choice())
        for what in ALL
        for suffix in (kind, "tex")
    ]


def _write(results: Results, what: str, out: Path, choice: Choice) -> Path:
    kind = kind_of(out, (*FORMATS, "csv", "tex"))
    if kind in ("csv", "tex"):
        table = _table(results, what, choice)
        return save(out, table.csv() if kind == "csv" else table.latex())
    return save(out, drawn(lambda: FIGURES[what](results, choice), kind, choice.look))


def draw(results: Results, what: str, choice: Choice | None = None) -> Figure:
    """The figure itself, for a notebook. Raises :class:`BadInput` for another ``what``."""
    _known(what)
    with styled(choice.look if choice else None):
        return FIGURES[what](results, choice or Choice())


def _known(what: str) -> None:
    if what not in FIGURES:
        raise BadInput(f"no figure {what!r}; there are {', '.join(FIGURES)}")


def _table(results: Results, what: str, choice: Choice) -> ReportTable:
    """What a figure draws, as a table."""
    if what == "curves":
        return families(results)
    if what in ("policies", "regret"):
        choice.of(results)
        make = figure_tables.policies if what == "policies" else figure_tables.regret
        return make(results, choice.policies)
    return figure_tables.FIGURE_TABLES[what](results)


def _surface(results: Results, choice: Choice) -> Figure:
    """The fitted surface from above, the measured points, the path of best splits."""
    from matplotlib.ticker import MaxNLocator

    figure, (axes,) = show.figure(_COLUMN, 3.0)
    cells, sending = results.surface.points(), results.sending
    u, m, z = results.fitted_grid(80)
    low = 100 * min(z.min(), cells.map.min())
    high = 100 * max(z.max(), cells.map.max())
    levels = MaxNLocator(12, steps=[1, 2, 5, 10]).tick_values(low, max(high, low + 0.1))
    filled = axes.contourf(u, m, 100 * z.T, levels=levels, cmap="cividis")
    show.surface_axes(axes, cells, levels)
    if sending:
        ups, downs = [s.upload_bytes for s in sending], [s.update_bytes for s in sending]
        axes.plot(ups, downs, color=RED, marker="D", markersize=2.5, label="best splits")
    figure.colorbar(filled, ax=axes, label=MAP)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _curves(results: Results, choice: Choice) -> Figure:
    """A(U) and g(M) side by side, families compared."""
    figure, panels = show.figure(_PAGE, 2.6, 2)
    show.curve_axes(panels[0], results.curves, "data", results.surface)
    show.curve_axes(panels[1], results.curves, "model", results.surface)
    return figure


def _curve(axis: Axis) -> Callable[[Results, Choice], Figure]:
    """One of the two by itself."""

    def make(results: Results, choice: Choice) -> Figure:
        figure, (axes,) = show.figure(_COLUMN, 2.6)
        show.curve_axes(axes, results.curves, axis, results.surface)
        return figure

    return make


def _parameters(results: Results, choice: Choice) -> Figure:
    """mAP against the parameters that were transmitted, a line an upload. Where that was not
    counted and every package is of the same network: the 32-bit parameters of as many bytes."""
    figure, (axes,) = show.figure(_COLUMN, 2.9)
    s = results.surface
    counts = {round(p) for p in s.parameters if np.isfinite(p)}
    real = len(counts) > 1
    sizes = s.parameters if real else s.update_bytes * 8 / 32
    uploads = list(dict.fromkeys(zip(s.frames, s.codec, strict=True)))
    codecs = len({codec for _, codec in uploads}) > 1
    for (frames, codec), look in zip(uploads, FAMILIES * len(uploads), strict=False):
        here = (s.frames == frames) & (s.codec == codec) & np.isfinite(sizes)
        budgets = sorted({float(b) for b in s.budget_bytes[here]})
        if not budgets:
            continue
        groups = [here & (s.budget_bytes == b) for b in budgets]
        x = np.array([sizes[g].mean() for g in groups])
        seen = [spread(100 * s.map[g]) for g in groups]
        mean, low, high = (
            np.array([float(getattr(g, n)) for g in seen]) for n in ("mean", "low", "high")
        )
        order = np.argsort(x)
        name = f"{frames:,.0f} frames" + (f", {codec}" if codecs else "")
        error = np.nan_to_num(np.array([mean - low, high - mean]))[:, order]
        axes.errorbar(
            x[order],
            mean[order],
            yerr=error,
            fmt=f"o{look.stroke}",
            color=look.colour,
            capsize=1.5,
            elinewidth=0.6,
            label=name,
        )
    axes.axhline(100 * results.curves.m0, color=GREY, lw=0.7, ls="--", label="before any update")
    label = "parameters transmitted" + ("" if real else " (32-bit equivalent)")
    show.log_axis(axes, label)
    axes.set_ylabel(MAP)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _share(results: Results, choice: Choice) -> Figure:
    """The share of each direction against bandwidth, regimes above, the sweep as dots."""
    figure, (axes,) = show.figure(_COLUMN, 2.6)
    sweep = np.geomspace(results.steps[0].bandwidth_hz, results.steps[-1].bandwidth_hz, 200)
    steps = [results.split_at(float(b)) for b in sweep]
    up = 100 * np.array([s.uplink_share for s in steps])
    down = 100 * np.array([s.downlink_share for s in steps])
    axes.stackplot(sweep, up, down, colors=[UP, DOWN], lw=0)
    axes.plot(
        [s.bandwidth_hz for s in results.steps],
        [100 * s.uplink_share for s in results.steps],
        "o",
        mfc="white",
        mec=BLACK,
        mew=0.7,
        clip_on=False,
        zorder=3,
    )
    points = choice.look.size_pt
    for name, low, high, colour in (
        ("frames up", 0 * up, up, "white"),
        ("model down", up, up + down, "black"),
    ):
        roomy = _inside(np.log(sweep), low, high, len(name), points, axes)
        if roomy is None:  # it would not fit
            axes.fill_between([], [], color=UP if colour == "white" else DOWN, label=name)
        else:
            x, y = roomy
            axes.text(np.exp(x), y, name, color=colour, ha="center", va="center")
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center")
    axes.set(xlim=(sweep[0], sweep[-1]), ylim=(0, 100), ylabel=SHARE)
    show.log_axis(axes, BANDWIDTH)
    runs = captions.segments(steps)
    whole = np.log(sweep[-1] / sweep[0])
    centres = [float(np.log(np.sqrt(a * b) / sweep[0]) / whole) for _, a, b in runs]
    above: dict[str, Any] = {
        "transform": axes.transAxes,
        "clip_on": False,
        "color": GREY,
        "lw": 0.6,
    }
    for run, centre, place in zip(runs, centres, _apart(centres, 0.085, 0.97), strict=True):
        start = np.log(run[1] / sweep[0]) / whole
        axes.plot([start, start], [1.0, 1.03], **above)
        axes.plot([centre, place], [1.015, 1.07], **above)
        name = "no update" if run[0] == "none" else run[0]
        axes.text(
            place,
            1.08,
            name,
            fontsize=6,
            rotation=35,
            rotation_mode="anchor",
            transform=axes.transAxes,
        )
    return figure


def _inside(
    x: Any, low: Any, high: Any, letters: int, points: float, axes: Any
) -> tuple[float, float] | None:
    """Where in the band between ``low`` and ``high`` (%) a word of so many letters fits, the
    roomiest place; None where it fits nowhere."""
    wide, tall = axes.get_figure().get_size_inches() * 72 * np.array([0.78, 0.6])  # of the axes
    width = 0.62 * points * letters / wide * (x[-1] - x[0])
    needed = 1.5 * points / tall * 100
    best, place = needed, None
    for centre in x[(x > x[0] + width / 2) & (x < x[-1] - width / 2)]:
        here = abs(x - centre) <= width / 2
        bottom, top = float(low[here].max()), float(high[here].min())
        if top - bottom > best:
            best, place = top - bottom, (float(centre), (bottom + top) / 2)
    return place


def _apart(places: list[float], gap: float, end: float) -> list[float]:
    """Rising ``places`` moved right, then left of ``end``, so that they are ``gap`` apart."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + gap) if moved else place)
    for k in range(len(moved) - 1, -1, -1):
        moved[k] = min(moved[k], end if k == len(moved) - 1 else moved[k + 1] - gap)
    return moved


def _policies(results: Results, choice: Choice) -> Figure:
    """Measured mAP of policies against bandwidth, or against what they send; the band of the
    fitted allocator."""
    figure, (axes,) = show.figure(_COLUMN, 3.2)
    bench, names = results.benchmark, choice.of(results)
    looks = styles(names, chosen=bool(choice.policies))
    fitted = spread(100 * bench.judged[bench.of("fitted")])
    if fitted.seeds > 1 and "fitted" in names and choice.x == "bandwidth":
        x = bench.bandwidth_hz
        axes.fill_between(x, fitted.low, fitted.high, color=RED, alpha=0.18, lw=0)
    order = names[::-1] if choice.policies else sorted(names, key=lambda n: (n in KNOWN, n))
    for name in order:
        look, k = looks[name], bench.of(name)
        told = name in KNOWN or own(name) or bool(choice.policies)
        x, y = _along(bench, k, choice.x), 100 * bench.judged[k].mean(axis=1)
        if not len(x[x > 0]):
            continue  # it never sends, and the axis is one of bytes
        keep = np.argsort(x, kind="stable")
        keep = keep[x[keep] > 0]
        axes.plot(
            x[keep],
            y[keep],
            look.stroke,
            color=look.colour,
            lw=look.width * 0.55,
            marker="o" if told else None,
            markersize=2.2,
            label=name.lstrip("_"),
        )
    show.log_axis(axes, AXES[choice.x])
    axes.set_ylabel(f"{judged_name(results)} (%)" if bench.over_the_period else MAP)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=3)
    return figure


def _along(bench: Any, row: int, x: str) -> Any:
    """The x of a policy at each bandwidth (bandwidths,)."""
    if x == "bandwidth":
        return bench.bandwidth_hz
    up, down = bench.upload_bytes[row].mean(axis=1), bench.update_bytes[row].mean(axis=1)
    return {"upload": up, "update": down, "traffic": up + down}[x]


def _regret(results: Results, choice: Choice) -> Figure:
    """Points lost to the oracle: policies against bandwidth."""
    bench, names = results.benchmark, choice.of(results)
    rows = [
        k for k in bench.by_regret() if bench.policies[k] != "oracle" and bench.policies[k] in names
    ]
    if not rows:
        raise BadInput("regret is to the oracle; name another policy")
    mean = 100 * bench.regret[rows].mean(axis=2)
    width = choice.look.inches or _PAGE
    figure, (axes,) = show.figure(width, 0.9 + 0.2 * len(rows))
    edges = [np.arange(n + 1) - 0.5 for n in mean.shape[::-1]]
    image = axes.pcolormesh(*edges, mean, cmap="cividis_r", vmin=min(0.0, float(mean.min())))
    axes.invert_yaxis()
    middle = (min(0.0, float(mean.min())) + float(mean.max())) / 2
    letters = max(len(decimal(v, 1)) for v in mean.ravel())
    inside = 72 * (width - 0.24 * choice.look.size_pt) / mean.shape[1]  # pt, of a cell
    size = min(0.75 * choice.look.size_pt, inside / (0.68 * letters + 0.5))
    if size >= 4:  # smaller cannot be read
        for i, j in np.ndindex(*mean.shape):
            colour = "white" if mean[i, j] > middle else "black"
            text = decimal(mean[i, j], 1)
            axes.text(j, i, text, ha="center", va="center", fontsize=size, color=colour)
    axes.set_yticks(range(len(rows)), [bench.policies[k] for k in rows])
    ticks = [bandwidth(b) for b in bench.bandwidth_hz]
    axes.set_xticks(range(len(ticks)), ticks, rotation=45, ha="right")
    axes.set_xlabel("bandwidth of the link")
    axes.grid(False)
    figure.colorbar(image, ax=axes, label="regret (points of mAP)")
    return figure


FIGURES: dict[str, Callable[[Results, Choice], Figure]] = {
    "surface": _surface,
    "curves": _curves,
    "share": _share,
    "policies": _policies,
    "regret": _regret,
    "parameters": _parameters,
    "data-curve": _curve("data"),
    "model-curve": _curve("model"),
}
ALL: Sequence[str] = tuple(FIGURES)
