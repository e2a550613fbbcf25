"""``endedge allocate``: a band split by fitted curves, for one device or for many."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from endedge.data.errors import BadInput
from endedge.data.units import parse_quantity
from endedge.lab.cli.numbers import whole

__all__ = ["allocate_band", "declare"]


def declare(verb: Callable[..., argparse.ArgumentParser]) -> None:
    """The verb's arguments."""
    sub = verb(
        "allocate",
        "split a bandwidth by fitted curves, for one device or among many",
        "endedge allocate runs/demo --bandwidth 20kHz\n"
        "  endedge allocate 'demo*3' 'coco-infrared*2@0.5' --bandwidth 300kHz --plot fleet.svg",
    )
    sub.add_argument(
        "where",
        nargs="+",
        help="results folder, whose config.yaml gives link, rules and limits, a curves.json, or a "
        "shipped table; several, with counts and weights ('demo*3@0.5'), share the band",
    )
    sub.add_argument("--bandwidth", required=True, help="Hz, e.g. 20000 or 20kHz")
    sub.add_argument("--period", help="seconds between two updates (default: the folder's, or 60)")
    sub.add_argument("--up", help="uplink bit/s/Hz (default: the folder's, or 2.55)")
    sub.add_argument("--down", help="downlink bit/s/Hz (default: the folder's, or 5)")
    sub.add_argument(
        "--schedule",
        choices=("pipelined", "sequential"),
        help="(default: the folder's, or pipelined)",
    )
    sub.add_argument("--edge-s", help="seconds of edge computing (default: the folder's, or 0)")
    sub.add_argument(
        "--trainers",
        type=whole(0),
        metavar="N",
        help="of many devices: edges that adapt one upload at a time (default 1; 0: no limit)",
    )
    sub.add_argument("--plot", metavar="FILE", help="of many devices: a picture (.svg, .pdf, .png)")
    sub.add_argument("--json", action="store_true", help="print JSON")


def allocate_band(a: argparse.Namespace) -> None:
    """``endedge allocate``."""
    from endedge.lab.fleet.members import are_several

    given = {
        "period_s": a.period,
        "up_bit_per_s_per_hz": a.up,
        "down_bit_per_s_per_hz": a.down,
        "schedule": a.schedule,
        "edge_s": a.edge_s,
    }
    changes = {name: v for name, v in given.items() if v is not None}
    bandwidth_hz = parse_quantity(a.bandwidth, "Hz")
    if are_several(a.where):
        _allocate_fleet(a, changes, bandwidth_hz)
        return
    if a.plot or a.trainers is not None:
        raise BadInput("--plot and --trainers are for several devices; name them: 'demo*2'")
    from endedge.lab.benchmark.planning import plan

    planned = plan(Path(a.where[0]), changes)
    found = planned.allocate(bandwidth_hz)
    if a.json:
        print(json.dumps({**found.record(), **planned.record()}, indent=1))
    else:
        print(f"{planned}\n{found}")


def _allocate_fleet(a: argparse.Namespace, changes: dict[str, str], bandwidth_hz: float) -> None:
    from endedge.lab.fleet.members import read_members
    from endedge.lab.fleet.planning import FleetPlan

    trainers = 1 if a.trainers is None else a.trainers
    found = FleetPlan.of(read_members(a.where), changes).allocate(bandwidth_hz, trainers or None)
    print(json.dumps(found.record(), indent=1) if a.json else found)
    if a.plot:
        from endedge.lab.report.fleet_figures import draw_allocation

        draw_allocation(found, Path(a.plot))
