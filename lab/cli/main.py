"""``endedge VERB CONFIG|DIR [key=value …]``: the command line.

Bad input is one line on stderr and exit status 2; work of which a part failed says which
(status 1); an interrupted job says how to go on (status 130); anything else unexpected is a
bug and keeps its traceback. A disk or a port that fails is one line and status 2, too.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from endedge.data.errors import BadInput, Unfinished
from endedge.data.storage import at_home
from endedge.data.units import parse_quantity
from endedge.lab.cli import (
    exporting,
    importing,
    plotting,
    predicting,
    replaying,
    timing,
    watching,
)
from endedge.lab.cli import package as tools
from endedge.lab.cli.arguments import Action, build_parser
from endedge.lab.cli.logs import log_to_stderr
from endedge.link.messages import printable

if TYPE_CHECKING:
    from endedge.lab.config import Config

__all__ = ["main"]

# Heavy imports (torch, Ultralytics) live inside the verbs, so that --help answers at once.


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    for stream in (sys.stdout, sys.stderr):  # a terminal of ASCII gets ? and no traceback
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    parser = build_parser(_ACTIONS)
    arguments, rest = parser.parse_known_args(argv)
    # argparse cannot take key=value after an option; here they may stand anywhere, and a word
    # that is none is for the verb to refuse: it knows what would be right.
    if not hasattr(arguments, "overrides") or any(a.startswith("-") for a in rest):
        if rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
    else:
        arguments.overrides += rest
    for name, value in vars(arguments).items():
        if isinstance(value, str):
            setattr(arguments, name, at_home(value))
        elif isinstance(value, list):
            setattr(arguments, name, [at_home(v) if isinstance(v, str) else v for v in value])
    try:
        arguments.do(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()  # a full disk behind it shows here
    except BadInput as error:
        print(
            f"endedge {arguments.verb}: {printable(' '.join(str(error).split()))}", file=sys.stderr
        )
        return 2
    except Unfinished as error:
        print(f"endedge {arguments.verb}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        out = getattr(arguments, "out", None)
        print(
            f"\nendedge {arguments.verb}: interrupted; what was measured is kept"
            + (f" in {out}, the same command goes on from there" if out else ""),
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        sys.stderr.close()
        return 141
    except OSError as error:  # a disk that is full or read-only, a port that is taken
        where = f"{error.filename}: " if error.filename is not None else ""
        says = " ".join(str(error.strerror or error).split())
        print(f"endedge {arguments.verb}: {where}{says}", file=sys.stderr)
        return 2
    return 0


def _run(a: argparse.Namespace) -> None:
    from endedge.lab import pipeline

    config = _config(a)
    with _progress() as progress:
        report = pipeline.run(config, Path(a.out), progress)
    print(_headline(Path(a.out)))
    print(f"report: {report}")


def _measure(a: argparse.Namespace) -> None:
    from endedge.lab import pipeline

    config = _config(a)
    with _progress() as progress:
        surface = pipeline.measure_stage(config, Path(a.out), progress, a.adaptive)
    print(f"{_judged_by(config)}surface: {surface}")


def _status(a: argparse.Namespace) -> None:
    from endedge.lab.sweep.status import format_status, status

    found = status(Path(a.dir))
    print(json.dumps(found, indent=1) if a.json else format_status(found))


def _loop(a: argparse.Namespace) -> None:
    from endedge.lab.loop import summary as loop_results

    with _progress() as progress:
        files = tuple(Path(file) for file in a.policy)
        print(loop_results.loop_stage(_config(a), Path(a.out), a.prior, progress, files))


def _job(a: argparse.Namespace) -> None:
    """One teacher (``train``) or one student (``distill``), kept like those of a sweep."""
    from endedge.lab.inputs import Inputs
    from endedge.lab.store import Store
    from endedge.lab.sweep.cell import Cell, CellRunner
    from endedge.lab.sweep.precision import settled_here
    from endedge.lab.sweep.workers import one_thread

    out = Path(a.out)
    config = settled_here(_config(a), out)
    with _progress() as progress, one_thread():
        runner = CellRunner(
            Inputs.of(config, out), Store(out), lambda message: progress(0, 1, message)
        )
        if not 2 <= a.frames <= len(runner.inputs.pool):
            raise BadInput(f"--frames {a.frames}; the pool allows 2 to {len(runner.inputs.pool)}")
        cell = Cell(a.seed, a.frames, config.uplink.codecs[0], 0)
        upload = runner.upload(cell)
        node, file = runner.teacher(cell, upload), "teacher.safetensors"
        if a.verb == "distill":
            node, file = runner.student(cell, upload, node), "student.safetensors"
    tools.show({"checkpoint": str(node.folder / file), **upload.record, **node.record}, a.json)


def _fit(a: argparse.Namespace) -> None:
    from endedge.lab import pipeline

    curves = pipeline.fit_stage(Path(a.dir))
    print(f"curves: {Path(a.dir) / 'curves.json'} ({curves.joint.kind})")
    if curves.falls:
        print(f"note: {curves.falls}")


def _bench(a: argparse.Namespace) -> None:
    from endedge.allocator.policies import from_file
    from endedge.lab.benchmark.score import score
    from endedge.lab.benchmark.table import Table
    from endedge.lab.benchmark.telling import as_markdown, as_record, as_text

    mine = [name for file in a.policy for name in from_file(Path(file))]
    if a.exact or (Path(a.dir).is_dir() and not (a.all or a.json or a.markdown)):
        from endedge.lab.benchmark.stage import bench_folder, replanned

        folder, exact = Path(a.dir), a.exact
        with _progress() as progress:
            config = replanned(folder, a.overrides)
            if exact or config.benchmark.execute == "exact":
                from endedge.lab import pipeline  # PyTorch: rounds are trained

                pipeline.bench_stage(folder, progress, exact=exact)
            else:
                bench_folder(folder, config, progress)
        print(_headline(folder))
        return
    found = score(Table.load(a.dir, a.overrides), [] if a.all or not mine else mine)
    if a.json:
        print(json.dumps(as_record(found), indent=1))
    elif a.markdown:
        print(as_markdown(found, mine or found.policies))
    else:
        print(as_text(found, mine, a.all))


def _report(a: argparse.Namespace) -> None:
    from endedge.lab import pipeline

    out = Path(a.output) if a.output else None
    changes = [word for word in a.dirs if "=" in word and not Path(word).is_dir()]
    places = [word for word in a.dirs if word not in changes]
    if not places:
        raise BadInput("name a results folder or a shipped table to report on")
    with _progress() as progress:
        made = (
            pipeline.report_stage(places[0], out, changes=changes, progress=progress)
            if len(places) == 1
            else pipeline.compare_stage(
                places, out or Path("compare.html"), changes=changes, progress=progress
            )
        )
    print(f"report: {made}")


def _allocate(a: argparse.Namespace) -> None:
    from endedge.lab.benchmark.planning import plan

    given = {
        "period_s": a.period,
        "up_bit_per_s_per_hz": a.up,
        "down_bit_per_s_per_hz": a.down,
        "schedule": a.schedule,
        "edge_s": a.edge_s,
    }
    planned = plan(Path(a.where), {name: v for name, v in given.items() if v is not None})
    found = planned.allocate(parse_quantity(a.bandwidth, "Hz"))
    if a.json:
        print(json.dumps({**found.record(), **planned.record()}, indent=1))
    else:
        print(f"{planned}\n{found}")


def _generate(a: argparse.Namespace) -> None:
    from endedge.data.generated import generate

    made = generate(Path(a.out), domain=a.domain, split=a.split, n=a.n, seed=a.seed, size=a.size)
    print(f"{len(made)} frames in {a.out}/{a.domain}-{a.split}")


def _subset(a: argparse.Namespace) -> None:
    from endedge.data.subset import cut, read_ids

    splits: dict[str, int | list[int]] = {}
    for word in a.overrides:
        name, _, wanted = word.partition("=")
        if not wanted.startswith("@") and not wanted.isdigit():
            raise BadInput(f"{word!r} is not SPLIT=COUNT or SPLIT=@FILE, e.g. pool=1000")
        splits[name] = read_ids(Path(wanted[1:])) if wanted.startswith("@") else int(wanted)
    if not splits:
        raise BadInput("name at least one split, e.g. pool=1000 eval=200")
    made = cut(Path(a.annotations), Path(a.images), Path(a.out), splits, seed=a.seed, link=a.link)
    print(f"{', '.join(f'{name}: {n} frames' for name, n in made.items())} in {a.out}")


def _download(a: argparse.Namespace) -> None:
    from endedge.data.download import fetch, fetch_coco_val, fetch_weights
    from endedge.data.hituav import fetch_hituav
    from endedge.data.storage import sha256_of

    if a.checksum and len(a.what) != 1:
        raise BadInput("--checksum is that of one file; download one at a time")
    with _progress() as progress:
        for what in a.what:
            heard: dict[str, Any] = {
                "on_bytes": lambda n, total, what=what: progress(
                    n // 10**6, total // 10**6, f"MB of {what}"
                )
            }
            if what == "coco-val":
                files = fetch_coco_val(
                    Path(a.out), **heard, **({"server": a.mirror} if a.mirror else {})
                )
                print("\n".join(str(path) for path in files))
                continue
            if what == "hituav":
                files = fetch_hituav(
                    Path(a.out),
                    say=lambda text: print(text, file=sys.stderr),
                    **({"source": a.mirror} if a.mirror else {}),
                )
                print("\n".join(str(path) for path in files))
                continue
            to = Path(a.out) / what.partition("?")[0].rstrip("/").rpartition("/")[2]
            if "://" in what:
                made, checked = fetch(what, to, checksum=a.checksum, **heard), bool(a.checksum)
            else:
                made, checked = fetch_weights(
                    what, to, checksum=a.checksum, mirror=a.mirror, **heard
                )
            print(made if checked else f"{made} (unchecked; sha256:{sha256_of(made).hex()})")


def _doctor(a: argparse.Namespace) -> None:
    from endedge.lab.cli.doctor import checks

    found = checks(Path(a.out), test=not a.no_test)
    if a.json:
        print(json.dumps({c.name: {"state": c.state, "says": c.says} for c in found}, indent=1))
    else:
        for check in found:
            print(f"{check.state:5} {check.name:10} {check.says}")
    if any(check.state == "bad" for check in found):
        raise BadInput("something is missing; see the lines marked bad")


def _completion(a: argparse.Namespace) -> None:
    from endedge.lab.cli.completion import script

    print(script(build_parser(_ACTIONS), a.shell))


def _serve(a: argparse.Namespace) -> None:
    log_to_stderr(a.verbose)
    from endedge.edge.server.service import ServeConfig
    from endedge.lab.loop.serving import serve

    serve(
        _config(a),
        ServeConfig(
            Path(a.out),
            a.host,
            a.port,
            secure=a.secure,
            metrics_port=a.metrics_port,
            workers=a.jobs,
        ),
    )


def _device(a: argparse.Namespace) -> None:
    from endedge.end.client.client import DeviceConfig, Outcome
    from endedge.lab.loop.sockets import day, device

    log_to_stderr(a.verbose + 1)  # it runs where nobody sees more of it
    host, colon, port = a.edge.rpartition(":")
    if not colon or not port.isdigit():
        raise BadInput(f"--edge {a.edge} is not HOST:PORT, e.g. 127.0.0.1:7070")
    bundle = Path(a.bundle) if a.bundle else None

    def say(outcome: Outcome) -> None:
        shown = (
            f"mAP {100 * outcome.map50_95:.1f} %" if outcome.status == "applied" else outcome.reason
        )
        print(
            f"round {outcome.round_index}: {outcome.status} after {outcome.seconds:.1f} s, {shown}",
            flush=True,
        )

    mine = DeviceConfig(a.id, host, int(port), Path(a.out), bundle)
    if a.day is not None:
        day(_config(a), mine, number=a.day, policy=a.policy, on_outcome=say)
        return
    device(
        _config(a),
        mine,
        rounds=a.rounds,
        frames=a.frames,
        seed=a.seed,
        on_outcome=say,
        budget_bytes=int(parse_quantity(a.budget, "B")),
    )


def _keys(a: argparse.Namespace) -> None:
    from endedge.edge.server.keys import issue_bundle, open_keys

    keys = open_keys(Path(a.folder) / "keys", a.host)
    for name in a.revoke:
        keys.revoke(name)
    for name in a.names:
        print(issue_bundle(keys, name))
    if not a.names:
        for name in keys.devices():
            print(f"{name}: enrolled")


_ACTIONS: dict[str, Action] = {
    "import": importing.import_source,
    "run": _run,
    "measure": _measure,
    "loop": _loop,
    "status": _status,
    "watch": watching.watch_source,
    "fit": _fit,
    "bench": _bench,
    "replay": lambda a: replaying.replay_tables(a, _progress),
    "report": _report,
    "plot": plotting.draw_figures,
    "allocate": _allocate,
    "pack": tools.pack_file,
    "inspect": tools.inspect_file,
    "eval": tools.evaluate_file,
    "export": exporting.export_file,
    "predict": predicting.predict_source,
    "latency": timing.time_model,
    "data generate": _generate,
    "data subset": _subset,
    "data download": _download,
    "doctor": _doctor,
    "completion": _completion,
    "serve": _serve,
    "device": _device,
    "keys": _keys,
    "train": _job,
    "distill": _job,
}


# Helpers ------------------------------------------------------------------------------------


def _config(a: argparse.Namespace) -> Any:
    from endedge.lab.config import load_config

    engine = getattr(a, "engine", None)
    return load_config(a.config, [*a.overrides, *([f"engine={engine}"] if engine else [])])


def _headline(folder: Path) -> str:
    from endedge.lab.benchmark.ranking import summary
    from endedge.lab.config.reading import config_of

    return _judged_by(config_of(folder)) + summary(folder / "benchmark.csv")


def _judged_by(config: Config) -> str:
    """A line to print first where mAP is not accuracy."""
    if config.data.eval_labels == "truth":
        return ""
    return "evaluated on the teacher's labels: agreement with it, not accuracy\n"


def _progress() -> Any:
    from endedge.lab.cli.progress import Progress

    return Progress()
