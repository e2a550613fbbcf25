"""`endedge watch`: what it says of a sweep and of a server, to whom, and as a reader sees it."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from endedge.data.errors import BadInput
from endedge.edge.server.monitor import DeviceRow, metrics_text
from endedge.edge.server.service import EdgeService
from endedge.end.client.client import Device
from endedge.lab.cli.main import main
from endedge.lab.store import Running
from endedge.lab.watch.edge import EdgeView, read_metrics
from endedge.lab.watch.server import serving, view_of
from endedge.lab.watch.sweep import SweepView
from tests.browser import Browser, browsing
from tests.edge.server.rounds import adapt, device_config, finish, install, serve_config

ROW = DeviceRow("cam-1", True, 1000, 2000, 3, 48, 900, 1, 12.5, 2, 1, 0.25, "applied")


def _get(port: int, path: str, host: str = "", method: str = "GET") -> tuple[int, bytes, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, headers={"Host": host or f"127.0.0.1:{port}"})
    answer = connection.getresponse()
    return answer.status, answer.read(), str(answer.headers)


@pytest.fixture
def half_measured(place: Path) -> Path:
    """The tiny experiment with 2 of its 4 uploads measured, as a sweep leaves it when killed."""
    out = place / "out"
    assert main(["measure", str(place / "c.yaml"), "--out", str(out), "uplink.frames=[4,6]"]) == 0
    config = (out / "config.yaml").read_text()
    (out / "config.yaml").write_text(config.replace("- 6\n", "- 6\n  - 9\n"))
    return out


def test_a_sweep_as_it_stands(half_measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view = SweepView(half_measured)
    found = view.look()
    assert (found["cells"], found["done"], found["waiting"]) == (6, 4, 2)
    surface = found["surface"]
    assert [u[0] for u in surface["uploads"]] == [4, 6, 9]
    maps = {(c["frames"], c["budget_bytes"]): c["maps"] for c in surface["cells"]}
    assert [len(m) for m in maps.values()] == [1, 1, 1, 1, 0, 0]
    assert all(cell["next"] == "upload" for cell in surface["cells"] if not cell["maps"])
    assert found["seconds_left"] > 0
    assert found["losses"] == []  # nothing was heard of the trainings that are over

    def running(step: int, loss: float) -> None:
        says = f"student on 9 frames: step {step}/20, loss {loss}"
        now = [Running("student-x", "here", 1, 0.0, says)]
        monkeypatch.setattr("endedge.lab.store.Store.running", lambda self: now)

    for step, loss in ((10, 2.5), (20, 1.25)):
        running(step, loss)
        found = view.look()
    live = found["losses"][0]
    assert (live["name"], live["running"], live["of"]) == ("student on 9 frames", True, 20)
    assert (live["steps"], live["losses"]) == ([10, 20], [2.5, 1.25])
    json.dumps(found, allow_nan=False)
    assert main(["measure", str(half_measured / "config.yaml"), "--out", str(half_measured)]) == 0
    monkeypatch.undo()
    found = view.look()
    assert (found["done"], found["losses"][0]["running"]) == (6, False)


# Of a server ----------------------------------------------------------------------------------


@contextmanager
def _metrics(text: str, path: str = "/metrics") -> Iterator[tuple[str, list[str]]]:
    """Something that answers with ``text``; the list holds what it answers next."""
    said = [text]

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == path else 404)
            self.end_headers()
            self.wfile.write(said[0].encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", said
    finally:
        server.shutdown()
        server.server_close()


def test_a_server_as_its_metrics_say_it() -> None:
    other = replace(ROW, device_id="cam-2", connected=False, map50_95=None)
    with _metrics(metrics_text([ROW, other], {"applied": 2})) as (url, said):
        view = EdgeView(url)
        said[0] = metrics_text([replace(ROW, map50_95=0.5, sent_bytes=9000), other], {"applied": 3})
        found = view.look()
    assert found["events"] == {"applied": 3}
    one, two = found["devices"]
    assert (one["device"], one["connected"], one["applied_round"], one["missed"]) == (
        *("cam-1", 1, 2, 1),
    )
    assert [m for _, m in one["maps"]] == [0.25, 0.5]
    assert [down for _, _, down in one["bytes"]] == [2000, 9000]
    assert "map" not in two
    json.dumps(found, allow_nan=False)
    assert read_metrics('endedge_jobs{device="x"} NaN\nnonsense') == ({}, {})


def test_a_running_server_and_its_page(tmp_path: Path) -> None:
    """A real server and a real device on sockets: two rounds, seen by the page as they are done."""

    async def served() -> list[dict[str, Any]]:
        looks = []
        config = serve_config(tmp_path, metrics_port=0)
        async with EdgeService(config, adapt) as edge:
            url = f"http://127.0.0.1:{edge.metrics_port}"
            view = await asyncio.to_thread(EdgeView, url)
            looks.append(await asyncio.to_thread(view.look))
            page = ExitStack()  # the page looks before it opens, and the server has to answer
            _, port = await asyncio.to_thread(page.enter_context, serving(view))
            device = Device(device_config(tmp_path, edge.port), install, lambda model: 0.25)
            with page:
                async with device:
                    for last in (1, 2):
                        await finish(device, last)
                        looks.append(await asyncio.to_thread(view.look))
                    shown: dict[str, Any] = {"devices": []}
                    while [d["applied_round"] for d in shown["devices"]] != [2]:
                        _, body, _ = await asyncio.to_thread(_get, port, "/state.json")
                        shown = json.loads(body)
                        await asyncio.sleep(0.1)
                looks.append(shown)
        with pytest.raises(BadInput, match="does not answer"):  # the server has gone
            view.look()
        return looks

    before, one, two, page = asyncio.run(served())
    assert before["devices"] == []
    for rounds, look in ((1, one), (2, two)):
        (device,) = look["devices"]
        assert (device["device"], device["connected"]) == ("cam", 1)
        assert (device["applied_round"], device["missed"], device["jobs"]) == (rounds, 0, 0)
        assert (device["frames"], device["map"]) == (5 * rounds, 0.25)
        assert device["received_bytes"] > 60_000 * rounds  # what was uploaded, and words
        assert device["sent_bytes"] > 40_000 * rounds
        assert look["events"]["applied"] == rounds
    assert page["kind"] == "edge"
    assert page["devices"][0]["map"] == 0.25


def test_what_cannot_be_watched_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not a results folder"):
        view_of(str(tmp_path))
    (tmp_path / "audit.jsonl").write_text("")
    with pytest.raises(BadInput, match="--metrics-port 9100"):
        view_of(str(tmp_path))
    for url, says in (
        ("http://", "is no address"),
        ("ftp://x", "is no address"),
        ("http://[::1", "is no address"),
        ("http://127.0.0.1:9", "does not answer"),
    ):
        with pytest.raises(BadInput, match=says):
            view_of(url)
    with (
        _metrics("hello") as (url, _),
        pytest.raises(BadInput, match="not with the metrics of 'endedge serve'"),
    ):
        view_of(url)


# The page -------------------------------------------------------------------------------------


class _Made:
    """A view whose words are an attacker's."""

    kind, name = "sweep", "<script>alert(1)</script>"

    def __init__(self) -> None:
        self.fails = False

    def look(self) -> dict[str, Any]:
        if self.fails:
            raise RuntimeError("the folder <b>has gone</b>")
        evil = '<img src=x onerror="document.title=1">'
        cell = {"frames": 4, "codec": evil, "budget_bytes": 9, "of": 2, "failed": 0, "next": evil}
        return {
            "name": evil,
            "cells": 2,
            "done": 1,
            "failed": 1,
            "waiting": 0,
            "workers": 1,
            "seconds_left": None,
            "m0": 0.1,
            "running": [{"node": "n", "host": evil, "pid": 1, "seconds": 3.0, "says": evil}],
            "failures": [{"cell": evil, "reason": evil}],
            "history": [[0.0, 1]],
            "losses": [{"name": evil, "running": True, "of": 2, "steps": [1], "losses": [0.5]}],
            "surface": {
                "uploads": [[4, evil]],
                "budgets_bytes": [9],
                "cells": [{**cell, "maps": [0.2]}],
            },
        }


def test_only_this_machine_and_only_reading() -> None:
    with serving(_Made()) as (host, port):
        assert host == "127.0.0.1"
        status, page, head = _get(port, "/")
        assert (status, "nosniff" in head) == (200, True)
        assert b"connect-src 'self'" in page
        assert b"<script>alert" not in page
        status, state, _ = _get(port, "/state.json")
        assert json.loads(state)["done"] == 1
        assert _get(port, "/", host="localhost")[0] == 200
        assert _get(port, "/", host=f"evil.example:{port}")[0] == 403  # a site's own name for us
        assert _get(port, "/../../etc/passwd")[0] == 404
        for method in ("POST", "PUT", "DELETE"):
            assert _get(port, "/", method=method)[0] == 501
        with pytest.raises(BadInput, match="cannot listen on"), serving(_Made(), port=port):
            pass


def test_what_runs_is_text_and_trouble_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("endedge.lab.watch.server._EVERY_S", 0.2)
    view = _Made()
    with serving(view) as (host, port), browsing() as browser:
        browser.show(width=390, dark=True).open(f"http://{host}:{port}/")
        browser.until("document.body.dataset.seen")
        assert not browser.said
        assert browser.run("document.querySelectorAll('img').length") == 0
        assert browser.run("at('title').textContent").startswith("<img")
        assert browser.run("document.querySelector('#grid td').textContent") == "20.0 1/2"
        assert browser.run("document.documentElement.scrollWidth") <= 390
        assert browser.run("at('trouble').hidden")
        view.fails = True
        browser.until("!at('trouble').hidden")
        assert browser.run("at('trouble').textContent") == "the folder <b>has gone</b>"
        assert browser.run("at('title').textContent").startswith("<img")  # what was known stays


@pytest.fixture
def tab() -> Iterator[Browser]:
    with browsing() as browser:
        yield browser


@pytest.mark.slow
def test_the_page_follows_a_sweep(tab: Browser, half_measured: Path) -> None:
    with serving(view_of(str(half_measured))) as (host, port):
        tab.show(width=1280).open(f"http://{host}:{port}/")
        tab.until("document.body.dataset.seen")
        assert "4 of 6 cells measured" in tab.run("at('title').textContent")
        assert tab.run("document.querySelectorAll('#grid td.waits').length") == 2
        config = str(half_measured / "config.yaml")
        assert main(["measure", config, "--out", str(half_measured)]) == 0
        tab.until("/all 6 cells/.test(at('title').textContent)", 120)
        assert tab.run("document.querySelectorAll('#grid td.waits').length") == 0
        assert not tab.said
