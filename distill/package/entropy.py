"""Context-modelled adaptive arithmetic coding of integer arrays.

Quantized weights are not identically distributed: some rows (output channels), columns
(input channels) and kernels are louder than others. The coder predicts the magnitude of
every integer from what both sides have already coded (its row, its column, its own kernel),
sorts the integers by predicted magnitude into classes, and codes each class with its own
adaptive table. No side information is sent but one byte of scale an array, and the result
lies below the order-0 entropy of the array. (Predicting magnitudes from decoded
neighbours follows lossless image coding: Wu & Memon, CALIC, 1997; for weights: Wiedemann et
al., DeepCABAC, 2020.)

Everything that decides a probability is integer counting or a correctly rounded IEEE
operation (+, -, *, /, sqrt), so encoder and decoder agree bit for bit on every machine.
A pass codes one slice of an array, class by class (:mod:`.coding_loops`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from endedge.data.errors import BadInput
from endedge.distill.package.coding_loops import CLASS_LOG, CLASSES, EDGE, LOG_FLOOR
from endedge.distill.package.range_coder import Coder

__all__ = ["MAX_MAGNITUDE", "decode_arrays", "encode_arrays"]

Ints = NDArray[np.int32]

MAX_MAGNITUDE = 2**23  #: largest |integer| that can be coded
_SMALLEST_MEAN = 2.0**-10
_PRIOR = 16.0  # pseudo-counts of a fresh table
_SMALLEST_BLOCK, _SMALLEST_PASS = 4096, 512  # integers


def encode_arrays(arrays: Sequence[Ints]) -> bytes:
    """Code integer arrays of shape (rows, columns, taps) as one stream of bytes.

    Arrays of one and two dimensions count as (1, n, 1) and (rows, columns, 1); they are
    coded in order and share the adaptive tables of their kind (vector or weight). Raises
    :class:`BadInput` if a magnitude exceeds :data:`MAX_MAGNITUDE`.
    """
    coder = Coder()
    tables = _fresh_tables()
    for array in arrays:
        _walk(coder, np.ascontiguousarray(_as_3d(array), dtype=np.int32), tables[array.ndim == 1])
    return coder.finish()


def decode_arrays(data: bytes, shapes: Sequence[tuple[int, ...]]) -> list[Ints]:
    """The inverse of :func:`encode_arrays` for arrays of these ``shapes``.

    Bytes that no encoder wrote give other integers or :class:`BadInput`; time and memory
    are bounded by ``shapes`` either way.
    """
    if len(data) % 4:
        raise BadInput(f"coded integers: {len(data)} bytes is not a whole number of 32-bit words")
    coder = Coder(data)
    tables = _fresh_tables()
    result = []
    for shape in shapes:
        array = _as_3d(np.zeros(shape, np.int32))
        _walk(coder, array, tables[len(shape) == 1])
        result.append(array.reshape(shape))
    return result


def _as_3d(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 1:
        return array.reshape(1, -1, 1)
    return array.reshape(*array.shape[:2], math.prod(array.shape[2:]))


# --- contexts and tables ------------------------------------------------------------------


def _class_magnitude(c: int) -> float:
    """Expected |integer| of class ``c`` (exactly rounded)."""
    log = LOG_FLOOR + c * CLASS_LOG + CLASS_LOG // 2
    return float(np.ldexp(1.0 + (log % 16) / 16.0, log // 16))


def _shift(c: int) -> int:
    """Low bits of class ``c`` that are sent raw, so that the rest fits the alphabet."""
    return max(0, (LOG_FLOOR + (c + 1) * CLASS_LOG) // 16 - 2)


_SHIFTS = np.array([_shift(c) for c in range(CLASSES)], np.int64)


def _laplace(magnitude: float) -> NDArray[np.float64]:
    """Two-sided geometric weights over the alphabet with E|q| = ``magnitude``."""
    theta = (np.sqrt(1.0 + magnitude * magnitude) - 1.0) / magnitude
    powers = np.ones(EDGE + 1)
    for k in range(1, EDGE + 1):
        powers[k] = powers[k - 1] * theta
    powers[EDGE] /= 1.0 - theta  # the escape holds the whole tail
    powers *= (1.0 - theta) / (1.0 + theta)
    return np.concatenate([powers[:0:-1], powers])


def _fresh_tables() -> list[NDArray[np.float64]]:
    """Two sets of adaptive tables (weights, vectors), each (classes, alphabet)."""
    one = np.stack([_laplace(_class_magnitude(c) / 2 ** _SHIFTS[c]) for c in range(CLASSES)])
    return [_PRIOR * one + 1e-3, _PRIOR * one + 1e-3]


def _blocks(rows: int, row_size: int) -> list[slice]:
    """Row blocks that double in size, so that column statistics are there early.

    No block but the last is smaller than :data:`_SMALLEST_BLOCK` integers: passes cost time.
    """
    step = max(1, rows // 16, -(-_SMALLEST_BLOCK // max(1, row_size)))
    largest = max(step, rows // 4)
    edges = [0]
    while edges[-1] < rows:
        edges.append(min(rows, edges[-1] + step))
        step = min(2 * step, largest)
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def _parts(rows: int, columns: int, taps: int) -> Iterator[tuple[slice, slice]]:
    """Passes within a row block: kernel taps (small blocks: thirds), or column ranges."""
    if taps > 1:
        group = 1 if rows * columns >= _SMALLEST_PASS else -(-taps // 3)
        for k in range(0, taps, group):
            yield slice(0, columns), slice(k, min(taps, k + group))
    elif rows * columns < 2 * _SMALLEST_PASS:
        yield slice(0, columns), slice(0, 1)
    else:
        edges = [0, columns // 8, columns // 4, columns // 2, columns]
        for a, b in itertools.pairwise(edges):
            if a < b:
                yield slice(a, b), slice(0, 1)


def _walk(coder: Coder, array: Ints, tables: NDArray[np.float64]) -> None:
    """Code ``array`` in place; both directions see the same contexts."""
    rows, columns, taps = array.shape
    if array.size == 0:
        return
    coder.expect(array.size)
    mean = float(np.ldexp(1.0, coder.level(_level(array)) - 8))
    counted, seen_sum = 4.0, 4.0 * mean
    column_sum = np.zeros((columns, taps))
    for block in _blocks(rows, columns * taps):
        n_rows = block.stop - block.start
        row_sum = np.zeros(n_rows)
        kernel_sum = np.zeros((n_rows, columns))
        for cols, tap in _parts(n_rows, columns, taps):
            seen_sum += coder.integers(
                array,
                (block.start, block.stop, cols.start, cols.stop, tap.start, tap.stop),
                max(seen_sum / counted, _SMALLEST_MEAN),
                column_sum,
                row_sum,
                kernel_sum,
                tables,
                _SHIFTS,
            )
            counted += n_rows * (cols.stop - cols.start) * (tap.stop - tap.start)


def _level(array: Ints) -> int:
    """A first guess of the mean magnitude: 0..31 for 2**-8..2**23."""
    size = np.abs(array.astype(np.int64))
    total = int(size.sum())
    if int(size.max()) > MAX_MAGNITUDE:
        raise BadInput(f"cannot code integers beyond +-{MAX_MAGNITUDE}")
    return min(31, max(0, (total * 256 // array.size).bit_length() - 1)) if total else 0
