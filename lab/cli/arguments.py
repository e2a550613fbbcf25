"""The arguments of every verb, each with an example in its help."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from endedge.lab.cli import (
    exporting,
    importing,
    plotting,
    predicting,
    replaying,
    timing,
    watching,
)
from endedge.lab.cli.numbers import PORT, SEED, SIDE, share, whole

__all__ = ["Action", "build_parser", "meant"]

Action = Callable[[argparse.Namespace], None]


class _Parser(argparse.ArgumentParser):
    """One line on bad input, with the word that was probably meant."""

    def error(self, message: str) -> Any:
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._subparsers is None:  # of a verb: all options are known here
            for word in args or ():
                name = str(word).partition("=")[0]
                if name == "--":
                    break
                if name[:2] == "--" and not any(o.startswith(name) for o in self.options):
                    self.error(f"unknown option {name}{meant(name, self.options)}")
        return super().parse_known_args(args, namespace)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            what = action.metavar if isinstance(action.metavar, str) else action.dest
            hint = meant(str(value), known) or f"; there are {', '.join(known)}"
            raise argparse.ArgumentError(None, f"unknown {what.lower()} {value!r}{hint}")

    @property
    def options(self) -> list[str]:
        return list(self._option_string_actions)


def meant(word: str, known: Iterable[str]) -> str:
    """``; did you mean …?`` when one of ``known`` is close to ``word``, else nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def build_parser(actions: Mapping[str, Action]) -> argparse.ArgumentParser:
    """The parser of all verbs; ``actions`` has one for each, found in ``arguments.do``."""
    parser = _Parser(prog="endedge", description="An end-edge testbed over one thin link.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_Parser)

    def verb(name: str, says: str, example: str, among: Any = verbs) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = among.add_parser(
            name,
            help=says,
            description=says[0].upper() + says[1:] + ".",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(do=actions[name if among is verbs else f"data {name}"])
        return sub

    def configured(
        sub: argparse.ArgumentParser, what: str = "a YAML file, or the name of a shipped one (demo)"
    ) -> None:
        sub.add_argument("config", help=what)
        sub.add_argument("overrides", nargs="*", metavar="key=value", help="override a key")
        sub.add_argument(
            "--out", required=True, metavar="DIR", help="results folder; resumed if unfinished"
        )

    importing.declare(verb)

    def own_policies(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--policy",
            action="append",
            default=[],
            metavar="FILE.py",
            help="your own policies: a file that registers them (it is executed)",
        )

    for name, says in (
        ("run", "the main job: measure, fit, allocate, benchmark, report; resumes"),
        ("measure", "measure the grid of accuracy against bytes; resumes"),
    ):
        sub = verb(name, says, f"endedge {name} demo --out runs/demo seeds=[0]")
        configured(sub)
        sub.add_argument("--engine", help="auto, here, processes, ray or slurm")
        if name == "measure":
            sub.add_argument(
                "--adaptive",
                type=share,
                metavar="WIDTH",
                help="only the cells that the allocation needs: stop when its regret is below "
                "WIDTH mAP (0.01: one point) with 90 %% probability",
            )
    sub = verb(
        "status",
        "progress of a sweep: cells done, running and failed, and the time left",
        "endedge status runs/demo",
    )
    sub.add_argument("dir", help="results folder")
    sub.add_argument("--json", action="store_true", help="print JSON")
    watching.declare(verb)
    sub = verb(
        "loop",
        "closed-loop rounds over a drifting stream, policies side by side; resumes",
        "endedge loop demo-loop --out runs/loop\n"
        "  endedge loop demo-loop 'loop.policies=[fitted,equal]' --policy mine.py --out runs/mine",
    )
    configured(sub, "a YAML file with a loop section, or a shipped one (demo-loop)")
    sub.add_argument("--prior", metavar="DIR", help="results of an earlier run, for the curves")
    own_policies(sub)
    for name, says in (
        ("train", "adapt the teacher to one upload"),
        ("distill", "adapt the teacher to one upload and distil a student from it"),
    ):
        sub = verb(name, says, f"endedge {name} demo --frames 64 --out runs/one")
        configured(sub)
        sub.add_argument("--frames", type=whole(2), required=True, help="frames uploaded")
        sub.add_argument("--seed", type=SEED, default=0, help="seed of frames and training")
        sub.add_argument("--json", action="store_true", help="print JSON")
    sub = verb("fit", "fit the curves of a results folder", "endedge fit runs/demo")
    sub.add_argument("dir", metavar="DIR", help="results folder")

    sub = verb(
        "bench",
        "score policies on a measured surface: shipped by name, or a results folder",
        "endedge bench demo --policy my_policy.py\n  endedge bench runs/demo link.period_s=30",
    )
    sub.add_argument(
        "dir",
        metavar="NAME|DIR",
        help="a shipped table (demo, coco-infrared) or a results folder, which without --all, "
        "--markdown and --json is benchmarked into its files",
    )
    sub.add_argument(
        "overrides", nargs="*", metavar="key=value", help="override a key of the configuration"
    )
    own_policies(sub)
    sub.add_argument("--all", action="store_true", help="every bandwidth of every policy shown")
    sub.add_argument("--markdown", action="store_true", help="rows for docs/benchmark.md")
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub.add_argument(
        "--exact",
        action="store_true",
        help="train and pack what the policies decide, instead of taking the measured round "
        "below it; resumes (as benchmark.execute=exact)",
    )

    replaying.declare(verb)

    sub = verb(
        "report",
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

    plotting.declare(verb)

    sub = verb(
        "allocate",
        "split a bandwidth by fitted curves",
        "endedge allocate runs/demo --bandwidth 20kHz",
    )
    sub.add_argument(
        "where",
        help="results folder, whose config.yaml gives link, rules and limits, or a curves.json",
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
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = verb(
        "pack",
        "compress a checkpoint into a byte budget",
        "endedge pack yolov8n.pt --budget 1.1MB -o update.eeu\n"
        "  endedge pack yolov8n.pt --budget 0.7MB --frames DIR --aware 100 -o update.eeu\n"
        "  endedge pack yolov8n.pt --params 1.5M -o update.eeu",
    )
    sub.add_argument("checkpoint", help=".pt or .safetensors detector")
    sub.add_argument("--budget", help="bytes, e.g. 1100000 or 1.1MB")
    sub.add_argument(
        "--params", help="budget of transmitted parameters, e.g. 1.5M (in a delta: of changed ones)"
    )
    sub.add_argument("-o", "--output", required=True, metavar="FILE.eeu")
    sub.add_argument("--base", help="the model that the device holds: allows a delta")
    sub.add_argument("--frames", metavar="DIR", help="unlabelled frames to calibrate on")
    sub.add_argument(
        "--keep",
        default="1",
        metavar="SHARES",
        help="shares of the parameters to choose from, e.g. 1,0.7: below 1 the model is pruned and "
        "distilled from the whole one on --frames, which takes minutes (default 1)",
    )
    sub.add_argument(
        "--steps", type=whole(0), default=200, help="steps of --keep's distillation (default 200)"
    )
    sub.add_argument(
        "--aware",
        type=whole(0),
        default=0,
        metavar="STEPS",
        help="train the rounded weights on --frames, too: for small budgets, about 2 s a step for "
        "YOLOv8n (default 0)",
    )
    sub.add_argument("--imgsz", type=SIDE, default=320, help="px (default 320)")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = verb("inspect", "show what a package contains", "endedge inspect update.eeu")
    sub.add_argument("package", help="an .eeu file")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = verb(
        "eval",
        "COCO mAP of a checkpoint or of a decoded package",
        "endedge eval update.eeu --annotations val.json --images val/ --imgsz 320 --json",
    )
    sub.add_argument("model", help=".pt, .safetensors or .eeu")
    sub.add_argument("--annotations", required=True, metavar="JSON")
    sub.add_argument("--images", required=True, metavar="DIR")
    sub.add_argument("--base", help="the base model of a delta package")
    sub.add_argument("--imgsz", type=SIDE, default=320, help="px, a multiple of 32 (default 320)")
    sub.add_argument("--shift", default="none", help="camera shift: none, infrared, night, fog, …")
    sub.add_argument(
        "--severity", type=whole(1, 5), default=3, help="of --shift, 1 to 5 (default 3)"
    )
    sub.add_argument("--device", default="auto", help="auto, cpu or cuda")
    sub.add_argument("--json", action="store_true", help="print JSON")

    exporting.declare(verb)
    predicting.declare(verb)
    timing.declare(verb)

    sub = verb("serve", "run the edge server", "endedge serve demo --out runs/edge --port 7070")
    sub.add_argument("config", help="a YAML file, or the name of a shipped one (demo)")
    sub.add_argument("overrides", nargs="*", metavar="key=value", help="override a key")
    sub.add_argument("--out", required=True, metavar="DIR", help="the server's state")
    sub.add_argument("--host", default="127.0.0.1", help="anything but loopback needs --secure")
    sub.add_argument("--port", type=PORT, default=7070, help="(default 7070)")
    sub.add_argument("--secure", action="store_true", help="TLS 1.3 and enrolment by token")
    sub.add_argument("--metrics-port", type=PORT, help="Prometheus metrics on this port")
    sub.add_argument("--jobs", type=whole(1), default=1, help="parallel adaptations (default 1)")
    _verbose(sub, "every event, not only warnings; -vv what was repeated, too")

    sub = verb(
        "device",
        "run the end device",
        "endedge device demo --edge 127.0.0.1:7070 --id cam1 --out runs/cam1 --rounds 2",
    )
    sub.add_argument("config", help="a YAML file, or the name of a shipped one (demo)")
    sub.add_argument("overrides", nargs="*", metavar="key=value", help="override a key")
    sub.add_argument("--edge", required=True, metavar="HOST:PORT")
    sub.add_argument("--id", default="device", help="name of this device (default device)")
    sub.add_argument("--out", required=True, metavar="DIR", help="the device's state")
    sub.add_argument("--bundle", help="file that the edge's operator issued (needed for TLS)")
    sub.add_argument("--rounds", type=whole(1), default=1, help="(default 1)")
    sub.add_argument("--frames", type=whole(1), default=64, help="new frames a round (default 64)")
    sub.add_argument("--budget", default="100kB", help="bytes of an update (default 100kB)")
    sub.add_argument("--seed", type=SEED, default=0, help="seed of the order of the frames")
    sub.add_argument("--day", type=whole(0), help="play this day of a loop, from 0")
    sub.add_argument("--policy", default="equal", help="splits the link on --day (default equal)")
    _verbose(sub, "everything that is logged")

    sub = verb(
        "keys",
        "make the edge's keys; enrol and revoke devices",
        "endedge keys runs/edge cam1 cam2 --host edge.example",
    )
    sub.add_argument("folder", metavar="DIR", help="the server's state: --out of `endedge serve`")
    sub.add_argument("names", nargs="*", metavar="DEVICE", help="issue a bundle with a fresh token")
    sub.add_argument(
        "--host", action="append", metavar="NAME", help="host name in the certificate; repeatable"
    )
    sub.add_argument(
        "--revoke", action="append", default=[], metavar="DEVICE", help="refuse this device"
    )

    sub = verb("doctor", "check the installation with a miniature round", "endedge doctor --json")
    sub.add_argument("--out", default=".", metavar="DIR", help="folder whose disk is checked")
    sub.add_argument("--no-test", action="store_true", help="skip the end-to-end round")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = verb(
        "completion",
        "print a script that completes verbs and options in a shell",
        'eval "$(endedge completion bash)"',
    )
    sub.add_argument(
        "shell", choices=("bash", "zsh", "fish"), metavar="SHELL", help="bash, zsh or fish"
    )

    data = verbs.add_parser(
        "data",
        help="make, cut or download frames and weights",
        epilog="example:\n  endedge data generate --out frames",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _data(data.add_subparsers(dest="job", required=True, metavar="JOB", parser_class=_Parser), verb)
    return parser


def _verbose(sub: argparse.ArgumentParser, what: str) -> None:
    sub.add_argument("-v", "--verbose", action="count", default=0, help=what)


def _data(jobs: Any, verb: Callable[..., argparse.ArgumentParser]) -> None:
    sub = verb(
        "generate",
        "make a set of generated frames",
        "endedge data generate --out frames --domain field --split eval -n 200",
        jobs,
    )
    sub.add_argument("--out", required=True, metavar="DIR")
    sub.add_argument("--domain", default="field", help="source or field")
    sub.add_argument("--split", default="pool")
    sub.add_argument("-n", type=whole(1), default=256)
    sub.add_argument("--seed", type=SEED, default=0)
    sub.add_argument("--size", type=whole(64, 1024), default=128, help="px")

    sub = verb(
        "subset",
        "cut a COCO set into splits that share no frame",
        "endedge data subset instances.json frames/ pool=1000 eval=@ids.txt --out mine",
        jobs,
    )
    sub.add_argument("annotations", metavar="JSON", help="COCO instances file")
    sub.add_argument("images", metavar="DIR", help="its folder of frames")
    sub.add_argument(
        "overrides",
        nargs="*",
        metavar="SPLIT=N|@FILE",
        help="a number of frames, or a FILE that lists image ids",
    )
    sub.add_argument("--out", required=True, metavar="DIR", help="becomes data.root")
    sub.add_argument("--seed", type=SEED, default=0, help="seed of the choice (default 0)")
    sub.add_argument("--link", action="store_true", help="link to frames, not copy them")

    sub = verb(
        "download",
        "COCO's validation frames, thermal frames from a drone, weights, or any file",
        "endedge data download coco-val yolov8n.pt --out downloads",
        jobs,
    )
    sub.add_argument(
        "what",
        nargs="+",
        metavar="WHAT",
        help="coco-val (1.1 GB), hituav (real thermal frames; needs git), an Ultralytics file "
        "(yolov8n.pt), or a URL",
    )
    sub.add_argument("--out", required=True, metavar="DIR")
    sub.add_argument(
        "--checksum",
        default="",
        metavar="KIND:HEX",
        help="md5:… or sha256:… of the one file (known for yolov8n, s, m; else unchecked)",
    )
    sub.add_argument("--mirror", metavar="URL", help="another server with the same paths")
