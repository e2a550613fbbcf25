"""A fleet's score as people and programs read it: a terminal, Markdown rows, JSON, CSV."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import asdict
from typing import Any

import numpy as np

from endedge.data.text_tables import markdown_table, plain_table
from endedge.lab.benchmark.headroom import Contrast
from endedge.lab.fleet.score import PLAIN, FleetScore

__all__ = ["as_csv", "as_markdown", "as_record", "as_text", "verdict"]

_MEASURES = {
    "mean": "weighted mean of the devices' mAP",
    "worst": "mAP of the worst device",
    "fair": "weighted geometric mean of the devices' mAP",
}


def verdict(score: FleetScore) -> str:
    """The first line: is there anything to win, and is it won?"""
    over, won = score.honest_headroom(), score.won()
    said = (
        f"{over.text} points for a choice by other seeds, {won.text} for the auction, over the "
        f"best of equal slots and turns ({score.fixed()}), mean over the sweep"
    )
    if not score.claims:
        return f"nothing that can be claimed here: {said}"
    at = ", ".join(_band(score, k) for k in score.claims)
    return f"something to win at {at}: {said}"


def _band(score: FleetScore, k: int) -> str:
    return f"{score.bandwidth_hz[k] / score.devices / 1e3:.3g} kHz a device"


def as_text(score: FleetScore, every: bool = False) -> str:
    """For a terminal: headroom first, then the rivals, then who, when and how."""
    names = "drawn from " if score.settings.devices else ""
    names += ", ".join(str(m) for m in score.fleet.members)
    lines = [
        f"{score.devices} devices, {names}: {verdict(score)}",
        *(f"  {sentence}" for sentence in score.fleet.lacks(score.settings)),
        f"  errors: paired over {score.worth.shape[2]} "
        + ("drawn fleets, which share the seeds" if score.settings.devices else "seeds")
        + ("" if score.draws is not None else "; not over evaluation frames"),
        "",
        _by_band(score),
        "",
        _rivals(score),
        "",
        _steps(score),
    ]
    if every:
        lines += ["", _every(score)]
    return "\n".join(lines)


def _by_band(score: FleetScore) -> str:
    best = score.policies.index("oracle")
    rows = [
        [
            f"{hz:,.0f}",
            f"{hz / score.devices / 1e3:.3g}",
            score.won(k, PLAIN).text,
            score.fixed(k),
            f"{100 * score.worth[score.policies.index(score.fixed(k)), k].mean():.2f}",
            score.won(k).text,
            score.honest_headroom(k).text,
            score.headroom(k).text,
            f"{100 * (score.bound[k] - score.worth[best, k].mean()):.2f}",
            f"{100 * score.unrounded[k]:.2f}",
            score.honest_headroom(k).standing,
        ]
        for k, hz in enumerate(score.bandwidth_hz)
    ]
    heads = ["band (Hz)", "kHz each", "over plain", "best fixed", "mAP (%)", "auction"]
    heads += ["other seeds", "oracle", "to bound", "unrounded", ""]
    note = (
        "points over the best fixed rule at that band, ± one error; over plain: the auction over "
        "equal slots or turns that leave spare band unused; to bound: from the oracle to what no "
        "schedule passes; unrounded: by the curves alone, any bytes, no turns"
    )
    return f"{plain_table(heads, rows)}\n{note}"


def _rivals(score: FleetScore) -> str:
    rows = []
    for name in score.ranking():
        i = score.policies.index(name)
        against = ("", "") if name == "equal" else _against(score.contrast(name, "equal"))
        served, used = score.served[i].mean(), score.used[i].mean()
        mean = 100 * score.worth[i].mean()
        rows.append((name, f"{mean:.2f}", *against, f"{served:.0%}", f"{used:.0%}"))
    heads = ("policy", "mAP (%)", "over equal", "", "served", "of the band")
    return (
        f"{plain_table(heads, rows)}\n{_MEASURES[score.settings.objective]}, mean over the sweep; "
        "served: devices that get updates"
    )


def _against(contrast: Contrast) -> tuple[str, str]:
    return contrast.text, contrast.verdict


def _steps(score: FleetScore) -> str:
    bands = range(len(score.bandwidth_hz))
    rows = [
        [name, *(score.steps(k)[n][2].text for k in bands), score.steps()[n][2].text, what]
        for n, (name, what, _) in enumerate(score.steps())
    ]
    heads = ["gain by", *(f"{hz / score.devices / 1e3:.3g}" for hz in score.bandwidth_hz)]
    note = "points, from equal-halves to the auction, one change at a time; columns: kHz a device"
    return f"{plain_table([*heads, 'mean', ''], rows)}\n{note}"


def _every(score: FleetScore) -> str:
    """mAP of every rival at every band, and of every member under the auction."""
    heads = ["mAP (%)", *(f"{hz / score.devices / 1e3:.3g}" for hz in score.bandwidth_hz)]
    rows = [
        [name, *(f"{100 * v:.2f}" for v in score.worth[score.policies.index(name)].mean(axis=-1))]
        for name in score.ranking()
    ]
    for name in (score.fixed(), "auction", "oracle"):
        for m, member in enumerate(score.fleet.members):
            values = score.by_member[score.policies.index(name), :, m]
            rows.append([f"{member} under {name}", *(f"{100 * v:.2f}" for v in values)])
    return plain_table(heads, rows)


def as_markdown(score: FleetScore) -> str:
    """A row a band for docs/results/fleet.md."""
    heads: tuple[str, ...] = (
        "kHz a device",
        "over plain slots",
        "best fixed",
        "mAP",
        "auction",
        "other seeds",
    )
    heads += ("oracle", "to bound")
    heads += ("unrounded", *(f"*{name}*" for name, _, _ in score.steps()))
    rows = []
    best = score.policies.index("oracle")
    for k, hz in enumerate(score.bandwidth_hz):
        fixed = score.fixed(k)
        rows.append(
            (
                f"{hz / score.devices / 1e3:.3g}",
                _bold(score.won(k, PLAIN)),
                fixed,
                f"{100 * score.worth[score.policies.index(fixed), k].mean():.1f}",
                _bold(score.won(k)),
                score.honest_headroom(k).text,
                score.headroom(k).text,
                f"{100 * (score.bound[k] - score.worth[best, k].mean()):.2f}",
                f"{100 * score.unrounded[k]:.2f}",
                *(c.text for _, _, c in score.steps(k)),
            )
        )
    return markdown_table(heads, rows)


def _bold(contrast: Contrast) -> str:
    return f"**{contrast.text}**" if contrast.claims else contrast.text


def as_csv(score: FleetScore) -> str:
    """A row a band and policy: mAP in [0, 1]."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    heads = ["devices", "objective", "keep", "bandwidth_hz", "policy", "map", "over_fixed"]
    writer.writerow([*heads, "error", "served", "used", *(f"map_{m}" for m in score.fleet.members)])
    for k, hz in enumerate(score.bandwidth_hz):
        for i, name in enumerate(score.policies):
            over = score.contrast(name, score.fixed(k), k)
            writer.writerow(
                [
                    score.devices,
                    score.settings.objective,
                    score.settings.keep,
                    hz,
                    name,
                    float(score.worth[i, k].mean()),
                    over.mean,
                    "" if math.isnan(over.error) else over.error,
                    float(score.served[i, k]),
                    float(score.used[i, k]),
                    *(float(v) for v in score.by_member[i, k]),
                ]
            )
    return out.getvalue()


def as_record(score: FleetScore) -> dict[str, Any]:
    """Plain numbers (mAP in [0, 1]) and text, for JSON."""
    return {
        "members": [asdict(m) for m in score.fleet.members],
        "devices": score.devices,
        "settings": asdict(score.settings),
        "lacks": score.fleet.lacks(score.settings),
        "verdict": verdict(score),
        "bandwidths": [
            {
                "bandwidth_hz": hz,
                "best_fixed": score.fixed(k),
                "claims": k in score.claims,
                "headroom": _numbers(score.headroom(k)),
                "headroom_by_other_seeds": _numbers(score.honest_headroom(k)),
                "auction_over_best_fixed": _numbers(score.won(k)),
                "auction_over_equal_and_turns": _numbers(score.won(k, PLAIN)),
                "bound": float(score.bound[k]),
                "price_map_per_hz": _finite(float(score.price[k])),
                "price_map_per_edge_s": _finite(float(score.price_s[k])),
                "unrounded": float(score.unrounded[k]),
                "steps": {name: _numbers(c) for name, _, c in score.steps(k)},
                "policies": {
                    name: {
                        "map": float(score.worth[i, k].mean()),
                        "served": float(score.served[i, k]),
                        "used": float(score.used[i, k]),
                        "map_by_member": [_finite(float(v)) for v in score.by_member[i, k]],
                    }
                    for i, name in enumerate(score.policies)
                },
            }
            for k, hz in enumerate(score.bandwidth_hz)
        ],
        "headroom": _numbers(score.headroom()),
        "headroom_by_other_seeds": _numbers(score.honest_headroom()),
        "auction_over_best_fixed": _numbers(score.won()),
        "steps": {name: _numbers(c) for name, _, c in score.steps()},
    }


def _numbers(one: Contrast) -> dict[str, float | None]:
    return {"mean": one.mean, "error": _finite(one.error), "verdict_half": _finite(one.half())}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
