"""``endedge watch``: a page of a sweep or of a server that runs."""

from __future__ import annotations

import argparse
import sys
import threading

from endedge.lab.cli.arguments import Verb
from endedge.lab.cli.numbers import PORT
from endedge.link.connection import is_loopback

__all__ = ["declare"]


def declare(verb: Verb) -> None:
    """The verb's arguments."""
    sub = verb(
        "watch",
        watch_source,
        "a read-only page of a running sweep or edge server",
        "endedge watch runs/demo\n  endedge watch http://127.0.0.1:9100 --port 8070",
    )
    sub.add_argument(
        "source",
        metavar="DIR|URL",
        help="results folder, or the metrics of 'endedge serve --metrics-port'",
    )
    sub.add_argument(
        "--host", default="127.0.0.1", help="address that the page listens on (default loopback)"
    )
    sub.add_argument(
        "--port",
        type=PORT,
        default=8070,
        help="port of the page; 0 takes any free one (default 8070)",
    )


def watch_source(a: argparse.Namespace) -> None:
    """``endedge watch``: until it is interrupted."""
    from endedge.lab.watch.server import serving, view_of

    if not is_loopback(a.host):
        print(f"everybody who reaches {a.host} can read this page", file=sys.stderr)
    with serving(view_of(a.source), a.host, a.port) as (host, port):
        print(f"{a.source}: http://{host}:{port}/ (Ctrl-C ends it)", flush=True)
        threading.Event().wait()
