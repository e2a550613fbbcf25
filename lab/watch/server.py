"""The page's server: GET only, on loopback unless asked otherwise; the standard library's.

It answers three addresses and takes nothing in, so there is nothing that a visitor could change.
On loopback it answers only to a loopback name, so that no other site can be made to read it
through the reader's own browser.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

from endedge.data.errors import BadInput
from endedge.lab.report.markup import asset
from endedge.lab.report.page import shell
from endedge.lab.watch.edge import EdgeView
from endedge.lab.watch.sweep import SweepView
from endedge.link.connection import is_loopback

__all__ = ["View", "serving", "view_of"]

_EVERY_S = 2.0
_IDLE = 9.0  # looking takes at most a tenth of the time
_SECTIONS = {
    "sweep": {
        "progress": "Progress",
        "surface": "The surface as it fills",
        "trainings": "Trainings",
        "failures": "Failures",
    },
    "edge": {
        "devices": "Devices",
        "accuracy": "Accuracy on the devices",
        "link": "The link",
        "events": "Events",
    },
}


class View(Protocol):
    """Something that can be looked at again and again."""

    kind: str
    name: str

    def look(self) -> dict[str, Any]: ...


def view_of(what: str) -> View:
    """The view of a results folder or of an edge's metrics.

    Raises :class:`BadInput` for neither; for the folder of ``endedge serve`` it says how.
    """
    if "://" in what:
        return EdgeView(what)
    folder = Path(what)
    if (folder / "audit.jsonl").is_file() and not (folder / "config.yaml").is_file():
        raise BadInput(
            f"{folder} is the folder of an edge server; watch its metrics: 'endedge serve … "
            "--metrics-port 9100' and 'endedge watch http://127.0.0.1:9100'"
        )
    return SweepView(folder)


class _Watcher(threading.Thread):
    """Looks now and then, and keeps what it saw; what goes wrong is shown, not raised."""

    def __init__(self, view: View) -> None:
        super().__init__(name="watch", daemon=True)
        self._view, self._stop = view, threading.Event()
        self.state = _encoded(view, view.look(), "")
        self._last: dict[str, Any] = {}

    def run(self) -> None:
        pause = _EVERY_S
        while not self._stop.wait(pause):
            began = time.monotonic()
            try:
                self._last = self._view.look()
                self.state = _encoded(self._view, self._last, "")
            except Exception as error:  # whatever a folder in motion does, the page goes on
                self.state = _encoded(self._view, self._last, str(error) or type(error).__name__)
            pause = max(_EVERY_S, _IDLE * (time.monotonic() - began))

    def stop(self) -> None:
        self._stop.set()


def _encoded(view: View, found: dict[str, Any], error: str) -> bytes:
    state = {"kind": view.kind, "time": time.time(), "error": error, **found}
    return json.dumps(state).encode()


@contextmanager
def serving(view: View, host: str = "127.0.0.1", port: int = 0) -> Iterator[tuple[str, int]]:
    """Serve the page of ``view`` from a thread; gives its address and port (0: any free one).

    Raises :class:`BadInput` where it cannot listen.
    """
    watcher = _Watcher(view)
    page = shell(
        "watch.html",
        view.name,
        f"endedge watch · {view.name}",
        {"figures": {}, "kind": view.kind},
        asset("watch.js"),
        live=True,
        sections=_SECTIONS[view.kind],
        kind=view.kind,
    ).encode()
    local = is_loopback(host)

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = (self.headers.get("Host") or "").rpartition(":")[0] or self.headers.get("Host")
            if local and name not in ("127.0.0.1", "localhost", "[::1]", host):
                self.send_error(403, "ask for a loopback name")
            elif self.path == "/":
                self._send(page, "text/html; charset=utf-8")
            elif self.path == "/state.json":
                self._send(watcher.state, "application/json")
            else:
                self.send_error(404)

        def _send(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            with contextlib.suppress(OSError):  # the reader has gone
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    try:
        server = ThreadingHTTPServer((host, port), Answers)
    except OSError as error:
        raise BadInput(f"cannot listen on {host}, port {port}: {error}") from None
    watcher.start()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield host, server.server_address[1]
    finally:
        watcher.stop()
        server.shutdown()
        server.server_close()
