"""The report's tables as HTML. Every cell is escaped here and nowhere else."""

from __future__ import annotations

import html
import importlib.metadata
import math
import platform
from collections.abc import Iterable, Sequence

import numpy as np

from endedge.lab.benchmark.outcomes import HINDSIGHT, Floats, Spread, spread
from endedge.lab.benchmark.ranking import winners
from endedge.lab.benchmark.robustness import Means, mean_by
from endedge.lab.report.captions import points, quantity
from endedge.lab.report.results import Results, judged_name

__all__ = [
    "costs",
    "families",
    "interval",
    "provenance",
    "regrets",
    "rounds",
    "standings",
    "studies",
    "table",
    "text",
    "version",
]

_SHOWN = ("fitted", "fitted-bytes", "robust", "monotone", "best-static", "equal")
_PACKAGES = ("endedge", "torch", "torchvision", "ultralytics", "pycocotools", "numpy", "scipy")


def text(content: object) -> str:
    """Text for HTML, quotes included."""
    return html.escape(str(content))


def interval(seen: Spread, signed: bool = False) -> str:
    """``[24.1, 24.9]`` in points, empty for one seed."""
    if seen.seeds == 1:
        return ""
    low, high = (points(float(v)).split("\u00a0")[0] for v in (seen.low, seen.high))
    return f"[{low},\u00a0{high}]" if signed else f"[{low},\u00a0{high}]".replace("+", "")


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], chosen: int = -1, note: str = ""
) -> str:
    """Rows of text as HTML; ``chosen`` is in bold, ``note`` stands below."""
    head = "".join(f"<th>{text(cell)}</th>" for cell in header)
    lines = []
    for k, row in enumerate(rows):
        cells = "".join(f"<td>{text(cell)}</td>" for cell in row)
        lines.append(f"<tr class=chosen>{cells}</tr>" if k == chosen else f"<tr>{cells}</tr>")
    return (
        f"<div class=scroll><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div><p class=note>{text(note)}</p>"
    )


def families(results: Results) -> str:
    """The best curve families by held-out error, and the monotone reference."""
    curves = results.curves
    rows = [
        (
            c.kind.composition,
            c.kind.data,
            c.kind.model,
            f"{100 * c.held_out:.2f}",
            f"{100 * c.rmse:.2f}",
            f"{c.aicc:.0f}" if math.isfinite(c.aicc) else "–",
        )
        for c in curves.candidates[:8]
    ]
    held_out = f"{100 * curves.reference_held_out:.2f}"
    rows.append(("monotone reference", "none", "none", held_out, "", ""))
    header = (
        "composition",
        "data family",
        "model family",
        "held-out error (points)",
        "in sample (points)",
        "AICc",
    )
    parameters = ", ".join(f"{k} = {v:.4g}" for k, v in curves.joint.parameters().items())
    note = (
        f"The best {min(8, len(curves.candidates))} of {len(curves.candidates)} that were tried, "
        f"by held-out error (whole operating points left out). "
        f"Chosen: {curves.joint.kind}, {parameters}."
    )
    return table(header, rows, 0, note)


def regrets(results: Results) -> str:
    """Every policy over the whole sweep, least regret first."""
    bench = results.benchmark
    rows, chosen = [], -1
    for place, k in enumerate(bench.by_regret()):
        name = bench.policies[k]
        chosen = place if name == "fitted" else chosen
        mean = spread(bench.regret[k].mean(axis=0))
        by_bandwidth = bench.regret[k].mean(axis=1)
        worst = int(by_bandwidth.argmax())
        rows.append(
            (
                name + (" (hindsight)" if name in HINDSIGHT else ""),
                f"{100 * bench.judged[k].mean():.2f}",
                f"{100 * float(mean.mean):.2f}".replace("-", "−"),
                interval(mean) or "–",
                f"{100 * by_bandwidth[worst]:.2f}" if by_bandwidth[worst] > 0 else "–",
                quantity(bench.bandwidth_hz[worst], "Hz") if by_bandwidth[worst] > 0 else "–",
            )
        )
    header = (
        "policy",
        f"mean {judged_name(results)} (%)",
        "mean regret (points)",
        "interval",
        "worst",
        "at",
    )
    note = (
        f"Interval: {spread(bench.judged[0]).what}. Hindsight: the policy saw the accuracies that "
        "it is judged by. The oracle is chosen on the mean over seeds, so in a single seed a "
        "policy can be ahead of it."
    )
    return table(header, rows, chosen, note)


def costs(results: Results) -> str:
    """What a day of updates takes at each bandwidth, and what it brings."""
    period_s = results.config.link.period_s
    a_day = 86400 / period_s
    rows = [
        (
            quantity(c.bandwidth_hz, "Hz"),
            quantity(c.upload_bytes * a_day, "B"),
            quantity(c.update_bytes * a_day, "B"),
            quantity(c.edge_s, "s"),
            f"{period_s / c.edge_s:.1f}" if c.edge_s > 0 else "–",
            points(float(c.gain.mean)),
            interval(c.gain, signed=True) or "–",
            f"{c.points_per_mb:.1f}".replace("-", "−"),
        )
        for c in results.costs
    ]
    header = (
        "bandwidth",
        "up a day",
        "down a day",
        "edge time an update",
        "devices per edge",
        "gain",
        "interval",
        "points a MB",
    )
    note = (
        f"The fitted allocator's updates as executed, one every {quantity(period_s, 's')}. Edge "
        "time: fine-tuning, distilling and packing on the machine that measured; so many devices "
        "can one such edge serve. Gain: over no update. Points a MB: gain for the traffic of one "
        "update. With prices: endedge.allocator.ledger."
    )
    return table(header, rows, note=note)


def standings(results: Results) -> str:
    """The best honest policy at every bandwidth, and who cannot be told from it."""
    rows = [
        (
            quantity(w.bandwidth_hz, "Hz"),
            w.policy,
            f"{100 * w.regret:.2f}".replace("-", "−"),
            ", ".join(w.tied) or "–",
            points(float(w.lead.mean)),
            interval(w.lead, signed=True),
        )
        for w in winners(results.benchmark)
    ]
    header = (
        "bandwidth",
        "best policy",
        "regret (points)",
        "not clearly worse",
        "fitted over best static",
        "interval",
    )
    bench = results.benchmark
    note = (
        "Policies without hindsight, at the bandwidths at which an update can be sent. Differences "
        f"are paired over seeds: {spread(bench.regret[0]).what}. Clear: the interval leaves out "
        "zero; two seeds that agree do so by chance half of the time."
    )
    return table(header, rows, note=note)


def studies(results: Results) -> list[tuple[str, str]]:
    """(title, table) of each study that the folder has."""
    trials = results.trials
    regret, worth = mean_by(trials, lambda t: t.regret), mean_by(trials, lambda t: t.average_map)
    arms = list(dict.fromkeys((t.study, t.arm) for t in trials))

    def row(value: Means, keys: Sequence[tuple[str, str, str]]) -> list[str]:
        return [f"{100 * value[key]:.2f}".replace("-", "−") for key in keys]

    held = [a for a in arms if a[0] in ("points", "seeds")]
    wrong = [a for a in arms if a[0] == "error"]
    links = [a for a in arms if a not in held and a not in wrong]
    draws = results.config.benchmark.error_draws
    off = f"Every parameter off by a random factor of about so much, {draws} times."
    blind = "points: fitted to every other operating point. seeds: fitted to the other seeds."
    found = []
    for title, some, note in (
        ("Curves that never saw the cells they decide about", held, blind),
        ("Curves that are wrong", wrong, off),
        ("Other links", links, "One key of the link changed, all else equal."),
    ):
        if not some:
            continue
        shown = [name for name in _SHOWN if (*some[0], name) in regret]
        head = ["study", "case", "oracle mAP (%)", *shown]
        rows = [
            [*arm, *row(worth, [(*arm, "oracle")]), *row(regret, [(*arm, name) for name in shown])]
            for arm in some
        ]
        note += " Mean regret over the sweep, in points of mAP, on the measured grid."
        found.append((title, table(head, rows, note=note)))
    return found


def latencies(results: Results) -> str:
    """Each model and engine that was timed, with what it detects there."""
    rows = [
        (
            r.model,
            r.runtime,
            f"{r.imgsz} px, {r.threads} thread{'s' * (r.threads > 1)}",
            f"{r.latency_s * 1000:.1f} ({r.low_s * 1000:.1f} to {r.high_s * 1000:.1f})",
            f"{1 / r.latency_s:.1f}",
            f"{100 * r.map:.1f} %" if r.map is not None else "–",
            r.machine,
        )
        for r in results.latencies
    ]
    return table(
        ("model", "engine", "input", "ms a frame (10th to 90th %)", "frames/s", "mAP", "machine"),
        rows,
        note="One frame at a time, letterboxed picture to boxes; mAP of that engine's own answers.",
    )


def rounds(results: Results) -> str:
    """Each upload size: mAP before, of the student on the device, of the teacher; the cost."""
    codecs = len({r.codec for r in results.rounds}) > 1
    rows = [
        (
            f"{r.frames:,}" + (f" {r.codec}" if codecs else ""),
            quantity(r.upload_bytes, "B"),
            _mean(r.m0),
            _mean(r.student),
            points(float(r.gain.mean())),
            _mean(r.teacher),
            quantity(r.edge_s, "s"),
            str(r.held_back) if r.held_back else "–",
        )
        for r in results.rounds
    ]
    budget = quantity(max(r.budget_bytes for r in results.rounds), "B")
    header = (
        "frames",
        "upload",
        "before (m0)",
        f"student in {budget}",
        "gain",
        "teacher",
        "edge time",
        "held back",
    )
    note = (
        "mAP50-95 (%) on the device's evaluation frames, mean ± standard deviation over seeds. "
        "The student is the decoded package on the device. Edge time: fine-tuning, distilling and "
        "packing. Held back: updates, of all budgets, that the held-back frames showed to be no "
        "better; they are not sent and the device keeps m0."
    )
    return table(header, rows, note=note)


def _mean(values: Floats) -> str:
    values = 100 * values[~np.isnan(values)]
    if len(values) == 0:
        return "–"
    return f"{values.mean():.1f}" + (f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else "")


def version(package: str) -> str:
    """Of an installed package; "none" where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def provenance(results: Results) -> str:
    """What this was made from and with, and how to make it again."""
    curves, link, data = results.curves, results.config.link, results.config.data
    versions = [f"{package} {version(package)}" for package in _PACKAGES]
    facts = {
        "surface.csv (SHA-256)": results.surface.sha256(),
        "curves": f"{curves.joint.kind}, {len(curves.replicates)} bootstrap replicates",
        "link": f"{link.schedule}, {quantity(link.period_s, 's')} a period, "
        f"{link.up_bit_per_s_per_hz:g} bit/s/Hz up, {link.down_bit_per_s_per_hz:g} bit/s/Hz down",
        "detectors": f"teacher {results.config.weights.teacher}, "
        f"student {', '.join(results.config.weights.student)}, {data.image_side} px",
        "this page made with": ", ".join([*versions, f"Python {platform.python_version()}"]),
    }
    rows = "".join(
        f"<tr><td>{text(name)}</td><td class=fact>{text(value)}</td></tr>"
        for name, value in facts.items()
    )
    again = (
        "# everything, from the config.yaml beside this page\n"
        "endedge run config.yaml --out again\n"
        "# from surface.csv on\n"
        "endedge fit . && endedge bench . && endedge report ."
    )
    return (
        f"<section class=card><h3>How to reproduce</h3><pre>{text(again)}</pre>"
        f"<div class=scroll><table><tbody>{rows}</tbody></table></div>"
        f"<details><summary>config.yaml</summary><pre>{text(results.config.to_yaml())}</pre>"
        "</details></section>"
    )
