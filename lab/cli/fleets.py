"""Many devices on one band: what ``endedge bench`` and ``allocate`` do for several."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from endedge.data.errors import BadInput
from endedge.data.units import parse_quantity
from endedge.lab.cli.common import progress_bar
from endedge.lab.cli.numbers import share, whole

__all__ = [
    "add_bench_options",
    "add_share_options",
    "allocate_several",
    "bench_several",
    "refuse_bench_options",
    "refuse_share_options",
]

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


def add_bench_options(sub: argparse.ArgumentParser) -> None:
    """Arguments of ``bench``."""
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


def refuse_bench_options(a: argparse.Namespace) -> None:
    """Raises :class:`BadInput` where one device is given what is for several."""
    for name, default in _FLEET:
        if getattr(a, name) != default:
            raise BadInput(f"--{name} is for several devices; name them: 'demo*2' coco-infrared")


def bench_several(
    a: argparse.Namespace, words: Sequence[str], changes: Sequence[str], mine: Sequence[str]
) -> None:
    """``endedge bench A B …``."""
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
    with progress_bar() as progress:
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


def add_share_options(sub: argparse.ArgumentParser) -> None:
    """Arguments of ``allocate``."""
    sub.add_argument(
        "--trainers",
        type=whole(0),
        metavar="N",
        help="of many devices: edges that adapt one upload at a time (default 1; 0: no limit)",
    )
    sub.add_argument("--plot", metavar="FILE", help="of many devices: a picture (.svg, .pdf, .png)")


def refuse_share_options(a: argparse.Namespace) -> None:
    """As :func:`refuse_bench_options`."""
    if a.plot or a.trainers is not None:
        raise BadInput("--plot and --trainers are for several devices; name them: 'demo*2'")


def allocate_several(
    a: argparse.Namespace, changes: Mapping[str, str], bandwidth_hz: float
) -> None:
    """``endedge allocate A B …``."""
    from endedge.lab.fleet.members import read_members
    from endedge.lab.fleet.planning import FleetPlan

    trainers = 1 if a.trainers is None else a.trainers
    found = FleetPlan.of(read_members(a.where), changes).allocate(bandwidth_hz, trainers or None)
    print(json.dumps(found.record(), indent=1) if a.json else found)
    if a.plot:
        from endedge.lab.report.fleet_figures import draw_allocation

        draw_allocation(found, Path(a.plot))
