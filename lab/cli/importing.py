"""``endedge import``: frames of one's own into a folder that ``endedge run`` takes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from endedge.data.errors import BadInput
from endedge.lab.cli.arguments import Verb, add_json
from endedge.lab.cli.numbers import SEED, SIDE, positive, whole

__all__ = ["declare"]


def declare(verb: Verb) -> None:
    """The verb's arguments."""
    sub = verb(
        "import",
        import_source,
        "import your own frames and labels: COCO (CVAT, Label Studio, Roboflow), YOLO "
        "data.yaml, Pascal VOC, pictures or a video",
        "endedge import roboflow-export/ --out mine && endedge run mine --out runs/mine\n"
        "  endedge import voc/ --out mine --map motorbike=motorcycle --map '*='\n"
        "  endedge import day.mp4 --out mine --every 5 --teacher-labels pool --eval-from voc/",
    )
    sub.add_argument("source", metavar="PATH", help="a folder, a label file, or a video")
    sub.add_argument("--out", required=True, metavar="DIR", help="a new folder")
    sub.add_argument("--teacher", default="yolov8s.pt", help="detector (default yolov8s.pt)")
    sub.add_argument("--student", default="yolov8n.pt", help="detector (default yolov8n.pt)")
    sub.add_argument("--weights", metavar="DIR", help="folder of the two detectors")
    sub.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="class of the labels = class of the detector; OLD= leaves it out, '*=' all that "
        "match nothing (classes of one name need none)",
    )
    sub.add_argument(
        "--group",
        default="auto",
        choices=("auto", "folder", "time", "none"),
        metavar="GROUP",
        help="pictures that stay on one side: of one folder, of one stretch of time, none (auto: "
        "time for videos, folder where there are four or more)",
    )
    sub.add_argument(
        "--eval-share",
        type=float,
        default=0.25,
        help="share of the pictures to evaluate on (default 0.25)",
    )
    sub.add_argument("--eval-from", metavar="PATH", help="evaluate on these, upload the others")
    sub.add_argument(
        "--teacher-labels",
        default="none",
        choices=("none", "pool", "all"),
        metavar="WHICH",
        help="pictures without labels are labelled by the teacher: none, pool (what may be "
        "uploaded), all (also what is evaluated: agreement, not accuracy)",
    )
    sub.add_argument(
        "--score",
        type=float,
        default=0.25,
        help="lowest score of the teacher's labels (default 0.25)",
    )
    sub.add_argument(
        "--every", type=positive, default=1.0, help="seconds of video between frames (default 1)"
    )
    sub.add_argument("--imgsz", type=SIDE, help="px (default: 320, or what smaller pictures have)")
    sub.add_argument(
        "--near",
        type=whole(0, 256),
        default=4,
        help="look-alikes differ in at most this many bits of 256 (default 4)",
    )
    sub.add_argument("--seed", type=SEED, default=0, help="random seed of the split (default 0)")
    sub.add_argument(
        "--link", action="store_true", help="link to the pictures instead of copying them"
    )
    add_json(sub)


def import_source(a: argparse.Namespace) -> None:
    """``endedge import``."""
    from endedge.data.importing.classes import parse_map
    from endedge.lab.cli.common import one_thread
    from endedge.lab.cli.progress import Progress

    one_thread()
    from endedge.lab.own_frames import Wishes, import_frames

    if a.seed < 0:
        raise BadInput(f"--seed {a.seed} is negative")
    wishes = Wishes(
        teacher=a.teacher,
        student=a.student,
        weights=a.weights,
        mapping=parse_map(a.map),
        group=a.group,
        eval_share=a.eval_share,
        eval_from=Path(a.eval_from) if a.eval_from else None,
        teacher_labels=a.teacher_labels,
        score=a.score,
        every_s=a.every,
        side_px=a.imgsz,
        near_bits=a.near,
        seed=a.seed,
        link=a.link,
    )
    with Progress() as progress:

        def say(done: int, total: int, what: str) -> None:
            if done % max(1, total // 10) == 0:
                progress(done, total, what)

        report = import_frames(Path(a.source), Path(a.out), wishes, say)
    print(json.dumps(report, indent=1) if a.json else _told(report, a.out))


def _told(report: dict[str, Any], out: str) -> str:
    lines = [f"{report['format']} -> {out}"]
    for side, what in (("pool", "may be uploaded"), ("eval", "evaluated")):
        labels = report["labels"][side]
        by = "" if labels == "truth" else f", labels: {labels} ({report['teacher']})"
        lines.append(
            f"  {side}: {report['pictures'][side]} pictures, {report['boxes'][side]} boxes, "
            f"{what}{by}"
        )
    if report["labels"]["eval"] != "truth":
        lines.append("  mAP on these measures agreement with the teacher, not accuracy")
    lines.append(f"  split: {report['split']}")
    renamed = [f"{o} -> {n or 'left out'}" for o, n in report["classes"].items() if o != n]
    if renamed:
        lines.append("  classes: " + ", ".join(renamed))
    lines += [f"  left out: {n} {reason}" for reason, n in report["left_out"].items()]
    return "\n".join([*lines, f"next: endedge run {out} --out runs/{Path(out).name}"])
