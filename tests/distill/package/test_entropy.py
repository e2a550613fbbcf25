"""The entropy coder: exact for any integers, below order-0 entropy where there is structure."""

from __future__ import annotations

import hashlib

import constriction
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from endedge.data.errors import BadInput
from endedge.distill.package import coding_loops
from endedge.distill.package.entropy import MAX_MAGNITUDE, decode_arrays, encode_arrays
from endedge.distill.package.range_coder import Coder

shapes = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 40)),
        st.tuples(st.integers(0, 12), st.integers(0, 12)),
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 10)),
    ),
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.05, 1.0, 30.0, 1e4, 1e6]))
def test_any_integers_round_trip(sizes: list[tuple[int, ...]], seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    arrays = [
        np.clip(rng.laplace(0, spread, size) if spread else np.zeros(size), -(2**23), 2**23)
        .round()
        .astype(np.int32)
        for size in sizes
    ]
    decoded = decode_arrays(encode_arrays(arrays), sizes)
    for one, other in zip(arrays, decoded, strict=True):
        assert one.shape == other.shape
        assert (one == other).all()


def test_extremes_round_trip() -> None:
    edge = np.array([[MAX_MAGNITUDE, -MAX_MAGNITUDE, 0, 1, -1]], np.int32)
    (decoded,) = decode_arrays(encode_arrays([edge]), [edge.shape])
    assert (decoded == edge).all()
    with pytest.raises(BadInput, match="beyond"):
        encode_arrays([edge * 2])


def order0_bytes(array: NDArray[np.int32]) -> float:
    _, counts = np.unique(array, return_counts=True)
    return float(-(counts * np.log2(counts / counts.sum())).sum() / 8)


def test_beats_order0_entropy_on_rows_and_columns_of_unequal_loudness() -> None:
    rng = np.random.default_rng(0)
    loud = rng.lognormal(0, 0.7, (64, 1, 1)) * rng.lognormal(0, 0.7, (1, 64, 1))
    array = np.rint(rng.laplace(0, 1.0, (64, 64, 9)) * loud).astype(np.int32)
    assert len(encode_arrays([array])) < 0.93 * order0_bytes(array)


def test_costs_little_over_order0_entropy_on_noise_without_structure() -> None:
    rng = np.random.default_rng(0)
    array = np.rint(rng.laplace(0, 2.0, (64, 64, 9))).astype(np.int32)
    assert len(encode_arrays([array])) < 1.01 * order0_bytes(array) + 64


def test_zeros_are_nearly_free() -> None:
    assert len(encode_arrays([np.zeros((256, 256, 9), np.int32)])) < 400


class _Reference:
    """A stream of the ``constriction`` library, driven by the same passes."""

    def __init__(self) -> None:
        self.coder = constriction.stream.queue.RangeEncoder()

    def symbols(self, table: NDArray[np.float64], symbols: NDArray[np.int64]) -> None:
        model = constriction.stream.model.Categorical(table, perfect=False)
        self.coder.encode(symbols.astype(np.int32), model)

    def bits(self, values: NDArray[np.int64], n_bits: NDArray[np.int64]) -> None:
        sizes = (1 << n_bits).astype(np.int32)
        self.coder.encode(values.astype(np.int32), constriction.stream.model.Uniform(), sizes)

    def finish(self) -> bytes:
        return bytes(self.coder.get_compressed().astype("<u4").tobytes())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.booleans(), max_size=30))
def test_every_byte_is_that_of_the_constriction_library(seed: int, kinds: list[bool]) -> None:
    """Tables from even to extremely uneven (carries over many words), raw bits in between."""
    rng = np.random.default_rng(seed)
    ours, reference = Coder(), _Reference()
    for raw in kinds:
        n = int(rng.integers(1, 300))
        ours.expect(n)
        if raw:
            n_bits = rng.integers(1, 13, n)
            values = rng.integers(0, 1 << n_bits)
            coding_loops.code_raw(ours._state, ours._words, n_bits, values)
            reference.bits(values, n_bits)
            continue
        table = np.exp(rng.normal(0, rng.choice([0.1, 2.0, 9.0]), 2 * coding_loops.EDGE + 1)) + 1e-3
        symbols = rng.choice(len(table), n, p=table / table.sum())
        reference.symbols(table, symbols)
        coding_loops.code_class(ours._state, ours._words, table.copy(), symbols)
    assert ours.finish() == reference.finish()


def test_bytes_are_those_of_the_first_packages() -> None:
    """Packages that were sent must be read: what one array was coded to, once and for all."""
    rng = np.random.default_rng(7)
    arrays = [
        np.rint(rng.laplace(0, spread, shape)).astype(np.int32)
        for spread, shape in (
            (90.0, (70,)),
            (0.3, (24, 24, 9)),
            (700.0, (40, 40)),
            (4.0, (9, 9, 1)),
        )
    ]
    digest = hashlib.sha256(encode_arrays(arrays)).hexdigest()
    assert digest.startswith("ce81b03b465122a2")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_decode_to_something_or_are_refused(data: bytes) -> None:
    try:
        (decoded,) = decode_arrays(data, [(7, 5, 9)])
    except BadInput:
        return
    assert decoded.shape == (7, 5, 9)
