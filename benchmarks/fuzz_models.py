"""What the readers of detectors must stand (see fuzz.py): update packages and checkpoints.

``package``: a tenth of the mutants has a valid checksum, so that they reach the coded integers, a
tenth a description that is forged under one; what decodes must be the packed model. ``pt`` (as
Ultralytics saves it) and ``safetensors`` (as endedge does): seven of ten mutants are changed inside
a container that is whole: the pickle, a tensor, the description.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.fuzz_data import Try, mutated
from endedge.distill.model import (
    build_detector,
    load_detector,
    model_hash,
    save_detector,
    spec_of,
)
from endedge.distill.package.format import inspect, unpack
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
_TINY = {  # 4 ms a file instead of 15
    "names": {0: "a", 1: "b"},
    "yaml": {
        "nc": 2,
        "reg_max": 4,
        "backbone": [[-1, 1, "Conv", [8, 3, 2]]],
        "head": [[[0], 1, "Detect", ["nc"]]],
    },
}


def package(folder: Path) -> Try:
    """Updates of a small detector."""
    torch.set_num_threads(1)
    frames = torch.randint(0, 256, (2, 3, 64, 64)).byte()
    good = pack(build_detector(_SPEC).eval(), 9_000, frames=frames).data
    want = model_hash(unpack(good))

    def attempt(rng: np.random.Generator) -> str:
        kind = rng.random()
        data = described(good, rng) if kind < 0.1 else mutated(good, rng)
        if 0.1 <= kind < 0.2 and len(data) > 21:
            data = good[:5] + hashlib.sha256(good[:5] + data[21:]).digest()[:16] + data[21:]
        inspect(data)
        if model_hash(unpack(data)) != want:
            raise ValueError("decoded to another model")
        return "decoded to the same model"

    return attempt


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


def pt(folder: Path) -> Try:
    """Files of ``torch.save``."""
    file, model = folder / "good.pt", build_detector(_TINY)
    model.args = {}
    torch.save({"model": model, "spec": spec_of(model)}, file)
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    return _checkpoint(file, lambda rng: _inside_pt(parts, rng))


def safetensors(folder: Path) -> Try:
    """Files of ``save_detector``."""
    file = folder / "good.safetensors"
    save_detector(build_detector(_TINY), file)
    good = file.read_bytes()
    return _checkpoint(file, lambda rng: _inside_safetensors(good, rng))


def _checkpoint(file: Path, deep: Callable[[np.random.Generator], bytes]) -> Try:
    """A file has no hash, so weights may differ."""
    torch.set_num_threads(1)
    load_detector(file)
    good = file.read_bytes()

    def attempt(rng: np.random.Generator) -> str:
        file.write_bytes(deep(rng) if rng.random() < 0.7 else mutated(good, rng))
        load_detector(file)
        return "loaded"

    return attempt


def _inside_pt(parts: dict[str, bytes], rng: np.random.Generator) -> bytes:
    names = [n for n in parts if n.endswith("data.pkl")] * 30 + list(parts)
    hit = names[int(rng.integers(len(names)))]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, mutated(content, rng) if name == hit else content)
    return out.getvalue()


def _inside_safetensors(data: bytes, rng: np.random.Generator) -> bytes:
    """The description inside the header changed, its text or its structure, under lengths that
    are right."""
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    text = header["__metadata__"]["spec"]
    if rng.random() < 0.5:
        text = mutated(text.encode(), rng).decode("utf-8", "replace")
    else:
        text = json.dumps(other(json.loads(text), rng))
    header["__metadata__"]["spec"] = text
    told = json.dumps(header).encode()
    return struct.pack("<Q", len(told)) + told + data[8 + length :]


READERS: dict[str, Callable[[Path], Try]] = {
    "package": package,
    "pt": pt,
    "safetensors": safetensors,
}
