"""``endedge bench``, ``report``, ``allocate``: what comes of the measurements."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from endedge.data.errors import BadInput
from endedge.data.units import parse_quantity
from endedge.lab.cli import fleets
from endedge.lab.cli.arguments import Verb, add_json, add_policies
from endedge.lab.cli.common import headline, progress_bar

__all__ = ["declare"]


def declare(verb: Verb) -> None:
    """The verbs' arguments."""
    sub = verb(
        "bench",
        _bench,
        "score policies on a measured surface, or rules for many devices on one band",
        "endedge bench demo --policy my_policy.py\n"
        "  endedge bench runs/demo link.period_s=30\n"
        "  endedge bench 'demo*2' 'coco-infrared*2' --all\n"
        "  endedge bench --all --markdown\n"
        "  endedge bench demo coco-infrared --devices 1000 --keep 0.5 --plot fleet.svg",
    )
    sub.add_argument(
        "dir",
        nargs="?",
        metavar="NAME|DIR",
        help="a shipped table (demo, coco-infrared) or a results folder, which without --all, "
        "--markdown and --json is benchmarked into its files; several, with counts and weights "
        "('demo*3@0.5'), are devices that share one band (default, with one of these options: "
        "every shipped table, one after another)",
    )
    sub.add_argument(
        "overrides",
        nargs="*",
        metavar="NAME|DIR|key=value",
        help="more devices; or override a key of the configuration",
    )
    add_policies(sub)
    sub.add_argument("--all", action="store_true", help="every bandwidth of every policy shown")
    sub.add_argument("--markdown", action="store_true", help="rows for docs/benchmark.md")
    add_json(sub)
    sub.add_argument(
        "--exact",
        action="store_true",
        help="train and pack what the policies decide, instead of taking the measured round "
        "below it; resumes (as benchmark.execute=exact)",
    )
    fleets.add_bench_options(sub)

    sub = verb(
        "report",
        _report,
        "write report.html of a results folder or shipped table, or compare several",
        "endedge report runs/demo runs/other -o compare.html\n"
        "  endedge report runs/demo link.schedule=sequential link.edge_s=20\n"
        "  endedge report coco-infrared -o infrared.html",
    )
    sub.add_argument(
        "dirs",
        nargs="+",
        metavar="DIR|NAME|key=value",
        help="results folders or shipped tables, the first is named A; key=value of link, "
        "benchmark or scenarios: benchmarked anew with that first, as bench does",
    )
    sub.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="(default: report.html in DIR, of a table here; of several compare.html here)",
    )
    sub.set_defaults(words="dirs")
    sub = verb(
        "allocate",
        _allocate,
        "split a bandwidth by fitted curves, for one device or among many",
        "endedge allocate runs/demo --bandwidth 20kHz\n"
        "  endedge allocate demo --bandwidth 20kHz --price-per-mb 0.005 --value-per-point 0.1\n"
        "  endedge allocate 'demo*3' 'coco-infrared*2@0.5' --bandwidth 300kHz --plot fleet.svg",
    )
    sub.add_argument(
        "where",
        nargs="+",
        help="results folder, whose config.yaml gives link, rules and limits, a curves.json, or a "
        "shipped table; several, with counts and weights ('demo*3@0.5'), share the band",
    )
    sub.set_defaults(words="where")
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
        "--quantile",
        type=float,
        metavar="Q",
        help="decide by this lower quantile of the bootstrap curves, e.g. 0.1: a cautious split",
    )
    sub.add_argument(
        "--regimes", action="store_true", help="and the regimes of bandwidths around this one"
    )
    sub.add_argument(
        "--price-per-mb",
        type=float,
        metavar="PRICE",
        help="of a megabyte either way; with --value-per-point says what the split returns, and "
        "how long a pilot has to be",
    )
    sub.add_argument(
        "--value-per-point",
        type=float,
        metavar="VALUE",
        help="of one point of mAP held for an hour, in the same currency",
    )
    fleets.add_share_options(sub)
    add_json(sub)


def _bench(a: argparse.Namespace) -> None:
    from endedge.allocator.policies import from_file
    from endedge.lab.benchmark.score import score
    from endedge.lab.benchmark.table import Table
    from endedge.lab.benchmark.telling import as_markdown, as_record, as_text
    from endedge.lab.fleet.members import are_several

    mine = [name for file in a.policy for name in from_file(Path(file))]
    if a.dir is None:
        _bench_all(a, mine)
        return
    more = [word for word in a.overrides if "=" not in word]
    if are_several([a.dir, *more]) or a.devices is not None:
        changes = [word for word in a.overrides if "=" in word]
        fleets.bench_several(a, [a.dir, *more], changes, mine)
        return
    fleets.refuse_bench_options(a)
    if a.exact or (Path(a.dir).is_dir() and not (a.all or a.json or a.markdown)):
        from endedge.lab.benchmark.stage import bench_folder, replanned

        folder, exact = Path(a.dir), a.exact
        with progress_bar() as progress:
            config = replanned(folder, a.overrides)
            if exact or config.benchmark.execute == "exact":
                from endedge.lab import pipeline  # PyTorch: rounds are trained

                pipeline.bench_stage(folder, progress, exact=exact)
            else:
                bench_folder(folder, config, progress)
        print(headline(folder))
        return
    found = score(Table.load(a.dir, a.overrides), [] if a.all or not mine else mine)
    if a.json:
        print(json.dumps(as_record(found), indent=1))
    elif a.markdown:
        print(as_markdown(found, mine or found.policies))
    else:
        print(as_text(found, mine, a.all))


def _bench_all(a: argparse.Namespace, mine: list[str]) -> None:
    """Every shipped table: one table of Markdown, one list of JSON, or text after text."""
    from endedge.lab.benchmark.score import score
    from endedge.lab.benchmark.table import Table, shipped_tables
    from endedge.lab.benchmark.telling import as_markdown, as_record, as_text

    if not (a.all or a.markdown or a.json):
        raise BadInput(
            f"name a results folder or a shipped table ({', '.join(shipped_tables())}), or give "
            "--all, --markdown or --json for every shipped one"
        )
    fleets.refuse_bench_options(a)
    found = [
        score(Table.load(name), [] if a.all or not mine else mine) for name in shipped_tables()
    ]
    if a.json:
        print(json.dumps([as_record(one) for one in found], indent=1))
    elif a.markdown:
        rows = [as_markdown(one, mine or one.policies).splitlines() for one in found]
        print("\n".join([*rows[0][:2], *(line for some in rows for line in some[2:])]))
    else:
        print("\n\n".join(as_text(one, mine, a.all) for one in found))


def _report(a: argparse.Namespace) -> None:
    from endedge.lab import pipeline

    out = Path(a.output) if a.output else None
    changes = [word for word in a.dirs if "=" in word and not Path(word).is_dir()]
    places = [word for word in a.dirs if word not in changes]
    if not places:
        raise BadInput("name a results folder or a shipped table to report on")
    with progress_bar() as progress:
        made = (
            pipeline.report_stage(places[0], out, changes=changes, progress=progress)
            if len(places) == 1
            else pipeline.compare_stage(
                places, out or Path("compare.html"), changes=changes, progress=progress
            )
        )
    print(f"report: {made}")


def _allocate(a: argparse.Namespace) -> None:
    from endedge.allocator import regime_table
    from endedge.lab.benchmark.planning import plan
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
    priced = a.price_per_mb is not None, a.value_per_point is not None
    if any(priced) and (not all(priced) or are_several(a.where)):
        raise BadInput("--price-per-mb and --value-per-point go together, for one device")
    if are_several(a.where):
        if a.quantile is not None or a.regimes:
            raise BadInput("--quantile and --regimes are for one device")
        fleets.allocate_several(a, changes, bandwidth_hz)
        return
    fleets.refuse_share_options(a)
    planned = plan(Path(a.where[0]), changes)
    found = planned.allocate(bandwidth_hz, a.quantile)
    spans = planned.regimes(bandwidth_hz) if a.regimes else []
    paid = None
    if all(priced):
        from endedge.lab.benchmark.returns import returns

        paid = returns(
            found,
            planned.curves,
            planned.rules,
            price_per_mb=a.price_per_mb,
            value_per_point=a.value_per_point,
            points=planned.points,
        )
    if a.json:
        more: dict[str, object] = {} if paid is None else {"return": paid.record()}
        if spans:
            more["regimes"] = [span.record() for span in spans]
        print(json.dumps({**found.record(), **planned.record(), **more}, indent=1))
    else:
        table = regime_table(spans) if spans else None
        print("\n".join(str(part) for part in (planned, found, paid, table) if part is not None))
