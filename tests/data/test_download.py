"""Downloads against a local server that can cut connections and refuse to resume."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from endedge.data import download
from endedge.data.download import Archive, fetch, fetch_coco_val, fetch_weights
from endedge.data.errors import BadInput

CONTENT = bytes(range(256)) * 500


class Server(ThreadingHTTPServer):
    """``cut_after``: bytes after which a connection breaks; ``ranges``: can it resume."""

    files: dict[str, bytes]
    asked: list[str]
    cut_after = 0
    ranges = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.server.asked.append(wanted)
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-") or 0) if self.server.ranges else 0
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + self.server.cut_after if self.server.cut_after else len(content)
        self.wfile.write(content[start:end])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), _Handler)
    made.files, made.asked = {"/a.bin": CONTENT}, []
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def test_a_cut_download_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.cut_after = 50_000
    heard: list[tuple[int, int]] = []
    right = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
    to = tmp_path / "deep" / "a.bin"
    fetch(f"{server.url}/a.bin", to, checksum=right, on_bytes=lambda *n: heard.append(n), wait_s=0)
    assert to.read_bytes() == CONTENT
    assert server.asked == ["", "bytes=50000-", "bytes=100000-"]
    assert heard[-1] == (len(CONTENT), len(CONTENT))
    fetch(f"{server.url}/a.bin", to, checksum=right)
    assert len(server.asked) == 3  # it is there


def test_the_next_call_goes_on_too(server: Server, tmp_path: Path) -> None:
    server.cut_after, to = 60_000, tmp_path / "a.bin"
    with pytest.raises(BadInput, match=r"60,000 bytes are kept in .*a.bin.part"):
        fetch(f"{server.url}/a.bin", to, tries=1)
    assert not to.exists()
    server.cut_after = 0
    assert fetch(f"{server.url}/a.bin", to).read_bytes() == CONTENT
    assert server.asked == ["", "bytes=60000-"]


def test_odd_servers_and_leftovers(server: Server, tmp_path: Path) -> None:
    # One that cannot resume: from the start again.
    server.ranges, to = False, tmp_path / "a.bin"
    (tmp_path / "a.bin.part").write_bytes(b"x" * 1000)
    assert fetch(f"{server.url}/a.bin", to).read_bytes() == CONTENT
    # All had arrived when the program was killed.
    server.ranges, to = True, tmp_path / "b.bin"
    (tmp_path / "b.bin.part").write_bytes(CONTENT)
    assert fetch(f"{server.url}/a.bin", to).read_bytes() == CONTENT
    # The part is longer than the file is now.
    (tmp_path / "c.bin.part").write_bytes(CONTENT + b"more")
    assert fetch(f"{server.url}/a.bin", tmp_path / "c.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("url", "checksum", "says"),
    [
        ("/a.bin", "md5:" + "0" * 32, "does not have the md5"),
        ("/a.bin", "crc:12", "md5:HEX or sha256:HEX"),
        ("/none", "", "404"),
        ("file:///etc/passwd", "", "http"),
        ("http://127.0.0.1:1/a", "", "the same command goes on"),
    ],
)
def test_what_cannot_be_had(
    server: Server, tmp_path: Path, url: str, checksum: str, says: str
) -> None:
    address = f"{server.url}{url}" if url.startswith("/") else url
    with pytest.raises(BadInput, match=says):
        fetch(address, tmp_path / "a", checksum=checksum, tries=2, wait_s=0)
    assert not list(tmp_path.iterdir())


def test_another_file_under_that_name_is_not_overwritten(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"mine")
    with pytest.raises(BadInput, match="remove it and try again"):
        fetch(f"{server.url}/a.bin", tmp_path / "a", checksum="md5:" + "0" * 32)
    assert (tmp_path / "a").read_bytes() == b"mine"


def test_coco_is_unpacked_and_its_archives_removed(server: Server, tmp_path: Path) -> None:
    def zipped(*names: str) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name in names:
                archive.writestr(name, name)
        return out.getvalue()

    server.files = {
        "/annotations/a.zip": zipped("annotations/i.json", "annotations/captions.json"),
        "/zips/v.zip": zipped("v/1.jpg", "v/2.jpg", "../v/3.jpg", "vandal/4.jpg"),
    }
    archives = tuple(
        Archive(path[1:], f"md5:{hashlib.md5(content).hexdigest()}", wanted)
        for (path, content), wanted in zip(
            server.files.items(), ("annotations/i.json", "v/"), strict=True
        )
    )
    made = fetch_coco_val(tmp_path, server=server.url + "/", archives=archives)
    assert made == [tmp_path / "annotations/i.json", tmp_path / "v"]
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert files == ["annotations/i.json", "v/1.jpg", "v/2.jpg"]
    asked = len(server.asked)
    fetch_coco_val(tmp_path, server=server.url, archives=archives)
    assert len(server.asked) == asked


def test_weights_by_name_are_pinned(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files = {"/yolov8n.pt": CONTENT, "/yolo99n.pt": CONTENT}
    with pytest.raises(BadInput, match="does not have the sha256"):
        fetch_weights("yolov8n.pt", tmp_path / "yolov8n.pt", mirror=server.url)
    assert not list(tmp_path.iterdir())
    file, checked = fetch_weights("yolo99n.pt", tmp_path / "yolo99n.pt", mirror=server.url)
    assert file.read_bytes() == CONTENT
    assert not checked
    right = hashlib.sha256(CONTENT).hexdigest()
    again = tmp_path / "again.pt"
    assert fetch_weights("yolo99n.pt", again, mirror=server.url, checksum=f"sha256:{right}") == (
        again,
        True,
    )
    monkeypatch.setitem(download._PINNED, "yolov8n.pt", right)
    assert fetch_weights("yolov8n.pt", tmp_path / "n.pt", mirror=server.url)[1]
