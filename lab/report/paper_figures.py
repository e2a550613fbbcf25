"""Figures for papers and a LaTeX table, drawn from a results folder by matplotlib.

Vector formats keep text as text (TrueType fonts in PDF, text elements in SVG). One column of
a two-column paper is 3.5 in wide; sizes of text are those that print at that width.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from endedge.allocator import display as show
from endedge.data.errors import BadInput
from endedge.data.storage import write_atomic
from endedge.lab.benchmark.outcomes import HINDSIGHT, spread
from endedge.lab.config import load_config
from endedge.lab.report import captions as findings
from endedge.lab.report.results import Results, judged_name
from endedge.lab.report.style import (
    BANDWIDTH,
    BLACK,
    DOWN,
    GREY,
    KNOWN,
    LIGHT,
    MAP,
    RED,
    SHARE,
    UP,
    style,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "draw", "drawn", "plot"]

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.color": LIGHT,
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "endedge",
    "savefig.dpi": 300,
    "figure.constrained_layout.use": True,
}
_COLUMN, _PAGE = 3.5, 7.16  # inches


def plot(folder: Path, what: str, out: Path) -> Path:
    """Draw ``what`` (surface, curves, share, policies, regret) of a results folder into
    ``out`` (.pdf, .svg or .png by its name), or the table of the policies into a ``.tex`` file.
    The same folder gives the same bytes. Returns ``out``.

    Raises :class:`BadInput` for another ``what`` or format, and for files that are missing.
    """
    _known(what)
    kind = out.suffix.lower().lstrip(".")
    if kind not in ("pdf", "svg", "png", "tex"):
        raise BadInput(f"cannot draw into {out.name!r}; name a .pdf, .svg, .png or .tex file")
    if kind == "tex" and what not in ("policies", "regret"):
        raise BadInput(f"{what} has no table; only policies and regret can be a .tex file")
    if not (folder / "config.yaml").is_file():
        raise BadInput(f"{folder} is not a results folder (no config.yaml); run 'endedge measure'")
    results = Results.read(folder, load_config(folder / "config.yaml"))
    if kind == "tex":
        write_atomic(out, latex_table(results).encode())
        return out
    write_atomic(out, drawn(lambda: FIGURES[what](results), kind))
    return out


def drawn(make: Callable[[], Figure], kind: str) -> bytes:
    """The figure that ``make`` draws, in the style of all our figures, as a pdf, svg or png file:
    the same figure gives the same bytes."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        stamp = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}[kind]
        file = io.BytesIO()
        make().savefig(file, format=kind, metadata=stamp)
    return file.getvalue()


def draw(results: Results, what: str) -> Figure:
    """The figure itself, for a notebook. Raises :class:`BadInput` for another ``what``."""
    import matplotlib

    _known(what)
    with matplotlib.rc_context(_STYLE):
        return FIGURES[what](results)


def _known(what: str) -> None:
    if what not in FIGURES:
        raise BadInput(f"no figure {what!r}; there are {', '.join(FIGURES)}")


def _surface(results: Results) -> Figure:
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


def _curves(results: Results) -> Figure:
    """A(U) and g(M) side by side, families compared."""
    figure, panels = show.figure(_PAGE, 2.6, 2)
    show.curve_axes(panels[0], results.curves, "data", results.surface)
    show.curve_axes(panels[1], results.curves, "model", results.surface)
    return figure


def _share(results: Results) -> Figure:
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
    for name, height, middle, colour in (
        ("frames up", up, up / 2, "white"),
        ("model down", down, up + down / 2, "black"),
    ):
        at = int(np.convolve(height, np.ones(31), "same").argmax())
        axes.text(sweep[at], middle[at], name, color=colour, ha="center", va="center")
    axes.set(xlim=(sweep[0], sweep[-1]), ylim=(0, 100), ylabel=SHARE)
    show.log_axis(axes, BANDWIDTH)
    runs = findings.segments(steps)
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


def _apart(places: list[float], gap: float, end: float) -> list[float]:
    """Rising ``places`` moved right, then left of ``end``, so that they are ``gap`` apart."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + gap) if moved else place)
    for k in range(len(moved) - 1, -1, -1):
        moved[k] = min(moved[k], end if k == len(moved) - 1 else moved[k + 1] - gap)
    return moved


def _policies(results: Results) -> Figure:
    """Measured mAP of every policy against bandwidth, the band of the fitted allocator."""
    figure, (axes,) = show.figure(_COLUMN, 3.2)
    bench = results.benchmark
    x, fitted = bench.bandwidth_hz, spread(100 * bench.judged[bench.of("fitted")])
    if fitted.seeds > 1:
        axes.fill_between(x, fitted.low, fitted.high, color=RED, alpha=0.18, lw=0)
    names = [bench.policies[k] for k in bench.drawn]
    for name in sorted(names, key=lambda n: (n in KNOWN, n)):
        look, mean = style(name), 100 * bench.judged[bench.of(name)].mean(axis=1)
        mark = "o" if name in KNOWN else None
        axes.plot(
            x,
            mean,
            look.stroke,
            color=look.colour,
            lw=look.width * 0.55,
            marker=mark,
            markersize=2.2,
            label=name.replace("_", " ").lstrip(),
        )
    show.log_axis(axes, BANDWIDTH)
    axes.set_ylabel(f"{judged_name(results)} (%)" if bench.over_the_period else MAP)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=3)
    return figure


def _regret(results: Results) -> Figure:
    """Points lost to the oracle: policies against bandwidth."""
    bench = results.benchmark
    rows = [k for k in bench.by_regret() if bench.policies[k] != "oracle"]
    mean = 100 * bench.regret[rows].mean(axis=2)
    figure, (axes,) = show.figure(_PAGE, 0.9 + 0.2 * len(rows))
    image = axes.imshow(mean, cmap="cividis_r", aspect="auto", vmin=min(0.0, float(mean.min())))
    middle = (min(0.0, float(mean.min())) + float(mean.max())) / 2
    for i, j in np.ndindex(*mean.shape):
        colour = "white" if mean[i, j] > middle else "black"
        text = f"{mean[i, j]:.1f}".replace("-0.0", "0.0").replace("-", "−")
        axes.text(j, i, text, ha="center", va="center", fontsize=6, color=colour)
    axes.set_yticks(range(len(rows)), [bench.policies[k] for k in rows])
    ticks = [findings.quantity(b, "Hz") for b in bench.bandwidth_hz]
    axes.set_xticks(range(len(ticks)), ticks, rotation=45, ha="right")
    axes.set_xlabel("bandwidth of the link")
    axes.grid(False)
    figure.colorbar(image, ax=axes, label="regret (points of mAP)")
    return figure


FIGURES: dict[str, Callable[[Results], Figure]] = {
    "surface": _surface,
    "curves": _curves,
    "share": _share,
    "policies": _policies,
    "regret": _regret,
}

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "^": r"\^{}",
    "~": r"\~{}",
}


def latex_table(results: Results) -> str:
    """The policies as a ``booktabs`` table: mAP at three bandwidths, mean, regret."""
    bench = results.benchmark
    fits = np.flatnonzero(bench.updates)
    picked = sorted({int(fits[k]) for k in (0, len(fits) // 2, len(fits) - 1)}) if len(fits) else []
    header = [
        findings.quantity(bench.bandwidth_hz[k], "Hz").replace("\u00a0", r"\,") for k in picked
    ]
    lines = [
        f"% {spread(bench.judged[0]).what}; {judged_name(results)} (50-95) in %, regret in points",
        rf"\begin{{tabular}}{{l{'r' * (len(picked) + 2)}}}",
        r"\toprule",
        " & ".join(["policy", *header, "mean", "regret"]) + r" \\",
        r"\midrule",
    ]
    for k in bench.by_regret():
        name = "".join(_LATEX.get(c, c) for c in bench.policies[k])
        name += "$^*$" if bench.policies[k] in HINDSIGHT else ""
        cells = [_plus_minus(bench.judged[k, b]) for b in picked]
        cells += [
            _plus_minus(bench.judged[k].mean(axis=0)),
            _plus_minus(bench.regret[k].mean(axis=0)),
        ]
        lines.append(" & ".join([name, *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", "% $^*$ in hindsight", ""])


def _plus_minus(values: object) -> str:
    """``$24.3 \\pm 0.4$``: the mean and half of its interval over seeds."""
    seen = spread(values)
    if seen.seeds == 1:
        return f"${100 * float(seen.mean):.2f}$"
    half = (float(seen.high) - float(seen.low)) / 2
    return rf"${100 * float(seen.mean):.2f} \pm {100 * half:.2f}$"
