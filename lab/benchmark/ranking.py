"""Which policy wins where, and is it more than noise: paired over seeds.

Two policies meet on the same frames and starting weights, so their difference is taken seed by
seed and its spread is that of the difference, not of two accuracies.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from endedge.data.text_tables import plain_table
from endedge.lab.benchmark.outcomes import HINDSIGHT, STATIC, Benchmark, Spread, spread

__all__ = [
    "PairedComparison",
    "RankingRow",
    "Winner",
    "clear",
    "comparisons",
    "headroom",
    "standings",
    "summary",
    "winners",
]

FITTED = "fitted"
_TIE = 5e-5  # mAP; less is printed as 0.00 points


@dataclass(frozen=True)
class PairedComparison:
    """One policy against another: ``lead`` mean mAP by which it is ahead over the sweep, and at
    how many bandwidths it is clearly ahead, clearly behind, or neither."""

    rival: str
    lead: Spread
    ahead: int
    behind: int
    even: int


@dataclass(frozen=True)
class Winner:
    """The best honest policy at a bandwidth, those that cannot be told from it, and the ``lead``
    of the fitted allocator over the best static split there."""

    bandwidth_hz: float
    policy: str
    regret: float
    tied: tuple[str, ...]
    lead: Spread


def clear(lead: Spread) -> bool:
    """Whether a difference is more than noise: its interval leaves out zero (from three seeds
    on), or both of two seeds agree, which chance alone does half of the time; one seed never."""
    return lead.seeds > 1 and bool(lead.low > _TIE or lead.high < -_TIE)


def comparisons(bench: Benchmark, policy: str = FITTED) -> list[PairedComparison]:
    """``policy`` against every other, the closest rival first."""
    mine = bench.regret[bench.of(policy)]
    compared = []
    for k in bench.by_regret():
        if bench.policies[k] == policy:
            continue
        leads = bench.regret[k] - mine
        each = [spread(row) for row in leads]
        ahead = sum(clear(lead) and bool(lead.mean > 0) for lead in each)
        behind = sum(clear(lead) and bool(lead.mean < 0) for lead in each)
        over_sweep = spread(leads.mean(axis=0))
        compared.append(
            PairedComparison(
                bench.policies[k], over_sweep, ahead, behind, len(each) - ahead - behind
            )
        )
    return compared


def winners(bench: Benchmark) -> list[Winner]:
    """The winner at every bandwidth at which any policy could send an update."""
    honest = [k for k, name in enumerate(bench.policies) if name not in (*HINDSIGHT, STATIC)]
    fitted, static = (bench.regret[bench.of(name)] for name in (FITTED, "best-static"))
    best_by_band = []
    for at in np.flatnonzero(bench.updates):
        regret = bench.regret[:, at]
        best = min(honest, key=lambda k: float(regret[k].mean()))
        tied = [k for k in honest if k != best and not clear(spread(regret[k] - regret[best]))]
        best_by_band.append(
            Winner(
                float(bench.bandwidth_hz[at]),
                bench.policies[best],
                float(regret[best].mean()),
                tuple(bench.policies[k] for k in tied),
                spread(static[at] - fitted[at]),
            )
        )
    return best_by_band


@dataclass(frozen=True)
class RankingRow:
    """A row of ``standings.csv``."""

    bandwidth_hz: float
    winner: str
    regret: float
    not_clearly_worse: str
    fitted_over_static: float
    fitted_over_static_low: float
    fitted_over_static_high: float


def standings(bench: Benchmark) -> list[RankingRow]:
    """:func:`winners` as rows of a file."""
    return [
        RankingRow(
            w.bandwidth_hz,
            w.policy,
            w.regret,
            " ".join(w.tied),
            float(w.lead.mean),
            float(w.lead.low),
            float(w.lead.high),
        )
        for w in winners(bench)
    ]


def summary(path: Path) -> str:
    """``benchmark.csv`` for a terminal: each policy over the sweep, least regret first, and how
    far the fitted allocator is ahead of it."""
    bench = Benchmark.read(path)
    against = {compared.rival: compared for compared in comparisons(bench)}
    rows = []
    for k in bench.by_regret():
        name = bench.policies[k]
        regret = spread(bench.regret[k].mean(axis=0))
        lead, score = "", ""
        if name in against:
            compared = against[name]
            lead = f"{_points(compared.lead.mean)} {_interval(compared.lead)}".rstrip()
            score = f"{compared.ahead}/{compared.even}/{compared.behind}"
        rows.append(
            (
                name,
                f"{100 * bench.judged[k].mean():.2f}",
                _points(regret.mean),
                _interval(regret),
                lead,
                score,
            )
        )
    header = ("policy", "mAP (%)", "regret", "", f"{FITTED} leads by", "ahead/even/behind")
    what = spread(bench.regret[0].mean(axis=0)).what
    return (
        f"{headroom(bench)}\n{plain_table(header, rows)}\n"
        f"points of mAP, mean over {len(bench.bandwidth_hz)} bandwidths; brackets: {what}"
    )


def headroom(bench: Benchmark) -> str:
    """What there is to win, in a sentence and a line for each bandwidth."""
    by_bandwidth = [bench.to_win(k) for k in range(len(bench.bandwidth_hz))]
    over_sweep = bench.to_win()
    lines = [
        f"  {hz:10.4g} Hz  {one.text:>14}" + (f"  {one.standing}" if one.standing else "")
        for hz, one in zip(bench.bandwidth_hz, by_bandwidth, strict=True)
    ]
    against = "the best split fixed in advance by the other seeds"
    if STATIC not in bench.policies:
        against = "the equal split (one seed: there is no other to fix a split by)"
    says = "" if over_sweep.claims else ": below two errors, so nothing is claimed"
    return "\n".join(
        [
            f"headroom: the oracle is {over_sweep.text} points ahead of {against}{says}",
            *lines,
            "errors: paired over seeds"
            + (
                "; not over evaluation frames, which the seeds share"
                if bench.headroom_draws is None
                else " and over evaluation frames (bootstrap)"
            ),
        ]
    )


def _points(value: object) -> str:
    rounded = round(100 * float(value), 2)  # type: ignore[arg-type]
    return f"{rounded + 0.0:.2f}"  # no -0.00


def _interval(spread_: Spread) -> str:
    return "" if spread_.seeds == 1 else f"[{_points(spread_.low)}, {_points(spread_.high)}]"
