"""``endedge data``: frames and weights made, cut or downloaded."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from endedge.data.errors import BadInput
from endedge.lab.cli.arguments import Verb
from endedge.lab.cli.common import progress_bar
from endedge.lab.cli.numbers import SEED, whole

__all__ = ["declare"]


def declare(verb: Verb) -> None:
    """The jobs' arguments."""
    sub = verb(
        "generate",
        _generate,
        "make a set of generated frames",
        "endedge data generate --out frames --domain field --split eval -n 200",
    )
    sub.add_argument("--out", required=True, metavar="DIR")
    sub.add_argument("--domain", default="field", help="source or field")
    sub.add_argument("--split", default="pool")
    sub.add_argument("-n", type=whole(1), default=256)
    sub.add_argument("--seed", type=SEED, default=0)
    sub.add_argument("--size", type=whole(64, 1024), default=128, help="px")

    sub = verb(
        "subset",
        _subset,
        "cut a COCO set into splits that share no frame",
        "endedge data subset instances.json frames/ pool=1000 eval=@ids.txt --out mine",
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
        _download,
        "COCO's validation frames, thermal frames from a drone, weights, or any file",
        "endedge data download coco-val yolov8n.pt --out downloads",
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
    with progress_bar() as progress:
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
