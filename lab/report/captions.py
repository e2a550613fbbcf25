"""What a results folder says, in sentences: the headline and the takeaway of every figure.

Each sentence is worked out from the numbers, also when they are disappointing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from endedge.lab.benchmark.headroom import Contrast
from endedge.lab.benchmark.outcomes import HINDSIGHT, STATIC, Floats, Spread, spread
from endedge.lab.benchmark.ranking import clear
from endedge.lab.report.results import Results, Step
from endedge.lab.report.wording import counted, percent, points, quantity, share_of

__all__ = [
    "Headline",
    "changes",
    "classes",
    "contour",
    "costs",
    "data_curve",
    "examples",
    "families",
    "headline",
    "headroom",
    "latency",
    "model_curve",
    "policies",
    "regret",
    "returns",
    "rounds",
    "segments",
    "share",
    "surface",
]


@dataclass(frozen=True)
class Headline:
    """The answer at one bandwidth: where the difference from the equal split is largest and clear,
    else the middle one at which an update can be sent; ``why`` says which.

    All of it is of one decision, the fitted allocator's as it was executed: the bytes, what the
    curves ``predicted`` of them, and what was measured (``fitted``), in the judged quantity.
    ``gain`` is the paired difference to the equal split, ``over_sweep`` that averaged over all
    bandwidths at which an update can be sent, ``headroom`` what there was to win over the sweep.
    """

    bandwidth_hz: float
    upload_bytes: float
    update_bytes: float
    asked_bytes: tuple[float, float]
    predicted: float
    fitted: Spread
    gain: Spread
    over_sweep: Spread
    update_gain: Spread  # fitted, against no update
    headroom: Contrast
    why: str

    @property
    def rounded(self) -> bool:
        """Whether less was executed than was asked for (by more than the seeds' frames differ)."""
        done = self.upload_bytes, self.update_bytes
        return any(b < 0.98 * a for a, b in zip(self.asked_bytes, done, strict=True))

    @property
    def verdict(self) -> str:
        """The comparison with the equal split in words that the interval allows."""
        return _compared(self.gain, "the equal split")


def _compared(gain: Spread, with_what: str) -> str:
    mean, low, high = float(gain.mean), float(gain.low), float(gain.high)
    if abs(mean) < 5e-4:
        return f"the same as {with_what}"
    words = f"{points(abs(mean)).removeprefix('+')} {'better' if mean > 0 else 'worse'}"
    if gain.seeds == 1:
        return f"{words} than {with_what} (one seed)"
    if not (low > 0 or high < 0):
        return f"{words} than {with_what} (within seed noise)"
    return f"{words} than {with_what}" + (" (in both seeds)" if gain.seeds == 2 else "")


def headline(results: Results) -> Headline | None:
    """None when no measured round fits anywhere in the sweep."""
    bench = results.benchmark
    fitting = np.flatnonzero(bench.updates)
    if len(fitting) == 0:
        return None
    row = bench.of("fitted")
    fitted, equal = bench.judged[row], bench.judged[bench.of("equal")]
    at, why = _telling(fitted[fitting] - equal[fitting])
    at = int(fitting[at])
    bandwidth = float(bench.bandwidth_hz[at])
    before = bench.judged[bench.of("no-update")]
    return Headline(
        bandwidth_hz=bandwidth,
        upload_bytes=float(bench.upload_bytes[row, at].mean()),
        update_bytes=float(bench.update_bytes[row, at].mean()),
        asked_bytes=(
            float(bench.asked_upload_bytes[row, at].mean()),
            float(bench.asked_update_bytes[row, at].mean()),
        ),
        predicted=float(results.predicted[0][at]),
        fitted=spread(fitted[at]),
        gain=spread(fitted[at] - equal[at]),
        over_sweep=spread((fitted - equal)[fitting].mean(axis=0)),
        update_gain=spread(fitted[at] - before[at]),
        headroom=bench.to_win(fitting),
        why=why,
    )


def _telling(gains: Floats) -> tuple[int, str]:
    """The row of differences (bandwidths, seeds) that says most, and why it was taken."""
    each = [spread(row) for row in gains]
    sure = [k for k, gain in enumerate(each) if clear(gain)]
    if not sure:
        return len(each) // 2, (
            "This is the middle of the bandwidths at which an update can be sent: at none does "
            "the difference from the equal split stand out of the noise."
        )
    best = max(sure, key=lambda k: abs(float(each[k].mean)))
    return best, (
        "Of the bandwidths of the sweep this is the one at which the difference from the equal "
        "split is largest and clear; the mean over the sweep stands beside it."
    )


def headroom(results: Results) -> str:
    """What there is to win, or that there is nothing."""
    bench = results.benchmark
    fitting = np.flatnonzero(bench.updates)
    found = [bench.to_win(k) for k in fitting]
    over = bench.to_win(fitting)
    at = [
        quantity(bench.bandwidth_hz[k], "Hz")
        for k, c in zip(fitting, found, strict=True)
        if c.claims
    ]
    said = f"{over.text}\u00a0points over the bandwidths at which an update can be sent"
    if not at:
        none = all(c.standing == "nothing to gain" for c in (*found, over))
        what = "Nothing to gain here" if none else "Nothing to gain that can be claimed"
        return f"{what} over a split fixed in advance ({said})"
    return f"There is something to win at {', '.join(at)}: {said}"


def surface(results: Results) -> str:
    """The best measured operating point against m0."""
    points_ = results.surface.points()
    best = points_.point(int(np.argmax(points_.map)))
    top, m0 = float(points_.map.max()), results.curves.m0
    where = f"{best.frames:,} frames up and {quantity(best.update_bytes, 'B')} of model down"
    if top <= m0:
        return f"No measured round beats the {percent(m0)} mAP before any update"
    return f"From {percent(m0)} mAP before any update to {percent(top)} with {where}"


def contour(results: Results) -> str:
    """Where the path of best splits begins and ends."""
    sending = results.sending
    if not sending:
        return "No update pays off on this link"
    first, last = sending[0], sending[-1]
    return (
        f"The best split climbs from {quantity(first.upload_bytes, 'B')} up and "
        f"{quantity(first.update_bytes, 'B')} down to {quantity(last.upload_bytes, 'B')} and "
        f"{quantity(last.update_bytes, 'B')} as the link widens"
    )


def data_curve(results: Results) -> str:
    """What frames bring at the largest model budget."""
    found = results.rounds
    first, last = found[0], found[-1]
    low, high = float(first.student.mean()), float(last.student.mean())
    text = (
        f"{first.frames:,} → {last.frames:,} frames take the full model from {percent(low)} "
        f"to {percent(high)} mAP"
    )
    m0 = results.curves.m0
    if low < m0 - 5e-4:
        text += f"; the smallest upload does harm (m0 is {percent(m0)})"
    elif len(found) > 2:
        text += f"; the last step brings {points(high - float(found[-2].student.mean()))}"
    return text


def model_curve(results: Results) -> str:
    """The package that keeps 90 % of the gain at all the frames."""
    curves = results.curves
    sizes = results.sizes("model", 400)
    gain = curves.predict(*results.along("model", sizes)) - curves.m0
    if gain[-1] <= 5e-4:
        return "No package size improves on the model before any update"
    enough = float(sizes[np.argmax(gain >= 0.9 * gain[-1])])
    most = quantity(curves.update_range.high, "B")
    return f"A package of {quantity(enough, 'B')} keeps {share_of(0.9)} of what {most} bring"


def families(results: Results) -> str:
    """Which curves predict cells that they have not seen, and whether a family is needed."""
    curves = results.curves
    best = curves.chosen
    error, reference = best.held_out, curves.reference_held_out
    family, free = (
        f"{best.kind} {_gap(error)}",
        f"a monotone fit without a family {_gap(reference)}",
    )
    first, second = (family, free) if error <= reference else (free, family)
    return f"Held-out cells are predicted best by {first} off; {second}"


def share(results: Results) -> str:
    """How the uplink's share of the bandwidth moves along the sweep, until everything fits."""
    sending = results.sending
    if not sending:
        return "Nothing is sent at any bandwidth of the sweep"
    scarce = [s for s in sending if s.regime != "saturated"]
    if not scarce:
        return f"Everything fits from {_hz(sending[0])} on"
    shares = np.array([s.uplink_share for s in scarce])
    shown = {0: "", len(scarce) - 1: ""}
    for at, word in ((int(shares.argmin()), " (least)"), (int(shares.argmax()), " (most)")):
        if at not in shown and min(abs(shares[at] - shares[[0, -1]])) > 0.02:
            shown[at] = word
    parts = [f"{share_of(shares[k])} at {_hz(scarce[k])}{shown[k]}" for k in sorted(shown)]
    fits = [s for s in sending if s.regime == "saturated"]
    end = f"; from {_hz(fits[0])} on everything fits" if fits else ""
    return f"Frames take {', '.join(parts[:-1])}{' and ' if parts[:-1] else ''}{parts[-1]}{end}"


def segments(steps: Sequence[Step]) -> list[tuple[str, float, float]]:
    """Runs of one regime along a sweep: (regime, from Hz, to Hz), meeting halfway."""
    runs: list[tuple[str, float, float]] = []
    for before, step in zip((None, *steps), steps, strict=False):
        if before is not None and before.regime == step.regime:
            runs[-1] = (step.regime, runs[-1][1], step.bandwidth_hz)
            continue
        start = step.bandwidth_hz
        if before is not None:
            start = math.sqrt(before.bandwidth_hz * start)
            runs[-1] = (before.regime, runs[-1][1], start)
        runs.append((step.regime, start, step.bandwidth_hz))
    return runs


def _hz(step: Step) -> str:
    return quantity(step.bandwidth_hz, "Hz")


def policies(results: Results) -> str:
    """The fitted allocator against the oracle and the best of the other honest policies."""
    bench = results.benchmark
    gaps: Floats = bench.regret.mean(axis=(1, 2))
    fitted = bench.of("fitted")
    side = "ahead of" if gaps[fitted] < -5e-5 else "behind"
    text = f"On average the fitted allocator is {_gap(abs(gaps[fitted]))} {side} the oracle"
    others = [k for k in bench.by_regret() if k != fitted and bench.policies[k] not in HINDSIGHT]
    if not others:
        return text
    best = others[0]
    name = bench.policies[best]
    relation = f"{name} is better" if gaps[best] < gaps[fitted] - 5e-5 else f"next comes {name}"
    side = "ahead" if gaps[best] < -5e-5 else "behind"
    return f"{text}; {relation} ({_gap(abs(gaps[best]))} {side})"


def _gap(value: float) -> str:
    return f"{100 * value:.2f}\u00a0points"


def returns(results: Results) -> str:
    """What twice the bandwidth buys, by the curves and the decisions that were executed."""
    bench = results.benchmark
    fitting = np.flatnonzero(bench.updates)
    if len(fitting) < 2:
        return "More bandwidth changes nothing in this sweep"
    sweep, predicted = bench.bandwidth_hz[fitting], results.predicted[0][fitting]
    logs = np.log(sweep)
    doubled = np.interp(logs + math.log(2), logs, predicted) - predicted
    inside = logs + math.log(2) <= logs[-1] + 1e-9
    if not inside.any():
        return f"The whole sweep is worth {points(predicted[-1] - predicted[0])}"
    k = int(np.where(inside, doubled, -np.inf).argmax())
    text = f"Twice the bandwidth brings most at {quantity(sweep[k], 'Hz')}: {points(doubled[k])}"
    last = int(np.flatnonzero(inside)[-1])
    if last == k:
        return text
    return f"{text}; at {quantity(sweep[last], 'Hz')} {points(doubled[last])}"


def costs(results: Results) -> str:
    """What a day of updates takes and brings, in the middle of the sweep."""
    found = results.costs
    if not found:
        return "No update is sent, so nothing is paid and nothing gained"
    c = found[len(found) // 2]
    a_day = 86400 / results.channel.period_s
    both = quantity((c.upload_bytes + c.update_bytes) * a_day, "B")
    return (
        f"At {quantity(c.bandwidth_hz, 'Hz')} a day takes {both} of traffic and brings "
        f"{points(float(c.gain.mean))}"
    )


def regret(results: Results) -> str:
    """Who loses most, and where."""
    bench = results.benchmark
    mean = bench.regret.mean(axis=2)
    rows = [k for k, name in enumerate(bench.policies) if name not in ("no-update", STATIC)]
    worst = max(rows, key=lambda k: float(mean[k].max()))
    at = int(mean[worst].argmax())
    fitted = mean[bench.of("fitted")]
    return (
        f"At worst, the fitted allocator gives away {_gap(fitted.max())} "
        f"({quantity(bench.bandwidth_hz[int(fitted.argmax())], 'Hz')}), "
        f"{bench.policies[worst]} {_gap(mean[worst, at])} "
        f"({quantity(bench.bandwidth_hz[at], 'Hz')})"
    )


def examples(seen: Mapping[str, Any]) -> str:
    """How many objects of the frames shown are found, before and after."""
    objects = sum(len(frame["objects"]) for frame in seen["frames"])
    before, after = (
        sum(bool(one["right"]) for frame in seen["frames"] for one in frame[when])
        for when in ("before", "after")
    )
    n = len(seen["frames"])
    frames = f"{n} frame{'s' * (n != 1)}"
    return f"On {frames}, {before} of {objects} objects are found before, {after} after"


def rounds(results: Results) -> str:
    """How much of the teacher's lead reaches the device."""
    last = results.rounds[-1]
    student, m0 = float(last.student.mean()), float(last.m0.mean())
    text = (
        f"With {last.frames:,} frames the device goes from {percent(m0)} to {percent(student)} mAP"
    )
    teacher = float(last.teacher.mean())
    return (
        text if math.isnan(teacher) else f"{text}; the adapted teacher reaches {percent(teacher)}"
    )


def classes(results: Results) -> str:
    """How many classes gain and lose, and which most."""
    found = results.classes
    if not found:
        return ""
    best, worst = found[0], found[-1]
    better = sum(float(c.change.mean) > 5e-4 for c in found)
    worse = sum(float(c.change.mean) < -5e-4 for c in found)
    text = f"{better} of {len(found)} classes gain, {worse} lose"
    if better:
        text += f"; most {best.name} ({points(float(best.change.mean))})"
    if worse:
        text += f"; {worst.name} loses most ({points(float(worst.change.mean))})"
    return text


def latency(results: Results) -> str:
    """The fastest engine."""
    if not results.latencies:
        return ""
    fastest = min(results.latencies, key=lambda r: r.latency_s)
    return f"{fastest.runtime} is the fastest engine: {1 / fastest.latency_s:.1f} frames/s"


def changes(seen: Mapping[str, Any]) -> str:
    """How many objects and false alarms the update adds and takes away."""
    total = {
        kind: sum(int(c[kind]) for c in seen.get("counts", ()))
        for kind in ("gained", "lost", "alarm", "calmed")
    }
    return (
        f"The update finds {counted(total['gained'], 'object')} more and loses {total['lost']}; "
        f"{counted(total['alarm'], 'false alarm')} are new, {total['calmed']} are gone"
    )
