"""The fixed part of a package, and the one that says: go back to a model that you keep."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from endedge.data.codec import Codec
from endedge.data.errors import BadInput
from endedge.distill.envelope import HEADER_BYTES, builds_on, opened, result_of, reuse, seal
from endedge.distill.model import DetectionModel, clone, model_hash
from endedge.distill.package import inspect, unpack
from endedge.distill.package.packing import reused
from endedge.end.device import DeviceEnd

HASHES = st.binary(min_size=32, max_size=32).map(bytes.hex)


@given(HASHES, st.none() | HASHES, st.floats(2**-20, 2**20, width=32), st.binary(), st.binary())
def test_what_is_sealed_is_what_is_opened(
    result: str, base: str | None, step: float, spec: bytes, stream: bytes
) -> None:
    found = opened(data := seal(result, base, step, spec, stream))
    assert (found.spec, found.stream, found.step) == (spec, stream, step)
    assert result_of(data) == found.result == result[:32]
    assert builds_on(data) == (None if base is None else base[:32])


@given(HASHES, st.integers(0, HEADER_BYTES - 1), st.integers(1, 255), st.binary(max_size=3))
def test_going_back_takes_64_bytes_and_every_one_is_checked(
    result: str, at: int, change: int, more: bytes
) -> None:
    data = reuse(result)
    assert len(data) <= 64
    assert builds_on(data) == result_of(data) == result[:32]
    broken = data[:at] + bytes([data[at] ^ change]) + data[at + 1 :]
    for wrong in (broken, data[:at], data + b"x" + more):
        with pytest.raises(BadInput):
            opened(wrong)
        assert builds_on(wrong) is None


def test_a_package_that_reuses_a_model_holds_nothing_else() -> None:
    """Also where its checksum is right."""
    result = "ab" * 32
    for body in ((b"", b"more"), (b"spec", b"")):
        full = bytearray(seal(result, None, 1.0, *body))
        for mode in (2, 3):
            full[4] = mode
            full[5:21] = hashlib.sha256(bytes(full[:5] + full[21:])).digest()[:16]
            with pytest.raises(BadInput, match=r"nothing else|unknown mode"):
                opened(bytes(full))


def test_the_device_goes_back_to_the_model_of_that_hash_and_to_no_other(
    tiny: DetectionModel,
) -> None:
    running, other = clone(tiny), clone(tiny)
    with torch.no_grad():
        next(iter(running.parameters())).add_(1.0)
        next(iter(other.parameters())).add_(2.0)
    packed, end = reused(tiny), DeviceEnd(Codec.parse("jpeg-q75-64"), 64, "cpu")
    assert inspect(packed.data)["mode"] == packed.report.mode == "reuse"
    keeps = {model_hash(m)[:32]: m for m in (tiny, other)}
    back = end.apply(packed.data, running, keeps.get)
    assert model_hash(back) == model_hash(tiny) != model_hash(running)
    assert back is not tiny
    assert model_hash(end.apply(packed.data, tiny)) == model_hash(tiny)
    del keeps[model_hash(tiny)[:32]]
    with pytest.raises(BadInput, match=f"goes back to the model {model_hash(tiny)[:32]}") as error:
        end.apply(packed.data, running, keeps.get)
    assert "\n" not in str(error.value)
    with pytest.raises(BadInput, match="goes back"):
        unpack(packed.data)


def test_who_only_passes_packages_on_needs_no_pytorch() -> None:
    code = "import sys, endedge.distill.envelope; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
