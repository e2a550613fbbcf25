"""CPU seconds of packaging: prepared once, each budget, decoding; beside another installation.

    python -m benchmarks.packing_time --weights yolov8n.pt --coco coco/ [--before OTHER/bin/python]

``--coco`` holds images/pool with annotations/instances_pool.json; 32 of its frames calibrate, the
next 32 judge (nats a frame from the whole model's predictions). ``--before`` is the Python of an
older installation of endedge, which packs every budget by itself; the same frames and budgets go
through both. Processor time of one thread, after a first package of another model (imports,
compiled code).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def clocked(work: Callable[[], T]) -> tuple[float, T]:
    """CPU seconds of ``work`` and what it gave."""
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def measured(weights: Path, coco: Path, budgets: list[int]) -> dict[str, Any]:
    """Seconds, bytes and nats of every budget with the endedge that this Python imports."""
    import torch

    from endedge.configs import SHIPPED
    from endedge.data.coco import load_coco, read_image
    from endedge.data.frames import stack_frames
    from endedge.distill import package as packer
    from endedge.distill.losses import divergence
    from endedge.distill.model import load_detector

    torch.set_num_threads(1)
    pool = load_coco(coco / "annotations/instances_pool.json", coco / "images/pool")
    frames = stack_frames(
        pool.take(range(64)).frames, 320, lambda frame: read_image(frame.path)
    ).images
    small = load_detector(SHIPPED / "demo/student.safetensors")
    packer.unpack(packer.pack(small, 60_000, frames=frames[:1]).data)
    model, seen = load_detector(weights), frames[:32]
    found: dict[str, Any] = {"prepare_s": 0.0, "budgets": []}
    pack: Callable[[int], Any] = lambda budget: packer.pack(model, budget, frames=seen)  # noqa: E731
    if hasattr(packer, "prepare"):
        found["prepare_s"], prepared = clocked(lambda: packer.prepare(model, frames=seen))
        pack = prepared.pack
    for budget in budgets:
        pack_s, packed = clocked(lambda budget=budget: pack(budget))  # type: ignore[misc]
        decode_s, decoded = clocked(lambda data=packed.data: packer.unpack(data))  # type: ignore[misc]
        nats = divergence(model, decoded, frames[32:])
        row = {"budget": budget, "bytes": len(packed.data), "nats": nats}
        found["budgets"].append({**row, "pack_s": pack_s, "decode_s": decode_s})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--coco", type=Path, required=True)
    parser.add_argument("--budgets", default="2200000,1600000,700000")
    parser.add_argument("--before", help="Python of an older installation")
    parser.add_argument("--json", action="store_true", help="of this installation alone")
    a = parser.parse_args()
    if a.json:
        budgets = [int(b) for b in a.budgets.split(",")]
        print(json.dumps(measured(a.weights, a.coco, budgets)))
        return
    own = [__file__, "--json", "--weights", a.weights, "--coco", a.coco, "--budgets", a.budgets]
    for name, python in (("before", a.before), ("now", sys.executable)):
        if python is None:
            continue
        alone = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [python, *map(str, own)], env=alone, stdout=subprocess.PIPE, text=True, check=True
        )
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"{name}: prepared in {found['prepare_s']:.1f} s")
        for row in found["budgets"]:
            print(
                f"  {row['budget']:>9,} B: {row['bytes']:>9,} B sent, {row['nats']:.3f} nats, "
                f"packed {row['pack_s']:.1f} s, decoded {row['decode_s']:.2f} s"
            )


if __name__ == "__main__":
    main()
