"""``endedge replay TABLE``: policies over many simulated days on measured tables."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from endedge.data.errors import BadInput
from endedge.lab.cli.arguments import Verb, add_json, add_policies
from endedge.lab.cli.common import progress_bar
from endedge.lab.cli.numbers import whole

__all__ = ["declare"]


def declare(verb: Verb) -> None:
    """Add the verb."""
    sub = verb(
        "replay",
        replay_tables,
        "play policies through many simulated days on a measured table, without training",
        "endedge replay demo link.schedule=sequential link.edge_s=5 --trace endedge:traces/tunnel\n"
        "  endedge replay demo --policy mine.py --play mine,thief --days 50 --json\n"
        "  endedge replay runs/night runs/day --trace driving.up",
    )
    sub.add_argument(
        "tables",
        nargs="+",
        metavar="NAME|DIR|key=value",
        help="shipped tables or results folders: a day moves between several (which must share "
        "operating points); of one, between places like it. key=value of the link",
    )
    add_policies(sub)
    sub.add_argument("--play", metavar="NAMES", help="policies (default adaptive,equal,no-update)")
    sub.add_argument("--days", type=whole(2), default=200, help="of each condition (default 200)")
    sub.add_argument("--rounds", type=whole(2), default=24, help="of a day (default 24)")
    sub.add_argument(
        "--dwell",
        default="6-10",
        metavar="LEAST-MOST",
        help="periods of a visit to a place (default 6-10)",
    )
    sub.add_argument(
        "--trace",
        action="append",
        default=[],
        metavar="FILE",
        help="bandwidth as in a Mahimahi trace (endedge:traces/tunnel ships), beside constant and "
        "walk; repeatable",
    )
    sub.add_argument(
        "--periods",
        type=whole(1, 24),
        default=1,
        help="that a package may travel (default 1; sequential schedule)",
    )
    sub.add_argument("--recalls", action="store_true", help="the device keeps its last models")
    add_json(sub)
    sub.set_defaults(words="tables")


def replay_tables(a: argparse.Namespace) -> None:
    """``endedge replay``."""
    from endedge.allocator.policies import from_file
    from endedge.configs import file_of
    from endedge.lab.benchmark.table import Table
    from endedge.lab.replays.compare import as_record, as_text, replay
    from endedge.lab.replays.days import BANDS, levels_of
    from endedge.lab.replays.play import Setting
    from endedge.lab.replays.worlds import Ground

    mine = [name for file in a.policy for name in from_file(Path(file))]
    changes = [word for word in a.tables if "=" in word and not Path(word).is_dir()]
    places = [word for word in a.tables if word not in changes]
    if not places:
        raise BadInput("name a shipped table or a results folder to replay")
    if len(set(places)) != len(places):
        raise BadInput("a table is named twice")
    ground = Ground.of([Table.load(place, changes) for place in places])
    if a.periods > 1 and ground.rules.schedule != "sequential":
        raise BadInput("--periods needs link.schedule=sequential: a pipeline carries one a period")
    names = [*(a.play.split(",") if a.play else ("adaptive", "equal", "no-update")), *mine]
    bands = {band: band for band in BANDS}
    traces = {Path(t).name: levels_of(file_of(t), ground.link.period_s) for t in a.trace}
    with progress_bar() as say:
        found = replay(
            ground,
            names,
            days=a.days,
            rounds=a.rounds,
            dwell=_dwell(a.dwell),
            bands={**bands, **traces},
            setting=Setting(a.periods, a.recalls),
            say=say,
        )
    print(json.dumps(as_record(found), indent=1) if a.json else as_text(found))


def _dwell(text: str) -> tuple[int, int]:
    least, dash, most = text.partition("-")
    if not (least.isdigit() and (most.isdigit() or not dash)):
        raise BadInput(f"--dwell {text!r} is not LEAST-MOST, e.g. 6-10")
    found = int(least), int(most or least)
    if not 1 <= found[0] <= found[1]:
        raise BadInput(f"--dwell {text!r}: give 1 or more periods, the least first")
    return found
