"""mAP against bytes: update packages beside simpler schemes, every model decoded from its bytes.

    python benchmarks/packaging.py --weights yolov8n.pt --coco coco/ --json packaging.json

``--coco`` holds annotations/instances_eval.json, images/eval, and images/pool with
annotations/instances_pool.json, whose first frames calibrate. Seconds are CPU seconds of one
thread. Peers: fp16 in a zip; int8 per channel with lzma; round-to-nearest at b bits with lzma;
magnitude mask, fp16, gzip (AMS: Khani et al., 2021). NNCodec needs its own environment and is
not run here.
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from endedge.data.coco import Frame, load_coco, nested_subset, read_image
from endedge.data.frames import stack_frames
from endedge.distill.model import DetectionModel, clone, load_detector
from endedge.distill.package import pack, unpack
from endedge.distill.structure import layers
from endedge.end.metric import evaluate

_BUDGETS = [2_200_000, 1_600_000, 1_100_000, 700_000]


def _halves(model: DetectionModel) -> bytes:
    """Everything but convolution weights, as fp16."""
    convs = {f"{x.name}.weight" for x in layers(model)}
    rest = [v.half().numpy().tobytes() for k, v in model.state_dict().items() if k not in convs]
    return b"".join(rest)


def fp16_zip(model: DetectionModel) -> tuple[int, DetectionModel]:
    """All tensors as fp16, deflated."""
    twin = clone(model).half().float()
    blob = b"".join(v.half().numpy().tobytes() for v in model.state_dict().values())
    return len(zlib.compress(blob, 9)), twin


def rounded(model: DetectionModel, bits: int) -> tuple[int, DetectionModel]:
    """Round to nearest, one step a row from its largest magnitude; lzma; the rest fp16."""
    twin = clone(model)
    codes = [_halves(model)]
    for layer in layers(twin):
        weight = layer.conv.weight.data.flatten(1)
        step = weight.abs().amax(1, keepdim=True).clamp(min=1e-12).half().float()
        step = step / (2 ** (bits - 1) - 1)
        q = (weight / step).round()
        layer.conv.weight.data = (q * step).view_as(layer.conv.weight)
        codes += [q.to(torch.int8).numpy().tobytes(), step.half().numpy().tobytes()]
    return len(lzma.compress(b"".join(codes), preset=9)), twin


def masked(model: DetectionModel, share: float) -> tuple[int, DetectionModel]:
    """Keep the largest ``share`` of all weights as fp16 behind a bit mask, gzipped."""
    twin = clone(model)
    every = torch.cat([x.conv.weight.data.abs().flatten() for x in layers(twin)])
    threshold = every.kthvalue(max(1, round((1 - share) * every.numel()))).values
    masks, values = [], []
    for layer in layers(twin):
        weight = layer.conv.weight.data
        mask = weight.abs() > threshold
        layer.conv.weight.data = torch.where(mask, weight.half().float(), 0.0)
        masks.append(mask.flatten().numpy())
        values.append(weight[mask].half().numpy())
    blob = np.packbits(np.concatenate(masks)).tobytes() + np.concatenate(values).tobytes()
    return len(gzip.compress(blob + _halves(model), 9)), twin


def schemes(
    model: DetectionModel, budgets: list[int], frames: torch.Tensor, seeds: int
) -> Iterator[tuple[str, Callable[[], tuple[int, DetectionModel, dict[str, Any]]]]]:
    """Name and maker of every point of the table."""

    def plain(make: Callable[[], tuple[int, DetectionModel]]) -> Any:
        return lambda: (*make(), {})

    def ours(budget: int, seed: int, with_frames: bool) -> Any:
        def make() -> tuple[int, DetectionModel, dict[str, Any]]:
            start = time.process_time()
            packed = pack(model, budget, frames=frames if with_frames else None, seed=seed)
            middle = time.process_time()
            decoded = unpack(packed.data)
            seconds = {"encode_s": middle - start, "decode_s": time.process_time() - middle}
            return len(packed.data), decoded, {**seconds, **vars(packed.report), "seed": seed}

        return make

    for budget in budgets:
        for seed in range(seeds):
            yield f"endedge {budget / 1e6:.2f} MB", ours(budget, seed, True)
        yield f"endedge {budget / 1e6:.2f} MB, no frames", ours(budget, 0, False)
    yield "fp16 zip", plain(partial(fp16_zip, model))
    for bits in (8, 6, 5, 4):
        yield f"int{bits} lzma", plain(partial(rounded, model, bits))
    for share in (0.5, 0.3):
        yield f"mask {share:.0%} fp16 gzip", plain(partial(masked, model, share))


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--coco", type=Path, required=True)
    parser.add_argument(
        "--budgets", type=int, nargs="*", default=[2200000, 1600000, 1100000, 700000]
    )
    parser.add_argument("--calibration", type=int, default=64, help="frames from the pool")
    parser.add_argument("--every", type=int, default=1, help="use every n-th evaluation frame")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--only", default="", help="only schemes whose name ends with this")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)

    def look(frame: Frame) -> Any:
        return read_image(frame.path)

    truth = load_coco(args.coco / "annotations/instances_eval.json", args.coco / "images/eval")
    truth = truth.take(range(0, len(truth), args.every))
    pool = load_coco(args.coco / "annotations/instances_pool.json", args.coco / "images/pool")
    some = pool.take(nested_subset(len(pool), 0)[: args.calibration])
    frames = stack_frames(some.frames, args.imgsz, look).images
    pictures = stack_frames(truth.frames, args.imgsz, look)
    model = load_detector(args.weights)
    full = evaluate(model, pictures, truth)
    rows: list[dict[str, Any]] = [{"scheme": "fp32", "map": full.map, "map50": full.map50}]
    print(f"{'scheme':<28}{'bytes':>10}{'mAP':>8}{'loss':>7}{'encode':>9}{'decode':>8}")
    print(f"{'fp32':<28}{'':>10}{100 * full.map:>8.2f}", flush=True)
    for name, make in schemes(model, args.budgets, frames, args.seeds):
        if not name.endswith(args.only):
            continue
        size, decoded, about = make()
        score = evaluate(decoded, pictures, truth)
        rows.append(
            {"scheme": name, "bytes": size, "map": score.map, "map50": score.map50, **about}
        )
        times = f"{about['encode_s']:>8.1f}s{about['decode_s']:>7.2f}s" if about else ""
        loss = 100 * (full.map - score.map)
        print(f"{name:<28}{size:>10,}{100 * score.map:>8.2f}{loss:>7.2f}{times}", flush=True)
        if args.json:
            args.json.write_text(json.dumps({"frames": len(truth), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
