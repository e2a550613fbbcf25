"""``endedge plot``: the figures and tables of a paper."""

from __future__ import annotations

import argparse
from pathlib import Path

from endedge.data.errors import BadInput
from endedge.lab.cli.arguments import Verb

__all__ = ["declare"]

_FIGURES = "surface, curves, data-curve, model-curve, share, policies, regret, parameters"


def declare(verb: Verb) -> None:
    """The verb's arguments."""
    sub = verb(
        "plot",
        draw_figures,
        "a publication figure or its table, of a results folder or a shipped table",
        "endedge plot runs/demo --what share -o share.pdf\n"
        "  endedge plot coco-infrared --what policies --policies fitted,equal,oracle -o p.eps\n"
        "  endedge plot demo --policy mine.py --policies mine,equal --what policies -o mine.pdf\n"
        "  endedge plot coco-infrared --all figures",
    )
    sub.add_argument("dir", metavar="DIR|NAME", help="results folder, or a shipped table")
    sub.add_argument("--what", metavar="FIGURE", help=_FIGURES)
    sub.add_argument(
        "-o", "--output", metavar="FILE", help=".pdf, .svg, .png, .eps, .pgf; its table: .tex, .csv"
    )
    sub.add_argument(
        "--all", metavar="FOLDER", help="every figure and its LaTeX table into this folder"
    )
    sub.add_argument(
        "--format", default="pdf", help="format of --all: pdf (default), svg, png, eps, pgf"
    )
    sub.add_argument(
        "--policies", default="", metavar="A,B", help="only these, all in colour (default: all)"
    )
    sub.add_argument(
        "--policy",
        action="append",
        default=[],
        metavar="FILE.py",
        help="your own policies, to play on a shipped table (it is executed)",
    )
    sub.add_argument(
        "--x",
        default="bandwidth",
        help="horizontal axis of policies: bandwidth (default), upload, update, traffic (bytes)",
    )
    sub.add_argument("--width", metavar="LENGTH", help="column (3.5 in), page, or e.g. 84mm")
    sub.add_argument("--font", default="sans", help="sans (default), serif, or an installed family")
    sub.add_argument(
        "--size", type=float, default=8.0, metavar="PT", help="size of the text (default 8)"
    )


def draw_figures(a: argparse.Namespace) -> None:
    """``endedge plot``."""
    if bool(a.all) == bool(a.what or a.output) or bool(a.what) != bool(a.output):
        raise BadInput(f"give --what FIGURE -o FILE, or --all FOLDER; figures: {_FIGURES}")
    from endedge.allocator.policies import from_file
    from endedge.lab.report.paper_figures import Choice, plot, plot_all
    from endedge.lab.report.plotting import Look

    for file in a.policy:
        from_file(Path(file))
    wanted = tuple(name for name in a.policies.split(",") if name)
    choice = Choice(wanted, a.x, Look(a.width, a.font, a.size))
    made = (
        plot_all(a.dir, Path(a.all), choice, a.format)
        if a.all
        else [plot(a.dir, a.what, Path(a.output), choice)]
    )
    print("\n".join(map(str, made)))
