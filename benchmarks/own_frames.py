"""From the export of a label tool to the model in a runtime, format by format, timed.

    python -m benchmarks.own_frames --out DIR [--formats roboflow voc] [--frames 60]

Frames are generated and written as each tool would export them (tests/exports.py); then the verbs
of docs/howto/own-data.md and runtimes.md, as a user types them: import, run without a further
key, allocate, export, predict, latency. Prints wall seconds a verb and the mAP in both engines;
the first verb that fails ends the run with what it said.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for tests.exports

from endedge.data.coco import Dataset
from endedge.data.generated import generate
from tests.exports import TOOLS

DETECTORS = ["--teacher", "endedge:demo/teacher.safetensors"]
DETECTORS += ["--student", "endedge:demo/student.safetensors"]


def main() -> None:
    """Walk every format and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--formats", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--runtime", choices=("onnx", "openvino"), default="onnx")
    parser.add_argument("--keys", nargs="*", default=[], help="overrides of the run; none is usual")
    args = parser.parse_args()
    frames = generate(args.out / "made", domain="field", split="pool", n=args.frames, seed=3)
    for name in args.formats:
        print(f"{name}: {walk(name, frames, args.out / name, args)}", flush=True)


def walk(name: str, frames: Dataset, place: Path, args: argparse.Namespace) -> str:
    """The verbs in turn; what each took."""
    shutil.rmtree(place, ignore_errors=True)
    TOOLS[name](place / "export", frames)
    mine, run = str(place / "mine"), str(place / "run")
    labelled = ["--annotations", f"{mine}/annotations/instances_eval.json"]
    labelled += ["--images", f"{mine}/images/eval", "--imgsz", "128"]
    model = str(place / f"model.{args.runtime}")
    verbs = {
        "import": [str(place / "export"), "--out", mine, *DETECTORS],
        "run": [mine, "--out", run, *args.keys],
        "allocate": [run, "--bandwidth", "20kHz", "--period", "60"],
        "export": [run, "--format", args.runtime, "-o", model, *labelled],
        "predict": [run, f"{mine}/images/eval", "--out", str(place / "seen"), "--imgsz", "128"],
        "latency": [run, "--runtime", "torch", "--runtime", args.runtime, *labelled, "--into", run],
        "report": [run],
    }
    said = []
    for verb, words in verbs.items():
        began = time.monotonic()
        done = subprocess.run(
            [Path(sys.executable).with_name("endedge"), verb, *words],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"{name}: endedge {verb} {' '.join(words)}\n{done.stderr[-2000:]}")
        said.append(f"{verb} {time.monotonic() - began:.0f} s")
        if verb in ("export", "allocate"):
            said.append(f"({done.stdout.strip().splitlines()[-1]})")
    return ", ".join(said)


if __name__ == "__main__":
    main()
