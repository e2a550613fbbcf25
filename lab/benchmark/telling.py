"""A score as people and programs read it: a terminal, a Markdown row to submit, JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from endedge.data.text_tables import markdown_table, plain_table
from endedge.lab.benchmark.benchmark import ORACLE, STATIC, UNLUCKY
from endedge.lab.benchmark.contrasts import compared
from endedge.lab.benchmark.headroom import Contrast
from endedge.lab.benchmark.score import Score

__all__ = ["as_markdown", "as_record", "as_text"]

_YARDSTICKS = (ORACLE, UNLUCKY, STATIC, "best-static")


def verdict(score: Score) -> str:
    """The first line: is there anything to win?"""
    over, honest = score.headroom(), score.honest_headroom()
    said = (
        f"{over.text} points for the luckiest choice, {honest.text} for one made by other seeds, "
        "over the best split fixed in advance"
    )
    if score.draws is None:
        said += " (errors over seeds only)"
    if not score.claims:
        each = [score.honest_headroom(k).standing for k in range(len(score.bandwidth_hz))]
        none = all(standing == "nothing to gain" for standing in each)
        equal = _equal(score)
        none = none and equal == "enough"
        what = "nothing to gain here" if none else "nothing that can be claimed here"
        return f"{what}: {said}; an equal split is {equal}"
    at = ", ".join(f"{score.bandwidth_hz[k]:.4g} Hz" for k in score.claims)
    return f"something to win at {at}: {said}"


def _equal(score: Score) -> str:
    """How far an equal split is from what was fixed in advance, or from the curves' choice where
    that is surely ahead of it."""
    if "fitted" in score.policies:
        ahead = score.contrast("fitted", "equal")
        if ahead.verdict == "better" and ahead.claims:
            return f"{ahead.text} points behind fitted"
    gap = score.contrast("equal", score.fixed)
    return "enough" if gap.mean > -5e-5 or gap.verdict == "same" else f"{gap.text} points from it"


def as_text(score: Score, names: Sequence[str] = (), every: bool = False) -> str:
    """For a terminal: headroom first, then ``names`` (default: all policies); ``every``: what they
    are worth at each bandwidth, too."""
    table = score.table
    lines = [
        f"{table.name}: {verdict(score)}",
        *(f"  {s}" for s in table.lacks()),
        f"  by the curves, unrounded: {100 * score.unrounded:.2f} points over one share for all",
        "",
    ]
    heads = ["bandwidth (Hz)", "oracle mAP (%)", "headroom", "by other seeds", ""]
    best = score.policies.index(ORACLE)
    rows = [
        [
            f"{hz:.4g}",
            f"{100 * score.worth[best, k].mean():.2f}",
            score.headroom(k).text,
            score.honest_headroom(k).text,
            score.honest_headroom(k).standing,
        ]
        for k, hz in enumerate(score.bandwidth_hz)
    ]
    lines += [plain_table(heads, rows), ""]
    shown = [n for n in score.ranking() if not names or n in (*names, *_YARDSTICKS, "equal")]
    lines.append(plain_table(_HEAD, [_row(score, name) for name in shown]))
    lines.append(_NOTE)
    lines += [
        f"{c.one} over {c.other}: {c.contrast.text}, {c.contrast.verdict}; p = {c.p:.3f}, "
        f"{c.corrected:.3f} corrected for the comparisons named in advance (Holm)"
        for c in compared(score)
        if not math.isnan(c.p)
    ]
    if every:
        for name in [n for n in shown if n not in _YARDSTICKS]:
            rows = [
                [
                    f"{hz:.4g}",
                    f"{100 * score.worth[score.policies.index(name), k].mean():.2f}",
                    score.contrast(ORACLE, name, k).text,
                    *_against(score.contrast(name, "equal", k)),
                ]
                for k, hz in enumerate(score.bandwidth_hz)
            ]
            heads = [name, "mAP (%)", "regret", "over equal", ""]
            lines += ["", plain_table(heads, rows)]
    return "\n".join(lines)


_HEAD = ("policy", "regret", "worst", "caught", "90 %", "over equal", "")
_NOTE = (
    "points of mAP, mean over the sweep, ± one error; caught: share of the headroom; "
    "same: within ±0.5 points of equal (two one-sided tests, 5 %)"
)


def _row(score: Score, name: str) -> tuple[str, ...]:
    mean, worst = score.regret(name)
    share, low, high = score.caught(name)
    caught = ("–", "") if math.isnan(share) else (_percent(share), _interval(low, high))
    against = ("", "") if name == "equal" else _against(score.contrast(name, "equal"))
    return (name, f"{100 * mean:.2f}", f"{100 * worst:.2f}", *caught, *against)


def _against(contrast: Contrast) -> tuple[str, str]:
    return contrast.text, contrast.verdict


def _percent(share: float) -> str:
    """Without a minus before a zero."""
    return f"{round(share, 2) + 0.0:.0%}"


def _interval(low: float, high: float) -> str:
    return "" if math.isnan(low) else f"[{_percent(low)}, {_percent(high)}]"


def as_markdown(score: Score, names: Sequence[str]) -> str:
    """One row a policy for docs/benchmark.md."""
    table = score.table
    heads = ("table", "policy", "headroom", "caught", "90 %", "regret", "worst", "over equal", "")
    rows = []
    for name in [n for n in score.ranking() if n in names]:
        _, regret, worst, caught, interval, over, same = _row(score, name)
        rows.append(
            (table.name, name, score.headroom().text, caught, interval, regret, worst, over, same)
        )
    return markdown_table(heads, rows)


def as_record(score: Score) -> dict[str, Any]:
    """Plain numbers (mAP in [0, 1]) and text, for JSON."""
    table = score.table
    return {
        "table": table.name,
        "lacks": table.lacks(),
        "verdict": verdict(score),
        "bandwidths": [
            {
                "bandwidth_hz": hz,
                "headroom": _numbers(score.headroom(k)),
                "headroom_by_other_seeds": _numbers(score.honest_headroom(k)),
                "claims": k in score.claims,
                "map": {
                    name: float(score.worth[i, k].mean()) for i, name in enumerate(score.policies)
                },
            }
            for k, hz in enumerate(score.bandwidth_hz)
        ],
        "headroom": _numbers(score.headroom()),
        "headroom_by_other_seeds": _numbers(score.honest_headroom()),
        "headroom_of_the_curves_unrounded": score.unrounded,
        "comparisons": [
            {
                "policy": c.one,
                "over": c.other,
                **_numbers(c.contrast),
                "verdict": c.contrast.verdict,
                "p": _finite(c.p),
                "p_holm": _finite(c.corrected),
            }
            for c in compared(score)
        ],
        "policies": {
            name: {
                "mean_regret": score.regret(name)[0],
                "worst_regret": score.regret(name)[1],
                "caught": [_finite(v) for v in score.caught(name)],
                "over_equal": _numbers(score.contrast(name, "equal")),
                "against_equal": score.contrast(name, "equal").verdict,
            }
            for name in score.ranking()
        },
    }


def _numbers(one: Contrast) -> dict[str, float | None]:
    return {
        "mean": one.mean,
        "error": _finite(one.error),
        "seed_error": _finite(one.seed_error),
        "frame_error": _finite(one.frame_error),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
