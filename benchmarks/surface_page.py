"""Everything that a measured surface says, in seconds: figures, and the numbers of its page.

    python -m benchmarks.surface_page hituav                     # a shipped table
    python -m benchmarks.surface_page runs/hituav --name hituav  # a results folder

Writes ``docs/results/NAME/*.svg`` and the part of ``docs/results/NAME.md`` between its two marks;
what is learned from the numbers is written by hand, above them. Nothing is trained.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from endedge.allocator import Points, Prices, fit, worthwhile
from endedge.data.text_tables import markdown_table
from endedge.lab.benchmark.contrasts import compared
from endedge.lab.benchmark.returns import returns
from endedge.lab.benchmark.score import Score, score
from endedge.lab.benchmark.table import Table
from endedge.lab.benchmark.telling import as_markdown, verdict
from endedge.lab.report import tables
from endedge.lab.report.paper_figures import Choice, plot
from endedge.lab.report.plotting import Look
from endedge.lab.report.results import Results
from endedge.lab.report.tabular import decimal
from endedge.lab.report.wording import quantity

BEGIN, END = "<!-- numbers: python -m benchmarks.surface_page -->", "<!-- end of numbers -->"
FIGURES = ("curves", "share", "policies", "regret")
_DEALS = 39  # of accuracies among the cells, as a control
PRICE_PER_MB, VALUE_PER_POINT = 0.005, 0.1  # an example: 5 a gigabyte, 0.1 a point and hour


def main(argv: list[str] | None = None) -> int:
    """Draw, count, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("where", help="a shipped table by name, or a results folder")
    parser.add_argument("--name", help="of the page (default: the table's)")
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    a = parser.parse_args(argv)
    table, results = Table.load(a.where), Results.find(a.where)
    name = a.name or table.name
    figures = a.results / name
    figures.mkdir(parents=True, exist_ok=True)
    for what in FIGURES:
        plot(a.where, what, figures / f"{what}.svg", Choice((), "bandwidth", Look(None, "sans", 8)))
    page = a.results / f"{name}.md"
    text = page.read_text() if page.is_file() else f"# {name}\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    numbers = "\n".join(_numbers(table, results, score(table), name))
    page.write_text(f"{before}{BEGIN}\n\n{numbers}\n{END}{rest.partition(END)[2]}")
    print(page)
    return 0


def _numbers(table: Table, results: Results, played: Score, name: str) -> Iterator[str]:
    said = verdict(played)
    yield f"{said[0].upper()}{said[1:]}.\n"
    yield from (f"* {said}" for said in table.lacks())
    yield f"\n## What was measured\n\n{measured(table)}"
    yield f"![Accuracy against bytes each way]({name}/curves.svg)\n"
    yield f"## Headroom by bandwidth\n\n{headroom(played)}"
    yield "Named before anything was measured, corrected for all three (Holm):\n"
    yield from (
        f"* `{c.one}` over `{c.other}`: {c.contrast.text} points, {c.contrast.verdict}; "
        f"p = {c.p:.3f}, corrected {c.corrected:.3f}"
        for c in compared(played)
    )
    yield f"\n## How the link is split\n\n{shares(results)}"
    yield f"![Share of each direction]({name}/share.svg)\n"
    yield f"## Curves\n\n{tables.families(results).markdown()}"
    yield f"## Policies\n\n{as_markdown(played, played.policies)}\n"
    yield f"{permuted(played)}\n"
    yield f"![Policies]({name}/policies.svg)\n\n![Regret]({name}/regret.svg)\n"
    yield f"## What it returns\n\n{economics(table, results)}"


def measured(table: Table) -> str:
    """mAP by upload and package; in brackets what was decoded but not sent by every seed."""
    cells = table.surface
    budgets = sorted({int(b) for b in cells.budget_bytes})
    heads = ["frames (bytes)", *(quantity(b, "B") for b in budgets), "teacher"]
    rows = []
    for frames, codec in dict.fromkeys(zip(cells.frames, cells.codec, strict=True)):
        here = (cells.frames == frames) & (cells.codec == codec)
        up = quantity(float(np.mean(cells.upload_bytes[here])), "B")
        row = [f"{frames:,.0f} ({up})"]
        for budget in budgets:
            these = here & (cells.budget_bytes == budget)
            if not these.any():
                row.append("–")
                continue
            said = decimal(100 * float(cells.map[these].mean()), 1)
            sent = int(cells.sent[these].sum())
            row.append(said if sent == these.sum() else f"{said} ({sent} of {these.sum()} sent)")
        rows.append([*row, decimal(100 * float(cells.teacher_map[here].mean()), 1)])
    seeds = ", ".join(map(str, table.seeds))
    note = (
        f"mAP50-95 on the device in %, mean of seeds {seeds}; {100 * cells.m0.mean():.1f} before."
    )
    return f"{markdown_table(heads, rows)}\n\n{note}\n"


def headroom(played: Score) -> str:
    """The oracle over the best split fixed in advance, and the named comparisons, by bandwidth."""
    heads = ["bandwidth", "oracle", "headroom", "by other seeds", "fitted over equal", ""]
    rows = []
    best = played.policies.index("oracle")
    for k, hz in enumerate(played.bandwidth_hz):
        gap = played.contrast("fitted", "equal", k)
        rows.append(
            [
                quantity(hz, "Hz"),
                decimal(100 * float(played.worth[best, k].mean()), 2),
                played.headroom(k).text,
                played.honest_headroom(k).text,
                gap.text,
                gap.verdict,
            ]
        )
    return f"{markdown_table(heads, rows)}\n\nPoints of mAP ± one error.\n"


def shares(results: Results) -> str:
    """The fitted allocator over the sweep: regime, share of the bytes' cost that data has, and the
    same share by the curves' elasticities, to which it is equal at an interior optimum."""
    heads = ["bandwidth", "up", "down", "regime", "data's share of the band", "by elasticities"]
    rows = []
    for step in results.steps:
        if step.regime == "none":
            rows.append([quantity(step.bandwidth_hz, "Hz"), "–", "–", "none", "–", "–"])
            continue
        slopes = results.curves.joint.slopes(step.upload_bytes, step.update_bytes)
        data, model = (
            float(np.ravel(s)[0]) * b
            for s, b in zip(slopes, (step.upload_bytes, step.update_bytes), strict=True)
        )
        used = step.uplink_hz + step.downlink_hz
        rows.append(
            [
                quantity(step.bandwidth_hz, "Hz"),
                quantity(step.upload_bytes, "B"),
                quantity(step.update_bytes, "B"),
                step.regime,
                f"{step.uplink_hz / used:.0%}",
                f"{data / (data + model):.0%}" if step.regime == "interior" else "–",
            ]
        )
    return f"{markdown_table(heads, rows)}\n"


def permuted(played: Score) -> str:
    """A control: ``fitted`` with curves that were fitted to accuracies dealt out anew among the
    cells, so that they say nothing of bytes. Where it does as well, no result shows that the curves
    help."""
    table, regrets = played.table, []
    for deal in range(_DEALS):
        rng, wrong = np.random.default_rng(deal), {}
        for seed, curves in table.curves.items():
            known = table.surface.select(table.surface.seed != seed)
            dealt = replace(known, map=rng.permutation(known.map))
            wrong[seed] = fit(dealt, kinds=[curves.joint.kind], replicates=2)
        again = score(replace(table, curves=wrong), ["fitted"], played.bandwidth_hz)
        regrets.append(again.regret("fitted")[0])
    right = played.regret("fitted")[0]
    p = (1 + sum(regret <= right + 1e-9 for regret in regrets)) / (1 + _DEALS)
    return (
        f"Control: regret of `fitted` {100 * right:.2f} points; with curves fitted to accuracies "
        f"that were dealt out anew among the cells {100 * float(np.median(regrets)):.2f} "
        f"({100 * min(regrets):.2f} to {100 * max(regrets):.2f}, {_DEALS} deals; p = {p:.2f})."
        + (" So nothing here shows that the curves help." if p > 0.05 else "")
    )


def economics(table: Table, results: Results) -> str:
    """Cost and return at three bandwidths, at example prices."""
    curves, rules = results.curves, table.rules
    sending = [s.bandwidth_hz for s in results.sending]
    if not sending:
        return "Nothing is sent at any bandwidth of the sweep.\n"
    heads = ["bandwidth", "net a period", "gain", "pays from", "pilot (periods)"]
    rows = []
    for hz in (sending[0], sending[len(sending) // 2], sending[-1]):
        found = returns(
            results.allocate(hz),
            curves,
            rules,
            price_per_mb=PRICE_PER_MB,
            value_per_point=VALUE_PER_POINT,
            points=Points.of(table.cells),
        )
        periods = found.pilot_periods
        rows.append(
            [
                quantity(hz, "Hz"),
                f"{found.books.net:+.4f}",
                f"{100 * found.gain_map:.1f} points",
                f"{100 * found.break_even_map:.2f} points",
                "–" if np.isnan(periods) else f"{periods:.0f}",
            ]
        )
    note = (
        f"At {PRICE_PER_MB:g} a megabyte either way and {VALUE_PER_POINT:g} for a point held an "
        f"hour (`endedge allocate --price-per-mb --value-per-point` takes others)."
    )
    if rules.schedule == "pipelined":
        prices = Prices(1e3 * PRICE_PER_MB, 1e3 * PRICE_PER_MB, map_point_hour=VALUE_PER_POINT)
        hertz = worthwhile(curves, table.link.at(1.0), prices, rules)[0]
        note += f" Another byte pays for itself up to {quantity(hertz, 'Hz')}."
    return f"{markdown_table(heads, rows)}\n\n{note}\n"


if __name__ == "__main__":
    raise SystemExit(main())
