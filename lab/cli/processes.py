"""``endedge serve``, ``device``, ``keys``: edge and device as processes of their own."""

from __future__ import annotations

import argparse
from pathlib import Path

from endedge.data.errors import BadInput
from endedge.data.units import parse_quantity
from endedge.lab.cli.arguments import Verb, add_config, add_verbose
from endedge.lab.cli.common import config_from
from endedge.lab.cli.logs import log_to_stderr
from endedge.lab.cli.numbers import PORT, SEED, whole

__all__ = ["declare"]


def declare(verb: Verb) -> None:
    """The verbs' arguments."""
    sub = verb(
        "serve", _serve, "run the edge server", "endedge serve demo --out runs/edge --port 7070"
    )
    add_config(sub, out="the server's state")
    sub.add_argument("--host", default="127.0.0.1", help="anything but loopback needs --secure")
    sub.add_argument("--port", type=PORT, default=7070, help="(default 7070)")
    sub.add_argument("--secure", action="store_true", help="TLS 1.3 and enrolment by token")
    sub.add_argument("--metrics-port", type=PORT, help="Prometheus metrics on this port")
    sub.add_argument("--jobs", type=whole(1), default=1, help="parallel adaptations (default 1)")
    add_verbose(sub, "every event, not only warnings; -vv what was repeated, too")

    sub = verb(
        "device",
        _device,
        "run the end device",
        "endedge device demo --edge 127.0.0.1:7070 --id cam1 --out runs/cam1 --rounds 2",
    )
    add_config(sub, out="the device's state")
    sub.add_argument("--edge", required=True, metavar="HOST:PORT")
    sub.add_argument("--id", default="device", help="name of this device (default device)")
    sub.add_argument("--bundle", help="file that the edge's operator issued (needed for TLS)")
    sub.add_argument("--rounds", type=whole(1), default=1, help="(default 1)")
    sub.add_argument("--frames", type=whole(1), default=64, help="new frames a round (default 64)")
    sub.add_argument("--budget", default="100kB", help="bytes of an update (default 100kB)")
    sub.add_argument("--seed", type=SEED, default=0, help="seed of the order of the frames")
    sub.add_argument("--day", type=whole(0), help="play this day of a loop, from 0")
    sub.add_argument("--policy", default="equal", help="splits the link on --day (default equal)")
    add_verbose(sub, "everything that is logged")

    sub = verb(
        "keys",
        _keys,
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


def _serve(a: argparse.Namespace) -> None:
    log_to_stderr(a.verbose)
    from endedge.edge.server.service import ServeConfig
    from endedge.lab.loop.serving import serve

    serve(
        config_from(a),
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
        print(outcome, flush=True)

    mine = DeviceConfig(a.id, host, int(port), Path(a.out), bundle)
    if a.day is not None:
        day(config_from(a), mine, number=a.day, policy=a.policy, on_outcome=say)
        return
    device(
        config_from(a),
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
