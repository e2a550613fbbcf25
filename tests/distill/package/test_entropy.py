"""The entropy coder: exact for any integers, below order-0 entropy where there is structure."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from endedge.data.errors import BadInput
from endedge.distill.package.entropy import MAX_MAGNITUDE, decode_arrays, encode_arrays

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


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_decode_to_something_or_are_refused(data: bytes) -> None:
    try:
        (decoded,) = decode_arrays(data, [(7, 5, 9)])
    except BadInput:
        return
    assert decoded.shape == (7, 5, 9)
