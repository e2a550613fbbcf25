"""Files from the web: resumed where they broke off, checked, and whole or absent.

COCO's 2017 validation frames and annotations are known by name, with their sizes and MD5 sums;
anything else comes by its URL.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from endedge.data.errors import BadInput
from endedge.data.storage import locked, publish

__all__ = ["COCO_VAL", "WEIGHTS_URL", "Archive", "fetch", "fetch_coco_val", "fetch_weights"]

OnBytes = Callable[[int, int], None]  # (bytes there, bytes in all; 0: not known)

WEIGHTS_URL = "https://github.com/ultralytics/assets/releases/download/v8.4.0/"
_PINNED_URL = "https://github.com/ultralytics/assets/releases/download/v8.2.0/"
_PINNED = {  # SHA-256 of the files of that release; later ones saved yolov8n.pt anew
    "yolov8n.pt": "31e20dde3def09e2cf938c7be6fe23d9150bbbe503982af13345706515f2ef95",
    "yolov8s.pt": "1f47a78bf100391c2a140b7ac73a1caae18c32779be7d310658112f7ac9aa78a",
    "yolov8m.pt": "5d4a90cdc7a21786cc59cd19778e9eafff836df9e2da32524737c7ee6efe4fe5",
}
_PIECE = 1 << 20
_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Archive:
    """A ZIP file on the web and the one folder or file in it that is wanted."""

    path: str  # below the server's root
    checksum: str
    wanted: str


COCO_VAL = (
    Archive(
        "annotations/annotations_trainval2017.zip",
        "md5:f4bbac642086de4f52a3fdda2de5fa2c",
        "annotations/instances_val2017.json",
    ),
    Archive("zips/val2017.zip", "md5:442b8da7639aecaf257c1dceb8ba8c80", "val2017/"),
)
_COCO_SERVER = "http://images.cocodataset.org/"


def fetch(
    url: str,
    to: Path,
    *,
    checksum: str = "",
    on_bytes: OnBytes | None = None,
    tries: int = 5,
    wait_s: float = 1.0,
) -> Path:
    """Download ``url`` to the file ``to``; nothing is done when it is there (and matches).

    What has arrived stays in ``to``'s name plus ``.part`` and is gone on with, in this call
    (``tries`` times, waiting longer each time) and in the next. ``checksum`` is ``md5:…`` or
    ``sha256:…`` in hex. Raises :class:`BadInput` for an address that is no http(s) URL or does
    not answer, for a full disk, and for other content than the checksum names.

    Args:
        url: http or https.
        to: the file.
        checksum: ``md5:HEX`` or ``sha256:HEX``; empty: nothing is compared.
        on_bytes: hears of ``(bytes so far, bytes in all)``.
        tries: >= 1.
        wait_s: before the second try; doubled before each further one.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise BadInput(f"cannot download {url!r}: give a http:// or https:// address")
    kind, _, wanted = checksum.partition(":")
    if checksum and (kind not in ("md5", "sha256") or not wanted):
        raise BadInput(f"checksum {checksum!r} is not md5:HEX or sha256:HEX")
    if to.is_file():
        if wanted and _digest(to, kind) != wanted.lower():
            raise BadInput(f"{to} is there but its {kind} is not {wanted}; remove it and try again")
        return to
    part = to.with_name(f"{to.name}.part")
    try:
        with locked(to.with_name(f".{to.name}.lock")):
            if to.is_file():  # another process was faster
                return fetch(url, to, checksum=checksum)
            _arrive(url, part, on_bytes, tries, wait_s)
            if wanted and _digest(part, kind) != wanted.lower():
                part.unlink()
                raise BadInput(f"{url} does not have the {kind} {wanted}; what came is thrown away")
            publish(part, to)
    except OSError as error:
        raise BadInput(f"cannot write {to}: {error.strerror or error}") from None
    return to


def fetch_weights(
    name: str,
    to: Path,
    *,
    checksum: str = "",
    mirror: str | None = None,
    on_bytes: OnBytes | None = None,
    tries: int = 5,
) -> tuple[Path, bool]:
    """Ultralytics' release file ``name`` as the file ``to``, and whether its bytes were compared
    with a ``checksum``: the one given, or the SHA-256 that is known here for YOLOv8 n, s and m.
    ``mirror`` is another server of the same names. Raises :class:`BadInput` as :func:`fetch`.

    Args:
        name: of the release's file, ``yolov8n.pt``.
        to: the file.
        checksum: ``md5:HEX`` or ``sha256:HEX``.
        mirror: address of another server with the same paths.
        on_bytes: hears of ``(bytes so far, bytes in all)``.
        tries: >= 1.
    """
    known = f"sha256:{_PINNED[name]}" if name in _PINNED else ""
    server = mirror or (_PINNED_URL if known else WEIGHTS_URL)
    wanted = checksum or known
    url = f"{server.rstrip('/')}/{name}"
    return fetch(url, to, checksum=wanted, on_bytes=on_bytes, tries=tries), bool(wanted)


def fetch_coco_val(
    folder: Path,
    *,
    server: str = _COCO_SERVER,
    on_bytes: OnBytes | None = None,
    archives: tuple[Archive, ...] = COCO_VAL,
) -> list[Path]:
    """COCO 2017 validation into ``folder``: ``annotations/instances_val2017.json`` and
    ``val2017/``. The archives (1.1 GB) are removed when they are unpacked. ``server`` may be a
    mirror. Raises :class:`BadInput` as :func:`fetch` does."""
    made = []
    for archive in archives:
        target = folder / archive.wanted
        if not target.exists():
            url = server.rstrip("/") + "/" + archive.path
            file = folder / Path(archive.path).name
            fetch(url, file, checksum=archive.checksum, on_bytes=on_bytes)
            _unpack(file, archive.wanted, folder)
            file.unlink()
        made.append(target)
    return made


class _NoRoomError(Exception):
    """The disk has no room for what the server announces."""


def _arrive(url: str, part: Path, on_bytes: OnBytes | None, tries: int, wait_s: float) -> None:
    """:func:`_continue` until all is there, ``tries`` times."""
    for attempt in range(tries):
        try:
            _continue(url, part, on_bytes)
            return
        except (urllib.error.HTTPError, _NoRoomError) as error:
            raise BadInput(f"cannot download {url}: {error}") from None
        except (OSError, http.client.HTTPException) as error:  # cut, or nobody there
            if attempt == tries - 1:
                kept = part.stat().st_size if part.exists() else 0
                raise BadInput(
                    f"cannot download {url}: {error}; {kept:,} bytes are kept in {part}, "
                    "the same command goes on from there"
                ) from None
            time.sleep(wait_s * 2**attempt)


def _continue(url: str, part: Path, on_bytes: OnBytes | None) -> None:
    """Append what is missing of ``part``; from the start where the server cannot resume."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is missing, or the file became shorter
            size = (error.headers.get("Content-Range") or "").rpartition("/")[2]
            if size != str(have):
                part.unlink()
                _continue(url, part, on_bytes)
            return
        raise
    with answer:
        resumed = answer.status == 206
        have = have if resumed else 0
        left = int(answer.headers.get("Content-Length") or 0)
        total = have + left if left else 0
        if left > shutil.disk_usage(part.parent).free:
            raise _NoRoomError(f"{left:,} bytes are to come and {part.parent} has no room for them")
        with part.open("ab" if resumed else "wb") as file:
            while piece := answer.read(_PIECE):
                file.write(piece)
                have += len(piece)
                if on_bytes is not None:
                    on_bytes(have, total)
        if total and have < total:
            raise OSError(f"the connection was cut after {have:,} of {total:,} bytes")


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def _unpack(file: Path, wanted: str, folder: Path) -> None:
    """The members of ``wanted`` (a file, or a folder ending in /) into ``folder``, appearing
    by one rename."""
    scratch = folder / f".{file.name}.unpacked"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        with zipfile.ZipFile(file) as archive:
            below = wanted if wanted.endswith("/") else None
            files = [n for n in archive.namelist() if not n.endswith("/")]
            names = [n for n in files if n == wanted or (below and n.startswith(below))]
            if not names:
                raise BadInput(f"{file} holds no {wanted}")
            for name in names:
                archive.extract(name, scratch)  # zipfile strips '..' and roots
    except zipfile.BadZipFile as error:
        raise BadInput(f"{file} is not a ZIP file ({error}); remove it and try again") from None
    target = folder / wanted
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(scratch / wanted, target)
    shutil.rmtree(scratch, ignore_errors=True)
