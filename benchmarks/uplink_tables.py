"""The tables of benchmarks/uplink.py, in Markdown."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy import stats


def interval(values: Sequence[float]) -> str:
    """Mean ± half of the 95 % t interval, in mAP points (percent)."""
    points = 100 * np.asarray(values)
    if len(points) < 2:
        return f"{points.mean():5.1f}" if len(points) else "    –"
    half = stats.t.ppf(0.975, len(points) - 1) * points.std(ddof=1) / np.sqrt(len(points))
    return f"{points.mean():5.1f} ± {half:.1f}"


def table(
    title: str,
    rows: Iterable[str],
    field: str,
    baseline: str | None,
    fixed: dict[str, str],
    done: Sequence[dict[str, Any]],
    uploads: Sequence[int],
) -> str:
    """Rows × uploads as Markdown: frames sent, mAP, and the difference to ``baseline``."""
    lines = [f"\n{title}\n", "| | " + " | ".join(f"U ≤ {u:,d} B" for u in uploads) + " |"]
    lines.append("|---|" + "---|" * len(uploads))

    def cells(row: str, budget: int) -> dict[int, dict[str, Any]]:
        wanted = fixed | {field: row, "upload_budget": budget}
        return {r["seed"]: r for r in done if all(r[k] == v for k, v in wanted.items())}

    for row in rows:
        entries = []
        for budget in uploads:
            found = cells(row, budget)
            text = interval([r["map"] for r in found.values()])
            if found:
                text += f" (N {np.mean([r['frames'] for r in found.values()]):.0f}"
                graded = [r for r in found.values() if field == "labels" and "precision" in r]
                if graded:
                    text += f", P {np.mean([r['precision'] for r in graded]):.2f}"
                    text += f", R {np.mean([r['recall'] for r in graded]):.2f}"
                text += ")"
            if baseline and row != baseline:
                base = cells(baseline, budget)
                both = [found[s]["map"] - base[s]["map"] for s in found if s in base]
                text += f", Δ {interval(both).strip()}"
            entries.append(text)
        lines.append(f"| {row} | " + " | ".join(entries) + " |")
    return "\n".join(lines)


def report(o: argparse.Namespace, done: Sequence[dict[str, Any]]) -> str:
    common = {"rule": "random", "labels": "truth", "codec": o.codec}

    def one(title: str, rows: Iterable[str], field: str, baseline: str | None) -> str:
        fixed = {k: v for k, v in common.items() if k != field}
        return table(title, rows, field, baseline, fixed, done, o.uploads)

    base = f"at equal bytes ({o.codec}"
    return "\n".join(
        [
            one("Codec at equal bytes (random frames, true labels)", o.codecs, "codec", None),
            one(f"Selection {base}, true labels; Δ to random)", o.rules, "rule", "random"),
            one(f"Labels {base}, random frames; Δ to truth)", o.sources, "labels", "truth"),
        ]
    )
