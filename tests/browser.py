"""A headless Chromium, spoken to over a pipe: what a reader would see, click and measure.

Only the standard library: the DevTools protocol is JSON with a NUL behind each message, on the
descriptors 3 and 4 of the browser.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

__all__ = ["AXE", "Browser", "browsing", "chromium"]

# axe-core's axe.min.js, where somebody put it: `npm pack axe-core` (MPL-2.0, not part of this).
AXE = Path(os.environ.get("ENDEDGE_AXE", "axe.min.js"))
_ANSWER_S = 120.0


def chromium() -> str:
    """The browser's path; skips the test where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if (found := shutil.which(name)) is not None:
            return found
    pytest.skip("no Chromium on this machine: the page's own code was not run")


class Browser:
    """One tab. ``said`` collects what its console said and every error of its scripts."""

    def __init__(self, to: int, answers: int) -> None:
        self._to, self._answers, self._rest, self._number = to, answers, b"", 0
        self.said: list[str] = []
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its answer; raises :class:`RuntimeError` for an error."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + _ANSWER_S
        while time.monotonic() < until:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])
            self._heard(answer)
        raise TimeoutError(method)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            chunk = os.read(self._answers, 1 << 20)
            if not chunk:
                raise RuntimeError("the browser has gone")
            self._rest += chunk
        message, self._rest = self._rest.split(b"\0", 1)
        return dict(json.loads(message))

    def _heard(self, event: dict[str, Any]) -> None:
        method, what = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.said.append(json.dumps(what["exceptionDetails"])[:800])
        elif method == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
            self.said.append(what["entry"]["text"])

    def show(self, *, width: int, height: int = 900, dark: bool = False) -> Self:
        """The window from now on: px, colour scheme; below 500 px it is a phone."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        return self

    def open(self, address: str, ready: str = 'document.body.dataset.ready === "yes"') -> Self:
        """Go there and wait until the expression ``ready`` holds."""
        self.call("Page.navigate", url=address)
        self.until(f"document.body && ({ready})")
        return self

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression (a promise is awaited)."""
        done = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in done:
            raise RuntimeError(json.dumps(done["exceptionDetails"])[:800])
        return done["result"].get("value")

    def until(self, expression: str, seconds: float = 60.0) -> None:
        """Wait for a JavaScript expression to become true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if self.run(f"Boolean({expression})"):
                    return
            except RuntimeError:  # between two pages
                pass
            time.sleep(0.1)
        raise TimeoutError(f"{expression}; said: {self.said}")

    def picture(self, to: Path, *, whole: bool = True) -> Path:
        """A PNG of the window, or of the ``whole`` page."""
        more: dict[str, Any] = {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            more = {
                "captureBeyondViewport": True,
                "clip": {
                    "x": 0,
                    "y": 0,
                    "width": size["width"],
                    "height": size["height"],
                    "scale": 1,
                },
            }
        to.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", **more)["data"]))
        return to

    def violations(self) -> list[str]:
        """What axe-core finds wrong with the page (WCAG 2 A and AA, best practices); skips the
        test where there is no axe-core."""
        if not AXE.is_file():
            pytest.skip(f"no axe-core at {AXE}: set ENDEDGE_AXE to its axe.min.js")
        self.run(f"{AXE.read_text(encoding='utf-8')}; 0")
        found = self.run("axe.run().then((r) => r.violations)")
        return [
            f"{v['id']}: {v['help']} ({len(v['nodes'])}, {v['nodes'][0]['html'][:120]}; "
            f"{v['nodes'][0].get('failureSummary', '')[:200]})"
            for v in found
        ]


@contextmanager
def browsing(*, solid: bool = False) -> Iterator[Browser]:
    """A browser that can reach this machine only, gone at the end; ``solid``: with WebGL, which
    takes a minute of software rendering."""
    command = [
        chromium(),
        "--headless=new",
        "--no-sandbox",
        *(("--enable-unsafe-swiftshader",) if solid else ("--disable-gpu", "--disable-3d-apis")),
        "--no-first-run",
        "--disable-background-networking",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--remote-debugging-pipe",
        "--hide-scrollbars",
    ]
    to_browser, from_us = os.pipe()
    from_browser, to_us = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        shell = 'exec 3<&"$1" 4>&"$2"; shift 2; exec "$@"'
        process = subprocess.Popen(
            [
                *("bash", "-c", shell, "-", str(to_browser), str(to_us)),
                *command,
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            pass_fds=(to_browser, to_us),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(to_us)
        try:
            yield Browser(from_us, from_browser)
        finally:
            process.terminate()
            process.wait(30)
            os.close(from_us)
            os.close(from_browser)
