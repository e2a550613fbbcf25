"""What a closed loop leaves behind: rounds.csv, summary.csv, config.yaml, loop.svg."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from endedge.allocator.csv_files import dicts_csv
from endedge.allocator.policies import from_file
from endedge.data.storage import write_atomic
from endedge.lab.benchmark.outcomes import spread
from endedge.lab.config import Config, loop_of
from endedge.lab.loop.loop import run
from endedge.lab.report.plotting import drawn
from endedge.lab.report.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    LIGHT,
    ORANGE,
    PINK,
    RED,
    SKY,
    Style,
    style,
)
from endedge.lab.sweep.precision import settled_here

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["backward_transfer", "loop_stage", "picture", "summarize"]

Row = Mapping[str, Any]


def loop_stage(
    config: Config,
    folder: Path,
    prior: str | None,
    progress: Callable[[int, int, str], None],
    files: Sequence[Path] = (),
) -> str:
    """Play the loop of ``config`` in ``folder`` and write its files; returns the summary as text.
    ``prior``: results folder of an earlier run; None: what the configuration says. The policies
    that ``files`` register play too."""
    loop = loop_of(config)
    own = [name for file in files for name in from_file(file) if name not in loop.policies]
    loop = loop.model_copy(update={"policies": (*loop.policies, *own)})
    config, prior = config.model_copy(update={"loop": loop}), prior or loop.prior
    config = settled_here(config, folder)
    rows = run(
        config,
        folder,
        progress,
        Path(prior) if prior else None,
        files,
        lambda so_far: _write(config, folder, so_far),
    )
    return _table(summarize(rows)) + f"\npicture: {folder / 'loop.svg'}"


def _write(config: Config, folder: Path, rows: Sequence[Row]) -> None:
    """The files of what has been played so far: a policy that fails takes no other with it."""
    summary = summarize(rows)
    write_atomic(folder / "config.yaml", config.to_yaml().encode())
    write_atomic(folder / "rounds.csv", dicts_csv(rows).encode())
    write_atomic(folder / "summary.csv", dicts_csv(summary).encode())
    write_atomic(folder / "loop.svg", drawn(lambda: picture(rows, summary, config), "svg"))


def summarize(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One row a policy, best first. ``map``: average over time, devices and seeds, with its
    ``low`` and ``high`` over seeds; ``transfer``: :func:`backward_transfer`; bytes of all
    devices and rounds, mean of the seeds; ``edge_seconds``, ``device_seconds`` measured a round;
    ``exposed``: share of what had to be blurred that left the device unblurred."""
    out = []
    for policy in dict.fromkeys(r["policy"] for r in rows):
        mine = [r for r in rows if r["policy"] == policy]
        seeds = sorted({r["seed"] for r in mine})
        means = spread([np.mean([r["map"] for r in mine if r["seed"] == s]) for s in seeds])
        moved = [t for s in seeds for t in backward_transfer([r for r in mine if r["seed"] == s])]
        identifiable = sum(r["identifiable"] for r in mine)
        out.append(
            {
                "policy": policy,
                "map": float(means.mean),
                "low": float(means.low),
                "high": float(means.high),
                "seeds": len(seeds),
                "last_map": float(
                    np.mean(
                        [
                            r["map_after"]
                            for r in mine
                            if r["round"] == max(q["round"] for q in mine)
                        ]
                    )
                ),
                "transfer": float(np.mean(moved)) if moved else float("nan"),
                "upload_bytes": sum(r["upload_bytes"] for r in mine) / len(seeds),
                "update_bytes": sum(r["update_bytes"] * r["sent"] for r in mine) / len(seeds),
                "sent": sum(r["sent"] for r in mine),
                "applied": sum(r["applied"] for r in mine),
                "rounds": len(mine),
                "edge_seconds": float(np.mean([r["edge_seconds"] for r in mine])),
                "device_seconds": float(np.mean([r["device_seconds"] for r in mine])),
                "exposed": sum(r["exposed"] for r in mine) / identifiable if identifiable else 0.0,
            }
        )
    return sorted(out, key=lambda s: -s["map"])


def backward_transfer(rows: Sequence[Row]) -> list[float]:
    """For every return to a domain: mAP there before anything new was learned, less mAP at the
    end of the last visit. Negative: it was forgotten meanwhile (D. Lopez-Paz, M. Ranzato,
    *Gradient Episodic Memory*, NeurIPS 2017). ``rows`` of one policy and seed."""
    moved = []
    last: dict[tuple[int, str], float] = {}
    for row in sorted(rows, key=lambda r: r["round"]):
        place = (row["device"], row["domain"])
        if row["returned"] and place in last:
            moved.append(row["map_before"] - last[place])
        last[place] = row["map_after"]
    return moved


# Picture --------------------------------------------------------------------------------------

_LOOKS = {
    "adaptive": Style(RED, "solid", "-", 1.8),
    "equal": Style(BLUE, "solid", "-", 1.1),
    "data-only": Style(SKY, "dot", ":", 1.3),
    "model-only": Style(ORANGE, "dot", ":", 1.3),
    "no-update": Style(GREY, "dash", "--", 1.1),
    "federated": Style(GREEN, "dashdot", "-.", 1.2),
    "redacted": Style(PINK, "dashdot", "-.", 1.2),
}
_STATIC = {"6": ":", "7": "-.", "8": "-", "9": "--"}  # strokes by the first digit of the share


def _look(policy: str) -> Style:
    kind = "redacted" if policy.endswith("+redacted") else policy
    if kind.startswith("static-0."):
        return Style(BLACK, "solid", _STATIC.get(kind[9], "--"), 0.8)
    kind = "federated" if kind.startswith("federated") else kind
    return _LOOKS.get(kind) or style(kind)


def picture(rows: Sequence[Row], summary: Sequence[Row], config: Config) -> Figure:
    """mAP over time, one line a policy and one panel a device, its domains above; and mAP against
    the bytes that crossed the link."""
    from matplotlib.figure import Figure

    devices = sorted({r["device"] for r in rows})
    figure = Figure(figsize=(7.16, 1.9 * len(devices) + 2.6))
    panels = list(figure.subplots(len(devices) + 1, 1, squeeze=False)[:, 0])
    for axes, device in zip(panels, devices, strict=False):
        _over_time(axes, [r for r in rows if r["device"] == device], config)
        axes.set_ylabel("mAP50-95 (%)")
        axes.set_title(f"device {device + 1}", loc="left", pad=14)
    panels[len(devices) - 1].set_xlabel("time (min)")
    _against_bytes(panels[-1], summary)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5)
    return figure


def _over_time(axes: Axes, rows: Sequence[Row], config: Config) -> None:
    minutes = config.link.period_s / 60
    for policy in dict.fromkeys(r["policy"] for r in rows):
        mine = [r for r in rows if r["policy"] == policy]
        rounds = sorted({r["round"] for r in mine})
        y = [100 * np.mean([r["map"] for r in mine if r["round"] == k]) for k in rounds]
        look = _look(policy)
        axes.plot(
            [minutes * (k + 0.5) for k in rounds],
            y,
            look.stroke,
            color=look.colour,
            lw=look.width,
            label=policy,
            marker="o",
            markersize=1.8,
        )
    domains = {r["round"]: r["domain"] for r in rows}
    starts = [k for k in domains if domains.get(k - 1) != domains[k]]
    for i, k in enumerate(starts):
        end = starts[i + 1] if i + 1 < len(starts) else max(domains) + 1
        axes.axvspan(minutes * k, minutes * end, color=LIGHT, alpha=0.45 * (i % 2), lw=0)
        axes.text(
            minutes * (k + end) / 2,
            1.02,
            domains[k],
            ha="center",
            fontsize=7,
            color=GREY,
            transform=axes.get_xaxis_transform(),
        )
    axes.set_xlim(minutes * min(domains), minutes * (max(domains) + 1))


def _against_bytes(axes: Axes, summary: Sequence[Row]) -> None:
    for s in summary:
        look = _look(s["policy"])
        total = (s["upload_bytes"] + s["update_bytes"]) / 1e6
        error = [[100 * (s["map"] - s["low"])], [100 * (s["high"] - s["map"])]]
        axes.errorbar(
            [total],
            [100 * s["map"]],
            yerr=None if np.isnan(error).any() else error,
            fmt="o",
            color=look.colour,
            markersize=4,
            capsize=2,
            lw=0.8,
        )
        axes.annotate(
            s["policy"],
            (total, 100 * s["map"]),
            xytext=(4, 3),
            fontsize=6,
            textcoords="offset points",
        )
    axes.set_xlabel("bytes on the link, both ways, all devices (MB)")
    axes.set_ylabel("mAP, average over time (%)")
    axes.margins(x=0.12, y=0.15)


# Text -----------------------------------------------------------------------------------------


def _table(summary: Sequence[Row]) -> str:
    heads = ("policy", "mAP %", "last %", "return", "up MB", "down MB", "updates", "edge s")
    lines = ["{:22} {:>6} {:>6} {:>7} {:>7} {:>8} {:>9} {:>7}".format(*heads)]
    for s in summary:
        updates = f"{s['applied']}/{s['rounds']}"
        lines.append(
            f"{s['policy']:22} {100 * s['map']:6.2f} {100 * s['last_map']:6.2f} "
            f"{_returned(s['transfer'])} {s['upload_bytes'] / 1e6:7.2f} "
            f"{s['update_bytes'] / 1e6:8.3f} {updates:>9} {s['edge_seconds']:7.1f}"
        )
    return "\n".join(lines)


def _returned(transfer: float) -> str:
    """A dash where no domain came back."""
    return f"{'–':>7}" if math.isnan(transfer) else f"{100 * transfer:+7.2f}"
