"""Many devices on one band, on measured tables: the tables and figures of docs/results/fleet.md.

    python -m benchmarks.fleet demo coco-infrared --out docs/results/fleet

Half of the devices are of each table. Every scenario is also one ``endedge bench`` command, which
stands above its table. Seconds on one core; no PyTorch.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from endedge.lab.fleet.members import Member
from endedge.lab.fleet.planning import FleetPlan
from endedge.lab.fleet.score import Fleet, FleetScore, Settings, score_fleet
from endedge.lab.fleet.telling import as_csv, as_markdown, verdict
from endedge.lab.report.fleet_figures import draw_allocation, draw_score

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Scenario:
    """``each``: devices of every table; ``link``: what is changed of it."""

    name: str
    says: str
    each: int
    settings: Settings
    link: tuple[str, ...] = ()
    alike: bool = False

    def command(self, tables: Sequence[str]) -> str:
        words = [str(m) for m in self.members(tables)]
        quoted = [f"'{w}'" if "*" in w else w for w in words]
        s = self.settings
        options = [f"--devices {s.devices}"] if s.devices else []
        options += [f"--objective {s.objective}"] if s.objective != "mean" else []
        options += [f"--keep {s.keep:g}"] if s.keep else []
        return " ".join(["endedge bench", *quoted, *self.link, *options, "--markdown"])

    def members(self, tables: Sequence[str]) -> list[Member]:
        return [Member(t, self.each) for t in (tables[:1] if self.alike else tables)]


SCENARIOS = (
    Scenario("4", "four devices, every period another world", 2, Settings()),
    Scenario("20", "twenty devices", 10, Settings()),
    Scenario("20-keep-0.5", "half of a gain is left a period later", 10, Settings(keep=0.5)),
    Scenario("20-keep-0.9", "nine tenths are left", 10, Settings(keep=0.9)),
    Scenario("20-worst", "the worst device counts", 10, Settings("worst")),
    Scenario("20-fair", "proportional fairness", 10, Settings("fair")),
    Scenario("20-alike", "twenty devices of one table", 20, Settings(), alike=True),
    Scenario("20-trainer", "one edge, 10 s an update", 10, Settings(), ("link.edge_s=10",)),
    Scenario("1000", "a thousand drawn devices", 1, Settings(devices=1000)),
)


def kept(rounds: Path) -> tuple[float, float, int]:
    """Of an update's gain over the model that never changed, the share that is left when the next
    round begins: slope through the origin over all rounds of a loop, its standard error, rounds."""
    with rounds.open(newline="") as file:
        rows = list(csv.DictReader(file))
    idle = {
        (r["seed"], r["device"], r["round"]): float(r["map_before"])
        for r in rows
        if r["policy"] == "no-update"
    }
    had, left = [], []
    for policy in {r["policy"] for r in rows} - {"no-update"}:
        mine = {(r["seed"], r["device"], int(r["round"])): r for r in rows if r["policy"] == policy}
        for (seed, device, k), row in mine.items():
            following = mine.get((seed, device, k + 1))
            if following is not None and (seed, device, str(k + 1)) in idle:
                had.append(float(row["map_after"]) - idle[seed, device, str(k)])
                left.append(float(following["map_before"]) - idle[seed, device, str(k + 1)])
    x, y = np.array(had), np.array(left)
    slope = float((x * y).sum() / (x * x).sum())
    error = float(np.sqrt(((y - slope * x) ** 2).sum() / (len(x) - 1) / (x * x).sum()))
    return slope, error, len(x)


def best_of(score: FleetScore) -> str:
    """The band at which the auction is furthest ahead, in a row."""
    k = max(range(len(score.bandwidth_hz)), key=lambda b: score.won(b).mean)
    each = score.bandwidth_hz[k] / score.devices / 1e3
    cells = [score.won(k, ("equal", "turns")), score.won(k), score.won(), score.honest_headroom()]
    return " | ".join(
        [f"{each:.3g}", *(("**" + c.text + "**") if c.claims else c.text for c in cells)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", help="shipped tables or results folders")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="scenarios, A,B")
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    wanted = [s for s in SCENARIOS if not a.only or s.name in a.only.split(",")]
    names = " ".join(a.tables)
    lines = [
        "# Many devices on one band: every table",
        "",
        f"`python -m benchmarks.fleet {names} --out docs/results/fleet` wrote this page.",
        "What the columns say is told in [Many devices](../fleet.md).",
    ]
    rows, seconds = [], 0.0
    for scenario in wanted:
        began = time.process_time()
        fleet = Fleet.load(scenario.members(a.tables), scenario.link)
        score = score_fleet(fleet, scenario.settings)
        spent = time.process_time() - began
        seconds += spent
        (a.out / f"{scenario.name}.csv").write_text(as_csv(score))
        if scenario.name in ("4", "20", "1000"):
            draw_score(score, a.out / f"{scenario.name}.svg")
        lines += ["", f"## {scenario.says[0].upper()}{scenario.says[1:]}", ""]
        lines += [f"`{scenario.command(a.tables)}`: {verdict(score)}.", "", as_markdown(score)]
        rows.append(f"| {scenario.name}: {scenario.says} | {best_of(score)} |")
        print(f"{scenario.name}: {spent:.1f} s of processor time; {verdict(score)}", flush=True)
    head = "| fleet | best band, kHz a device | over plain slots | over the best fixed | "
    head += "over it, mean of the bands | by other seeds |"
    summary = [head, "| --- | --- | --- | --- | --- | --- |", *rows]
    loops = [ROOT / "docs/results/loop" / name for name in ("rounds.csv", "coco-rounds.csv")]
    for file in loops:
        slope, error, count = kept(file)
        summary.append(f"\n{file.name}: kept {slope:.2f} ± {error:.2f} of a gain, {count} rounds")
    began = time.process_time()
    members = [Member(t, 100_000 // len(a.tables)) for t in a.tables]
    plan = FleetPlan.of(members, {})
    shares = plan.allocate(100_000 * 2e4)
    draw_allocation(shares, a.out / "shares.svg")
    summary.append(
        f"\nallocate, {len(shares):,} devices with the picture: "
        f"{time.process_time() - began:.2f} s of processor time"
    )
    (a.out / "summary.txt").write_text("\n".join(summary) + "\n")
    (a.out / "tables.md").write_text("\n".join(lines) + "\n")
    print("\n".join(summary))


if __name__ == "__main__":
    main()
