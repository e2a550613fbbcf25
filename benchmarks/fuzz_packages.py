"""Random and mutated update packages for a bounded time: nothing but BadInput may come out.

    python benchmarks/fuzz_packages.py --seconds 60

Half the mutants get a valid checksum, so that they reach the description and the coded
integers. Prints how many were refused, how many decoded to exactly the packed model, the
slowest one and the peak memory; any other outcome ends the run with its seed.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import struct
import time

import numpy as np
import torch

from endedge.data.units import BadInput
from endedge.distill.model import build_detector, model_hash
from endedge.distill.package import inspect, pack, unpack

_SPEC = {
    "names": {0: "a", 1: "b"},
    "yaml": {
        "nc": 2,
        "reg_max": 8,
        "backbone": [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "C2f", [16, True]]],
        "head": [[-1, 1, "Conv", [24, 3, 2]], [[1, 2], 1, "Detect", ["nc"]]],
    },
}


def mutant(good: bytes, rng: np.random.Generator) -> bytes:
    """Noise, or ``good`` with some bytes changed, lost, repeated or a length field replaced."""
    kind = rng.integers(5)
    if kind == 0:
        return rng.bytes(int(rng.integers(0, 400)))
    body = bytearray(good)
    for _ in range(int(rng.integers(1, 8))):
        at = int(rng.integers(len(body)))
        match kind:
            case 1:
                body[at] = int(rng.integers(256))
            case 2:
                del body[at : at + int(rng.integers(1, 9))]
            case 3:
                body[at:at] = rng.bytes(int(rng.integers(1, 9)))
            case _:
                at = int(rng.integers(4, min(160, len(body) - 4)))
                struct.pack_into("<I", body, at, int(rng.integers(2**32)))
        if len(body) < 64:
            break
    if rng.random() < 0.5 and len(body) > 21:
        body[:4] = good[:4]
        body[5:21] = hashlib.sha256(bytes(body[:5]) + bytes(body[21:])).digest()[:16]
    return bytes(body)


def main() -> None:
    """Run for the given time and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    frames = torch.randint(0, 256, (2, 3, 64, 64)).byte()
    good = pack(build_detector(_SPEC).eval(), 9_000, frames=frames).data
    want = model_hash(unpack(good))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = same = 0
    slowest = 0.0
    end = time.monotonic() + args.seconds
    seed = args.seed
    while time.monotonic() < end:
        seed += 1
        data = mutant(good, np.random.default_rng(seed))
        start = time.monotonic()
        try:
            inspect(data)
            if model_hash(unpack(data)) != want:
                raise SystemExit(f"seed {seed}: decoded to another model")
            same += 1
        except BadInput:
            refused += 1
        except Exception as error:
            raise SystemExit(f"seed {seed}: {type(error).__name__}: {error}") from error
        slowest = max(slowest, time.monotonic() - start)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    print(f"{refused} refused, {same} decoded to the same model; slowest {slowest:.2f} s, ", end="")
    print(f"peak memory {grown / 1024:.0f} MiB above that of one honest package")


if __name__ == "__main__":
    main()
