"""``endedge VERB CONFIG|DIR [key=value …]``: the command line.

Bad input is one line on stderr and exit status 2; an interrupted job says how to go on
(status 130); anything else unexpected is a bug and keeps its traceback.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from endedge.data.units import BadInput, parse_quantity

__all__ = ["main"]

# Heavy imports (torch, Ultralytics) live inside the verbs, so that --help answers at once.


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    # argparse cannot take key=value after an option; here they may stand anywhere.
    if not hasattr(arguments, "overrides") or any(a.startswith("-") or "=" not in a for a in rest):
        if rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
    else:
        arguments.overrides += rest
    try:
        status: int = arguments.do(arguments) or 0
    except BadInput as error:
        print(f"endedge {arguments.verb}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
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
    return status


def _run(a: argparse.Namespace) -> None:
    from endedge.lab import pipeline

    with _progress() as progress:
        report = pipeline.run(_config(a), Path(a.out), progress)
    print(_headline(Path(a.out)))
    print(f"report: {report}")


def _measure(a: argparse.Namespace) -> None:
    from endedge.lab import pipeline

    with _progress() as progress:
        print(f"surface: {pipeline.measure_stage(_config(a), Path(a.out), progress)}")


def _job(a: argparse.Namespace) -> None:
    """One teacher (``train``) or one student (``distill``), kept like those of a sweep."""
    from endedge.lab.cell import Cell, Rounds
    from endedge.lab.store import Store
    from endedge.lab.sweep import one_thread
    from endedge.lab.world import World

    config, out = _config(a), Path(a.out)
    with _progress() as progress, one_thread():
        rounds = Rounds(World.of(config, out), Store(out), lambda message: progress(0, 1, message))
        if not 2 <= a.frames <= len(rounds.world.pool):
            raise BadInput(f"--frames {a.frames}; the pool allows 2 to {len(rounds.world.pool)}")
        cell = Cell(a.seed, a.frames, config.uplink.codecs[0], 0)
        upload = rounds.upload(cell)
        node, file = rounds.teacher(cell, upload), "teacher.safetensors"
        if a.verb == "distill":
            node, file = rounds.student(cell, upload, node), "student.safetensors"
    _show({"checkpoint": str(node.folder / file), **upload.record, **node.record}, a.json)


def _fit(a: argparse.Namespace) -> None:
    from endedge.lab import pipeline

    curves = pipeline.fit_stage(Path(a.dir))
    print(f"curves: {Path(a.dir) / 'curves.json'} ({curves.joint.kind})")


def _bench(a: argparse.Namespace) -> None:
    from endedge.lab import pipeline

    pipeline.bench_stage(Path(a.dir))
    print(_headline(Path(a.dir)))


def _report(a: argparse.Namespace) -> None:
    from endedge.lab import pipeline

    print(f"report: {pipeline.report_stage(Path(a.dir))}")


def _plot(a: argparse.Namespace) -> None:
    from endedge.lab.plot import plot

    print(plot(Path(a.dir), a.what, Path(a.output)))


def _allocate(a: argparse.Namespace) -> None:
    from endedge.allocator import Curves, Link, Rules, allocate

    where = Path(a.where)
    curves = Curves.load(where / "curves.json" if where.is_dir() else where)
    link = Link(
        parse_quantity(a.bandwidth, "Hz"),
        parse_quantity(a.period, "s"),
        parse_quantity(a.up, "bit/s/Hz"),
        parse_quantity(a.down, "bit/s/Hz"),
    )
    rules = Rules(schedule=a.schedule, edge_s=parse_quantity(a.edge_s, "s"))
    found = allocate(curves, link, rules)
    low, high = found.interval
    package, upload = found.update, found.upload
    answer: dict[str, Any] = {
        "regime": found.regime,
        "reason": found.reason,
        "uplink_hz": found.uplink_hz,
        "downlink_hz": found.downlink_hz,
        "upload_bytes": found.upload_bytes,
        "update_bytes": found.update_bytes,
        "frames": found.frames,
        "codec": upload.codec if upload else None,
        "bits": package.bits if package else None,
        "prune": package.prune if package else None,
        "predicted_map": found.predicted_map,
        "predicted_map_low": low,
        "predicted_map_high": high,
        "average_map": found.average_map,
        "upload_value_map_per_hz": found.upload_value,
        "update_value_map_per_hz": found.update_value,
        "extrapolates": found.extrapolates,
        "m0": curves.m0,
    }
    if a.json:
        print(json.dumps(answer, indent=1))
        return
    used = found.uplink_hz + found.downlink_hz
    share = found.uplink_hz / used if used > 0 else 0.0
    print(f"regime      {found.regime}" + (f" ({found.reason})" if found.reason else ""))
    print(f"uplink      {found.uplink_hz:,.0f} Hz ({share:.0%} of what is used)")
    print(f"            {found.upload_bytes:,.0f} B: {found.frames} frames, {answer['codec']}")
    print(f"downlink    {found.downlink_hz:,.0f} Hz")
    print(f"            {found.update_bytes:,.0f} B", end="")
    print(f": {package.bits:.1f} bits, {package.prune:.0%} pruned" if package else "")
    print(f"mAP         {found.predicted_map:.3f} [{low:.3f}, {high:.3f}] from {curves.m0:.3f}")
    if found.extrapolates:
        print("warning     this lies outside the measured bytes: the curves extrapolate")


def _pack(a: argparse.Namespace) -> None:
    from endedge.data.storage import write_atomic
    from endedge.distill.model import load_detector
    from endedge.distill.package import pack

    model = load_detector(a.checkpoint)
    base = load_detector(a.base) if a.base else None
    frames = _calibration(Path(a.frames), a.imgsz) if a.frames else None
    budget = int(parse_quantity(a.budget, "B"))
    packed = pack(model, budget, base=base, frames=frames)
    write_atomic(Path(a.output), packed.data)
    report = {"file": a.output, "bytes": len(packed.data), "budget_bytes": budget}
    report |= vars(packed.report)
    _show(report, a.json)


def _inspect(a: argparse.Namespace) -> None:
    from endedge.distill.package import inspect

    _show(inspect(_bytes(Path(a.package))), a.json)


def _eval(a: argparse.Namespace) -> None:
    from endedge.data.coco import load_coco, read_image
    from endedge.data.frames import stack_frames
    from endedge.data.shift import Shift
    from endedge.distill.model import load_detector
    from endedge.distill.package import unpack
    from endedge.end.metric import evaluate
    from endedge.lab.world import pick_device

    truth = load_coco(a.annotations, a.images)
    path = Path(a.model)
    update_bytes = None
    if path.suffix == ".eeu":
        data = _bytes(path)
        update_bytes = len(data)
        model = unpack(data, base=load_detector(a.base) if a.base else None)
    else:
        model = load_detector(path)
    if tuple(model.names.values()) != truth.names:
        raise BadInput(
            f"{path} detects {len(model.names)} classes, {a.annotations} has {len(truth.names)}; "
            "they must be the same, in the same order"
        )
    camera = Shift(a.shift, a.severity, 0)
    frames = stack_frames(
        truth.frames, a.imgsz, lambda f: camera.apply(read_image(f.path), f.image_id)
    )
    score = evaluate(model, frames, truth, pick_device(a.device))
    _show(
        {"map": score.map, "map50": score.map50, "images": score.images,
         "update_bytes": update_bytes}, a.json,
    )  # fmt: skip


def _data(a: argparse.Namespace) -> None:
    from endedge.data.generated import generate

    made = generate(Path(a.out), domain=a.domain, split=a.split, n=a.n, seed=a.seed, size=a.size)
    print(f"{len(made)} frames in {a.out}/{a.domain}-{a.split}")


def _serve(a: argparse.Namespace) -> None:
    from endedge.edge.service import ServeConfig
    from endedge.lab.remote import serve

    serve(
        _config(a),
        ServeConfig(
            Path(a.out), a.host, a.port, secure=a.secure,
            metrics_port=a.metrics_port, workers=a.jobs,
        ),
    )  # fmt: skip


def _device(a: argparse.Namespace) -> None:
    from endedge.end.client import DeviceConfig, Outcome
    from endedge.lab.remote import device

    host, colon, port = a.edge.rpartition(":")
    if not colon or not port.isdigit():
        raise BadInput(f"--edge {a.edge} is not HOST:PORT, e.g. 127.0.0.1:7070")
    bundle = Path(a.bundle) if a.bundle else None

    def say(outcome: Outcome) -> None:
        shown = f"mAP {outcome.map50_95:.3f}" if outcome.status == "applied" else outcome.reason
        print(
            f"round {outcome.round_index}: {outcome.status} after {outcome.seconds:.1f} s, {shown}",
            flush=True,
        )

    device(
        _config(a), DeviceConfig(a.id, host, int(port), Path(a.out), bundle),
        rounds=a.rounds, frames=a.frames, budget_bytes=int(parse_quantity(a.budget, "B")),
        seed=a.seed, on_outcome=say,
    )  # fmt: skip


# Helpers ------------------------------------------------------------------------------------


def _config(a: argparse.Namespace) -> Any:
    from endedge.lab.config import load_config

    return load_config(a.config, a.overrides)


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > 2**31:
            raise BadInput(f"{path} is larger than 2 GiB; not an update package")
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None


def _calibration(folder: Path, side: int) -> Any:
    import torch

    from endedge.data.coco import read_image
    from endedge.data.frames import letterbox

    paths = sorted(p for p in folder.glob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not paths:
        raise BadInput(f"--frames {folder} holds no .jpg or .png images")
    pictures = [letterbox(read_image(p), side)[0].transpose(2, 0, 1) for p in paths[:64]]
    return torch.stack([torch.from_numpy(p) for p in pictures])


def _show(values: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(values, indent=1))
        return
    for key, value in values.items():
        shown = f"{value:,}" if isinstance(value, int) else value
        print(f"{key:16} {f'{value:.4f}' if isinstance(value, float) else shown}")


def _headline(folder: Path) -> str:
    from endedge.lab.benchmark import summary

    return summary(folder / "benchmark.csv")


def _progress() -> Any:
    from endedge.lab.progress import Progress

    return Progress()


# The parser ---------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="endedge", description="An end-edge testbed over one thin link.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_Parser)

    def verb(
        name: str, do: Callable[[argparse.Namespace], int | None], says: str, example: str
    ) -> argparse.ArgumentParser:
        sub = verbs.add_parser(
            name, help=says, description=says[0].upper() + says[1:] + ".",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        sub.set_defaults(do=do)
        return sub

    for name, do, says in (
        ("run", _run, "the main job: measure, fit, allocate, benchmark, report; resumes"),
        ("measure", _measure, "measure the grid of accuracy against bytes; resumes"),
    ):
        sub = verb(name, do, says, f"endedge {name} demo --out runs/demo seeds=[0]")
        sub.add_argument("config", help="a YAML file, or the name of a shipped one (demo)")
        sub.add_argument("overrides", nargs="*", metavar="key=value", help="override a key")
        sub.add_argument("--out", required=True, metavar="DIR", help="results folder")
    for name, says in (
        ("train", "adapt the teacher to one upload"),
        ("distill", "adapt the teacher to one upload and distil a student from it"),
    ):
        sub = verb(name, _job, says, f"endedge {name} demo --frames 64 --out runs/one")
        sub.add_argument("config", help="a YAML file, or the name of a shipped one (demo)")
        sub.add_argument("overrides", nargs="*", metavar="key=value", help="override a key")
        sub.add_argument("--frames", type=int, required=True, help="frames uploaded")
        sub.add_argument("--seed", type=int, default=0, help="which frames, and the training's")
        sub.add_argument("--out", required=True, metavar="DIR", help="results folder (may exist)")
        sub.add_argument("--json", action="store_true", help="print JSON")
    for name, do, says in (
        ("fit", _fit, "fit the curves of a results folder"),
        ("bench", _bench, "allocate, and benchmark the policies of a results folder"),
        ("report", _report, "write report.html of a results folder"),
    ):
        sub = verb(name, do, says, f"endedge {name} runs/demo")
        sub.add_argument("dir", help="results folder")

    sub = verb(
        "plot", _plot, "a publication figure", "endedge plot runs/demo --what share -o f.pdf"
    )
    sub.add_argument("dir", help="results folder")
    sub.add_argument("--what", required=True, help="surface, curves, share, policies, regret")
    sub.add_argument("-o", "--output", required=True, metavar="FILE", help=".pdf, .svg, .png, .tex")

    sub = verb(
        "allocate", _allocate, "split a bandwidth by fitted curves",
        "endedge allocate runs/demo --bandwidth 20kHz --period 60",
    )  # fmt: skip
    sub.add_argument("where", help="results folder or curves.json")
    sub.add_argument("--bandwidth", required=True, help="Hz, e.g. 20000 or 20kHz")
    sub.add_argument("--period", required=True, help="seconds between two updates")
    sub.add_argument("--up", default="2.55", help="uplink bit/s/Hz (default 2.55)")
    sub.add_argument("--down", default="5.0", help="downlink bit/s/Hz (default 5)")
    sub.add_argument("--schedule", choices=("pipelined", "sequential"), default="pipelined")
    sub.add_argument("--edge-s", default="0", help="seconds of edge computing (sequential)")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = verb(
        "pack", _pack, "code a checkpoint into at most so many bytes",
        "endedge pack yolov8n.pt --budget 1.1MB -o update.eeu",
    )  # fmt: skip
    sub.add_argument("checkpoint", help=".pt or .safetensors detector")
    sub.add_argument("--budget", required=True, help="bytes, e.g. 1100000 or 1.1MB")
    sub.add_argument("-o", "--output", required=True, metavar="FILE.eeu")
    sub.add_argument("--base", help="what the device holds: allows a delta")
    sub.add_argument("--frames", metavar="DIR", help="unlabelled frames to calibrate on")
    sub.add_argument("--imgsz", type=int, default=320, help="px (default 320)")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = verb("inspect", _inspect, "what is in a package", "endedge inspect update.eeu")
    sub.add_argument("package", help="an .eeu file")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = verb(
        "eval", _eval, "COCO mAP of a checkpoint or of a decoded package",
        "endedge eval update.eeu --annotations val.json --images val/ --imgsz 320 --json",
    )  # fmt: skip
    sub.add_argument("model", help=".pt, .safetensors or .eeu")
    sub.add_argument("--annotations", required=True, metavar="JSON")
    sub.add_argument("--images", required=True, metavar="DIR")
    sub.add_argument("--base", help="the base model of a delta package")
    sub.add_argument("--imgsz", type=int, default=320, help="px, a multiple of 32 (default 320)")
    sub.add_argument("--shift", default="none", help="camera: none, infrared, night, fog, …")
    sub.add_argument("--severity", type=int, default=3, help="of the shift, 1 to 5 (default 3)")
    sub.add_argument("--device", default="auto", help="auto, cpu or cuda")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = verb("serve", _serve, "the edge server", "endedge serve demo --out runs/edge --port 7070")
    sub.add_argument("config", help="a YAML file, or the name of a shipped one (demo)")
    sub.add_argument("overrides", nargs="*", metavar="key=value", help="override a key")
    sub.add_argument("--out", required=True, metavar="DIR", help="the server's state")
    sub.add_argument("--host", default="127.0.0.1", help="anything but loopback needs --secure")
    sub.add_argument("--port", type=int, default=7070)
    sub.add_argument("--secure", action="store_true", help="TLS 1.3 and enrolment by token")
    sub.add_argument("--metrics-port", type=int, help="Prometheus metrics on this port")
    sub.add_argument("--jobs", type=int, default=1, help="adaptations at a time (default 1)")

    sub = verb(
        "device", _device, "the end device",
        "endedge device demo --edge 127.0.0.1:7070 --id cam1 --out runs/cam1 --rounds 2",
    )  # fmt: skip
    sub.add_argument("config", help="a YAML file, or the name of a shipped one (demo)")
    sub.add_argument("overrides", nargs="*", metavar="key=value", help="override a key")
    sub.add_argument("--edge", required=True, metavar="HOST:PORT")
    sub.add_argument("--id", default="device", help="name of this device (default device)")
    sub.add_argument("--out", required=True, metavar="DIR", help="the device's state")
    sub.add_argument("--bundle", help="file that the edge's operator issued (needed for TLS)")
    sub.add_argument("--rounds", type=int, default=1)
    sub.add_argument("--frames", type=int, default=64, help="new frames a round (default 64)")
    sub.add_argument("--budget", default="100kB", help="bytes of an update (default 100kB)")
    sub.add_argument("--seed", type=int, default=0, help="order of the frames")

    sub = verb(
        "data", _data, "make a set of generated frames",
        "endedge data --out frames --domain field --split eval -n 200",
    )  # fmt: skip
    sub.add_argument("--out", required=True, metavar="DIR")
    sub.add_argument("--domain", default="field", help="source or field")
    sub.add_argument("--split", default="pool")
    sub.add_argument("-n", type=int, default=256)
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--size", type=int, default=128, help="px")
    return parser
