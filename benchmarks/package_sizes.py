"""mAP against bytes: update packages beside other schemes, every model decoded from its bytes.

    python -m benchmarks.package_sizes --weights yolov8n.pt --coco coco/ --out packaging/
    python -m benchmarks.package_sizes --out packaging/ --report docs/results/packaging

``--coco`` holds annotations/instances_eval.json, images/eval, and images/pool with
annotations/instances_pool.json, whose first frames calibrate. Each point is one file of
``--out``: killed, the same command goes on; run by another Python, it adds the peers that are
installed there. Beside every peer stands ours at 85 % of its bytes. ``--report`` writes the
table (.md), the rows (.json) and the plot (.svg). Seconds are CPU seconds of one thread.

Peers: fp16 in a zip; b bits per output channel, rounded to nearest, zstd-19; magnitude mask,
fp16, gzip (AMS: Khani et al., ICCV 2021); ONNX Runtime static int8 (QDQ, per channel), the file
zipped; NNCodec's ``qp`` mode (ISO/IEC 15938-17; Clear BSD licence, no patent rights; it needs
NumPy 1, hence an environment of its own); NNCF int8 for OpenVINO, .bin and .xml zipped.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.package_schemes import (
    fp16_zip,
    masked,
    nncodec,
    onnxruntime_int8,
    openvino_int8,
    ours,
    rounded,
)
from endedge.data.coco import Dataset, Frame, load_coco, nested_subset
from endedge.data.frames import Batch, stack_frames
from endedge.data.storage import write_atomic
from endedge.distill.model import DetectionModel, load_detector
from endedge.end.metric import evaluate

BUDGETS = [2_200_000, 1_800_000, 1_600_000, 1_100_000, 900_000, 700_000, 450_000]
TARGETS = {2_200_000: 0.3, 1_600_000: 1.0, 1_100_000: 3.0, 700_000: 8.0}  # most points lost
AWARE, AWARE_STEPS, AWARE_FRAMES = (700_000, 450_000), 100, 320  # a fifth of them decides
QPS = (-40, -38, -36, -34, -32, -30, -28)  # of NNCodec: a step halves every 4 or so


@dataclass(frozen=True)
class Point:
    """``make`` gives the bytes on the wire, what runs on the device, and remarks."""

    name: str
    scheme: str
    make: Callable[[], tuple[int, Any, dict[str, Any]]]
    needs: str = ""  # a module


def points(model: DetectionModel, frames: list[Tensor], more: Tensor) -> Iterator[Point]:
    """Ours at :data:`BUDGETS` for every seed's calibration ``frames``, small ones also with
    integers trained on ``more``, and the peers."""
    for seed, some in enumerate(frames):
        for budget in BUDGETS if seed == 0 else TARGETS:
            yield Point(
                f"endedge-{budget}-s{seed}", "endedge", partial(ours, model, budget, some, seed)
            )
    for budget in AWARE:
        make = partial(ours, model, budget, more, 0, AWARE_STEPS)
        yield Point(f"endedge-aware-{budget}", "endedge, trained integers", make)
    yield Point("fp16", "fp16 zip", partial(fp16_zip, model))
    for bits in (8, 6, 5, 4):
        make = partial(rounded, model, bits)
        yield Point(f"int{bits}", f"int{bits} per channel + zstd", make, "zstandard")
    for share in (0.5, 0.3):
        yield Point(f"mask{share}", f"mask {share:.0%}, fp16, gzip", partial(masked, model, share))
    ort = partial(onnxruntime_int8, model, frames[0])
    yield Point("onnxruntime", "ONNX Runtime int8, zip", ort, "onnx")
    yield Point(
        "openvino", "OpenVINO int8 (NNCF), zip", partial(openvino_int8, model, frames[0]), "nncf"
    )
    for qp in QPS:
        yield Point(f"nncodec{qp}", "NNCodec", partial(nncodec, model, qp), "nncodec")


# --- measuring ----------------------------------------------------------------------------


def measure(out: Path, some: Iterator[Point], eyes: Batch, truth: Dataset, only: str) -> None:
    """Make, decode, evaluate and file every point that ``out`` does not hold yet."""
    for point in some:
        file = out / f"{point.name}.json"
        if file.exists() or not point.name.startswith(only):
            continue
        if point.needs and importlib.util.find_spec(point.needs) is None:
            print(f"{point.name}: not measured, this Python has no {point.needs}", flush=True)
            continue
        size, device, about = point.make()
        score = evaluate(device, eyes, truth)
        row = {"name": point.name, "scheme": point.scheme, "bytes": size, "map": score.map}
        row |= {"map50": score.map50, "images": score.images, **about}
        write_atomic(file, json.dumps(row, indent=1).encode())
        print(f"{point.name}: {size:,} bytes, mAP {100 * score.map:.2f}", flush=True)


def rows_of(out: Path) -> list[dict[str, Any]]:
    """What ``out`` holds, most bytes first."""
    rows = [json.loads(f.read_text()) for f in sorted(out.glob("*.json"))]
    return sorted(rows, key=lambda r: -r["bytes"])


def beside(model: DetectionModel, frames: Tensor, out: Path) -> Iterator[Point]:
    """Ours at 85 % of the bytes of every peer that was measured."""
    for row in rows_of(out):
        if row["scheme"] != "fp32" and not row["scheme"].startswith("endedge"):
            budget = int(0.85 * row["bytes"])
            make = partial(ours, model, budget, frames, 0)
            yield Point(f"endedge-{budget}-beside-{row['name']}", "endedge", make)


# --- reporting ----------------------------------------------------------------------------


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: every scheme, and ours at 85 % of a peer's bytes on the peer's line."""
    full = next(r["map"] for r in rows if r["scheme"] == "fp32")
    rivals = {r["name"].split("-beside-")[1]: r for r in rows if "-beside-" in r["name"]}
    lines = [
        f"fp32: {100 * full:.2f} mAP.",
        "",
        "| scheme | bytes | mAP | lost | encode, decode (s) | ours in at most 85 % of the bytes |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        if r["scheme"] == "fp32" or "-beside-" in r["name"]:
            continue
        rival, other = rivals.get(r["name"]), ""
        if rival:
            other = f"{rival['bytes']:,} B: {100 * rival['map']:.2f}"
            other += "" if rival["map"] >= r["map"] else " (less)"
        mine = r["scheme"].startswith("endedge")
        label = f"**{r['scheme']}**, seed {r['seed']}" if mine else r["scheme"]
        times = f"{r['encode_s']:.1f}, {r['decode_s']:.2f}" if "encode_s" in r else ""
        lines.append(
            f"| {label} | {r['bytes']:,} | {100 * r['map']:.2f} | {100 * (full - r['map']):.2f} "
            f"| {times} | {other} |"
        )
    return "\n".join(lines) + "\n"


def plot(rows: list[dict[str, Any]], file: Path) -> None:
    """mAP over bytes, one line or mark a scheme."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    full = next(r["map"] for r in rows if r["scheme"] == "fp32")
    axes.axhline(100 * full, color="0.6", lw=1, ls=":", label="fp32")
    families = {"int": "b bits + zstd", "mas": "mask + fp16 + gzip"}
    groups: dict[str, list[dict[str, Any]]] = {}
    for r in (r for r in rows if r["scheme"] != "fp32"):
        groups.setdefault(families.get(r["name"][:3], r["scheme"]), []).append(r)
    for marker, (name, some) in zip("osv^DPX*", groups.items(), strict=False):
        style = {"lw": 2.2, "color": "#d55e00"} if name == "endedge" else {"lw": 1.0}
        x, y = [r["bytes"] / 1e6 for r in some], [100 * r["map"] for r in some]
        axes.plot(x, y, marker=marker, ms=4, label=name, **style)
    axes.set_xscale("log")
    axes.set(xlabel="package (MB)", ylabel="mAP50-95 of the decoded model (%)", ylim=(0, None))
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(file, metadata={"Date": None})


def report(out: Path, stem: Path) -> None:
    """Write STEM.md, .json and .svg from the points in ``out`` and print the table."""
    rows = rows_of(out)
    if not any(r["scheme"] == "fp32" for r in rows):
        raise SystemExit(f"{out} holds no fp32.json; measure first")
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".md").write_text(table(rows))
    stem.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    plot(rows, stem.with_suffix(".svg"))
    print(table(rows))


def main() -> None:
    """Measure what is missing; then, where asked, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of points")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--coco", type=Path)
    parser.add_argument("--calibration", type=int, default=64, help="frames from the pool")
    parser.add_argument("--every", type=int, default=1, help="use every n-th evaluation frame")
    parser.add_argument("--seeds", type=int, default=3, help="calibration seeds at the targets")
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--only", default="", help="only points whose name starts with this")
    parser.add_argument("--report", type=Path, metavar="STEM")
    args = parser.parse_args()
    # this file's own folder is on the path, and "packaging" is also a library that others need
    sys.path[:] = [
        p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent
    ]
    torch.set_num_threads(1)
    if args.weights and args.coco:

        def look(frame: Frame) -> Any:
            return frame.read()

        args.out.mkdir(parents=True, exist_ok=True)
        truth = load_coco(args.coco / "annotations/instances_eval.json", args.coco / "images/eval")
        truth = truth.take(range(0, len(truth), args.every))
        pool = load_coco(args.coco / "annotations/instances_pool.json", args.coco / "images/pool")
        frames = [
            stack_frames(
                pool.take(nested_subset(len(pool), seed)[: args.calibration]).frames,
                args.imgsz,
                look,
            ).images
            for seed in range(args.seeds)
        ]
        eyes = stack_frames(truth.frames, args.imgsz, look)
        model = load_detector(args.weights)
        whole = Point("fp32", "fp32", lambda: (args.weights.stat().st_size, model, {}))
        measure(args.out, iter([whole]), eyes, truth, args.only and "fp32")
        drawn = pool.take(nested_subset(len(pool), 0)[:AWARE_FRAMES])
        more = stack_frames(drawn.frames, args.imgsz, look).images
        measure(args.out, points(model, frames, more), eyes, truth, args.only)
        measure(args.out, beside(model, frames[0], args.out), eyes, truth, args.only)
    if args.report:
        report(args.out, args.report)


if __name__ == "__main__":
    main()
