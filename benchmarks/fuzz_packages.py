"""Random and mutated update packages for a bounded time: nothing but BadInput may come out.

    python -m benchmarks.fuzz_packages --packages 1000000 --seconds 3600

A share of the mutants gets a valid checksum, so that they reach the description and the coded
integers; the others must fail at the checksum. Another share (``--described``) is a description
with something in it replaced by something of any type, or with widths that nobody asked for,
deflated as it should be and under a valid checksum. Prints how many were refused, how many decoded
to exactly the packed model, the slowest one and the peak memory; any other outcome, a package that
takes over ten seconds, or more than twice the memory that the format's limit on parameters
allows for, ends the run with its seed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import struct
import time
import zlib
from typing import Any

import numpy as np
import torch

from endedge.data.errors import BadInput
from endedge.distill.model import build_detector, model_hash
from endedge.distill.package.format import PARAMETERS_PER_BYTE, inspect, unpack
from endedge.distill.package.packing import pack
from endedge.distill.package.spec_dictionary import SPEC_DICTIONARY

_SPEC = {
    "names": {0: "a", 1: "b"},
    "yaml": {
        "nc": 2,
        "reg_max": 8,
        "backbone": [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "C2f", [16, True]]],
        "head": [[-1, 1, "Conv", [24, 3, 2]], [[1, 2], 1, "Detect", ["nc"]]],
    },
}


_LONGEST_S = 10.0


def mutant(good: bytes, rng: np.random.Generator, forged: float) -> bytes:
    """Noise, or ``good`` with some bytes changed, lost, repeated or a length field replaced; with
    chance ``forged`` under a valid checksum."""
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
    if rng.random() < forged and len(body) > 21:
        body[:4] = good[:4]
        body[5:21] = hashlib.sha256(bytes(body[:5]) + bytes(body[21:])).digest()[:16]
    return bytes(body)


def other(value: Any, rng: np.random.Generator) -> Any:
    """``value`` with something somewhere in it replaced by something of any type."""
    odd: list[Any] = [
        None,
        True,
        -1,
        0,
        5,
        1e9,
        10**30,
        "",
        "nc",
        "print(1)",
        [],
        {},
        [[]],
        float("nan"),
    ]
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = list(value)[int(rng.integers(len(value)))]
        return {**value, key: other(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = int(rng.integers(len(value)))
        return [*value[:at], other(value[at], rng), *value[at + 1 :]]
    return odd[int(rng.integers(len(odd)))]


def described(good: bytes, rng: np.random.Generator) -> bytes:
    """``good`` with a forged description under a valid checksum: one to three entries replaced,
    or rows of the list of widths made up."""
    (length,) = struct.unpack_from("<I", good, 57)
    inflate = zlib.decompressobj(-15, zdict=SPEC_DICTIONARY)
    spec: Any = json.loads(inflate.decompress(good[61 : 61 + length]))
    if rng.random() < 0.3:
        numbers = [0, 1, 2, 8, 16, 24, 64, 1000, 4096, -1, 2**31]
        rows = [[int(i), *rng.choice(numbers, 2).tolist()] for i in rng.integers(0, 20, 3)]
        spec["widths"] = rows if rng.random() < 0.8 else other(rows, rng)
    else:
        for _ in range(int(rng.integers(1, 4))):
            spec = other(spec, rng)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=SPEC_DICTIONARY)
    blob = deflate.compress(json.dumps(spec).encode()) + deflate.flush()
    rest = good[21:57] + struct.pack("<I", len(blob)) + blob + good[61 + length :]
    return good[:5] + hashlib.sha256(good[:5] + rest).digest()[:16] + rest


def main() -> None:
    """Run for the given time and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--packages", type=int, default=10**6)
    parser.add_argument("--forged", type=float, default=0.1, help="share with a valid checksum")
    parser.add_argument("--described", type=float, default=0.1, help="forged descriptions")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    frames = torch.randint(0, 256, (2, 3, 64, 64)).byte()
    good = pack(build_detector(_SPEC).eval(), 9_000, frames=frames).data
    want = model_hash(unpack(good))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    allowed = 2 * 4 * PARAMETERS_PER_BYTE * (len(good) + 64)  # bytes: twice its float32
    refused = same = 0
    slowest = 0.0
    end = time.monotonic() + args.seconds
    seed = args.seed
    while time.monotonic() < end and refused + same < args.packages:
        seed += 1
        rng = np.random.default_rng(seed)
        deep = rng.random() < args.described
        data = described(good, rng) if deep else mutant(good, rng, args.forged)
        start = time.process_time()
        try:
            inspect(data)
            if model_hash(unpack(data)) != want:
                raise SystemExit(f"seed {seed}: decoded to another model")
            same += 1
        except BadInput:
            refused += 1
        except Exception as error:
            raise SystemExit(f"seed {seed}: {type(error).__name__}: {error}") from error
        took = time.process_time() - start
        slowest = max(slowest, took)
        grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory)
        if took > _LONGEST_S or grown > allowed:
            raise SystemExit(f"seed {seed}: {took:.1f} s, {grown / 1e6:.0f} MB more memory")
    print(f"{refused + same:,} packages: {refused:,} refused, {same:,} decoded to the same model")
    print(f"slowest {slowest:.2f} s; {grown / 1e6:.0f} MB above one honest package", end="")
    print(f" ({allowed / 1e6:.0f} MB allowed)")


if __name__ == "__main__":
    main()
