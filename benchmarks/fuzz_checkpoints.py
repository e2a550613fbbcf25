"""Random and mutated checkpoints for a bounded time: nothing but BadInput may come out.

    python -m benchmarks.fuzz_checkpoints --kind pt --inputs 100000 --seconds 1800
    python -m benchmarks.fuzz_checkpoints --kind safetensors --inputs 100000 --seconds 1800

Starts from a tiny detector as Ultralytics (``.pt``) or endedge (``.safetensors``) saves it. A
mutant has bytes of the file changed, lost or added; or, with chance ``--deep``, bytes of the
pickle, of a tensor or of the description inside a container that is whole. Prints how many were
refused, how many loaded (weights may differ: a file has no hash), the slowest and the peak
memory. Anything else than a detector or BadInput, an open file or process that a mutant asked
for, ten seconds for one, or 500 MB more memory ends the run with its seed.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import struct
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from endedge.data.errors import BadInput
from endedge.distill.model import build_detector, load_detector, save_detector, spec_of

_SPEC = {
    "names": {0: "a", 1: "b"},
    "yaml": {
        "nc": 2,
        "reg_max": 4,
        "backbone": [[-1, 1, "Conv", [8, 3, 2]]],
        "head": [[[0], 1, "Detect", ["nc"]]],
    },
}
_LONGEST_S, _MOST_BYTES = 10.0, 500_000_000
_WATCHED = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.connect")
_asked: list[str] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _WATCHED:
        _asked.append(f"{event} {arguments!r:.100}")


def changed(data: bytes, rng: np.random.Generator) -> bytes:
    """``data`` with one to seven bytes or runs of bytes changed, lost, added or repeated."""
    body = bytearray(data)
    for _ in range(int(rng.integers(1, 8))):
        at = int(rng.integers(max(1, len(body))))
        match rng.integers(5):
            case 0:
                body[at : at + 1] = rng.bytes(1)
            case 1:
                del body[at : at + int(rng.integers(1, 9))]
            case 2:
                body[at:at] = rng.bytes(int(rng.integers(1, 9)))
            case 3:
                other = int(rng.integers(max(1, len(body))))
                body[at:at] = body[other : other + int(rng.integers(1, 40))]
            case _:
                body[at : at + 4] = struct.pack("<I", int(rng.integers(2**32)))
    return bytes(body)


def _inside_pt(parts: dict[str, bytes], rng: np.random.Generator) -> bytes:
    names = [n for n in parts if n.endswith("data.pkl")] * 30 + list(parts)
    hit = names[int(rng.integers(len(names)))]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, changed(content, rng) if name == hit else content)
    return out.getvalue()


def _inside_safetensors(data: bytes, rng: np.random.Generator) -> bytes:
    """The description inside the header changed, its text or its structure, under lengths that
    are right."""
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    text = header["__metadata__"]["spec"]
    if rng.random() < 0.5:
        text = changed(text.encode(), rng).decode("utf-8", "replace")
    else:
        text = json.dumps(other(json.loads(text), rng))
    header["__metadata__"]["spec"] = text
    told = json.dumps(header).encode()
    return struct.pack("<Q", len(told)) + told + data[8 + length :]


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


def main() -> None:
    """Run for the given time and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=("pt", "safetensors"), required=True)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--deep", type=float, default=0.7, help="share changed inside a container")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build_detector(_SPEC)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"good.{args.kind}"
        if args.kind == "pt":
            model.args = {}
            torch.save({"model": model, "spec": spec_of(model)}, file)
            with zipfile.ZipFile(file) as archive:
                parts = {name: archive.read(name) for name in archive.namelist()}
        else:
            save_detector(model, file)
        load_detector(file)
        good = file.read_bytes()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        sys.addaudithook(_watch)
        refused = loaded = seed = 0
        slowest = grown = 0.0
        end = time.monotonic() + args.seconds
        told = time.monotonic()
        while time.monotonic() < end and refused + loaded < args.inputs:
            seed += 1
            rng = np.random.default_rng([args.seed, seed])
            if rng.random() >= args.deep:
                data = changed(good, rng)
            elif args.kind == "pt":
                data = _inside_pt(parts, rng)
            else:
                data = _inside_safetensors(good, rng)
            file.write_bytes(data)
            start = time.process_time()
            try:
                load_detector(file)
                loaded += 1
            except BadInput:
                refused += 1
            except Exception as error:
                raise SystemExit(f"seed {seed}: {type(error).__name__}: {error}") from error
            took = time.process_time() - start
            slowest = max(slowest, took)
            grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory)
            if took > _LONGEST_S or grown > _MOST_BYTES or _asked:
                raise SystemExit(f"seed {seed}: {took:.1f} s, {grown / 1e6:.0f} MB, {_asked}")
            if time.monotonic() - told > 30:
                told = time.monotonic()
                print(f"{refused:,} refused, {loaded:,} loaded so far", file=sys.stderr, flush=True)
    print(f"{refused + loaded:,} files (.{args.kind}): {refused:,} refused, {loaded:,} loaded")
    print(f"slowest {slowest:.2f} s of processor time; {grown / 1e6:.0f} MB above the good file")


if __name__ == "__main__":
    main()
