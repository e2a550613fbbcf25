"""``endedge bench``: policies on measured surfaces, for one device or for many on one band."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from endedge.data.errors import BadInput
from endedge.data.units import parse_quantity
from endedge.lab.cli.numbers import share, whole

__all__ = ["bench_tables", "declare"]

_FLEET = (  # options that only make sense with several devices, and their defaults
    ("devices", None),
    ("trials", None),
    ("objective", "mean"),
    ("turns", 8),
    ("keep", 0.0),
    ("trainers", 1),
    ("bandwidth", None),
    ("csv", None),
    ("plot", None),
)


def declare(verb: Callable[..., argparse.ArgumentParser]) -> None:
    """The verb's arguments."""
    sub = verb(
        "bench",
        "score policies on a measured surface, or rules for many devices on one band",
        "endedge bench demo --policy my_policy.py\n"
        "  endedge bench runs/demo link.period_s=30\n"
        "  endedge bench 'demo*2' 'coco-infrared*2' --all\n"
        "  endedge bench demo coco-infrared --devices 1000 --keep 0.5 --plot fleet.svg",
    )
    sub.add_argument(
        "dir",
        metavar="NAME|DIR",
        help="a shipped table (demo, coco-infrared) or a results folder, which without --all, "
        "--markdown and --json is benchmarked into its files; several, with counts and weights "
        "('demo*3@0.5'), are devices that share one band",
    )
    sub.add_argument(
        "overrides",
        nargs="*",
        metavar="NAME|DIR|key=value",
        help="more devices; or override a key of the configuration",
    )
    sub.add_argument(
        "--policy",
        action="append",
        default=[],
        metavar="FILE.py",
        help="your own policies: a file that registers them (it is executed)",
    )
    sub.add_argument("--all", action="store_true", help="every bandwidth of every policy shown")
    sub.add_argument("--markdown", action="store_true", help="rows for docs/benchmark.md")
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub.add_argument(
        "--exact",
        action="store_true",
        help="train and pack what the policies decide, instead of taking the measured round "
        "below it; resumes (as benchmark.execute=exact)",
    )
    many = sub.add_argument_group("many devices")
    many.add_argument(
        "--devices", type=whole(2, 100_000), metavar="K", help="draw K devices from the tables"
    )
    many.add_argument(
        "--trials", type=whole(1, 1000), metavar="N", help="fleets (default: seeds; drawn: 3)"
    )
    many.add_argument(
        "--objective",
        choices=("mean", "worst", "fair"),
        default="mean",
        metavar="WHAT",
        help="what is made greatest: mean mAP (default), that of the worst device, or fair "
        "(proportionally: the geometric mean)",
    )
    many.add_argument(
        "--turns",
        type=whole(1, 64),
        default=8,
        metavar="N",
        help="longest time between two updates of a device, in periods: 1, 2, 4, 8 (default), …",
    )
    many.add_argument(
        "--keep",
        type=_zero_to_one,
        default=0.0,
        metavar="SHARE",
        help="of an update's gain, what is left a period later (default 0: every period is new)",
    )
    many.add_argument(
        "--trainers",
        type=whole(0),
        default=1,
        metavar="N",
        help="edges that adapt one upload at a time for link.edge_s (default 1; 0: no limit)",
    )
    many.add_argument(
        "--bandwidth",
        action="append",
        metavar="HZ",
        help="of the whole band, e.g. 400kHz; repeatable (default: 8 that matter)",
    )
    many.add_argument("--csv", metavar="FILE", help="every band and policy into a CSV file")
    many.add_argument("--plot", metavar="FILE", help="gains over the bandwidth (.svg, .pdf, .png)")


def bench_tables(a: argparse.Namespace) -> None:
    """``endedge bench``."""
    from endedge.allocator.policies import from_file
    from endedge.lab.fleet.members import are_several

    more = [word for word in a.overrides if "=" not in word]
    mine = [name for file in a.policy for name in from_file(Path(file))]
    if are_several([a.dir, *more]) or a.devices is not None:
        changes = [word for word in a.overrides if "=" in word]
        _bench_fleet(a, [a.dir, *more], changes, mine)
        return
    for name, default in _FLEET:
        if getattr(a, name) != default:
            raise BadInput(f"--{name} is for several devices; name them: 'demo*2' coco-infrared")
    _bench_one(a, mine)


def _bench_one(a: argparse.Namespace, mine: list[str]) -> None:
    from endedge.lab.benchmark.score import score
    from endedge.lab.benchmark.table import Table
    from endedge.lab.benchmark.telling import as_markdown, as_record, as_text

    if a.exact or (Path(a.dir).is_dir() and not (a.all or a.json or a.markdown)):
        from endedge.lab.benchmark.ranking import summary
        from endedge.lab.benchmark.stage import bench_folder, replanned

        folder, exact = Path(a.dir), a.exact
        with _progress() as progress:
            config = replanned(folder, a.overrides)
            if exact or config.benchmark.execute == "exact":
                from endedge.lab import pipeline  # PyTorch: rounds are trained

                pipeline.bench_stage(folder, progress, exact=exact)
            else:
                bench_folder(folder, config, progress)
        print(summary(folder / "benchmark.csv"))
        return
    found = score(Table.load(a.dir, a.overrides), [] if a.all or not mine else mine)
    if a.json:
        print(json.dumps(as_record(found), indent=1))
    elif a.markdown:
        print(as_markdown(found, mine or found.policies))
    else:
        print(as_text(found, mine, a.all))


def _bench_fleet(
    a: argparse.Namespace, words: list[str], changes: list[str], mine: list[str]
) -> None:
    from endedge.data.storage import write_atomic
    from endedge.lab.fleet.members import read_members
    from endedge.lab.fleet.score import Fleet, Settings, score_fleet
    from endedge.lab.fleet.telling import as_csv, as_markdown, as_record, as_text

    if a.exact:
        raise BadInput("--exact is for one device; many are judged on measured rounds")
    settings = Settings(a.objective, a.turns, a.keep, a.trainers or None, a.devices, a.trials)
    bands = [parse_quantity(text, "Hz") for text in a.bandwidth or ()]
    if not all(hz > 0 for hz in bands):
        raise BadInput("--bandwidth must be > 0 Hz")
    fleet = Fleet.load(read_members(words), changes)
    with _progress() as progress:
        found = score_fleet(fleet, settings, bands, mine, progress)
    if a.json:
        print(json.dumps(as_record(found), indent=1))
    elif a.markdown:
        print(as_markdown(found))
    else:
        print(as_text(found, a.all))
    if a.csv:
        write_atomic(Path(a.csv), as_csv(found).encode())
    if a.plot:
        from endedge.lab.report.fleet_figures import draw_score

        draw_score(found, Path(a.plot))


def _zero_to_one(text: str) -> float:
    return 0.0 if text in ("0", "0.0") else share(text)


def _progress() -> Any:
    from endedge.lab.cli.progress import Progress

    return Progress()
