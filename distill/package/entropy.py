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
The range coder itself is ``constriction`` (Bamler, 2022). All work is vectorized: a pass
codes one slice of an array, one call a class.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from endedge.data.errors import BadInput

__all__ = ["MAX_MAGNITUDE", "decode_arrays", "encode_arrays"]

Ints = NDArray[np.int32]

MAX_MAGNITUDE = 2**23  #: largest |integer| that can be coded
_EDGE = 20  # the alphabet of a table is -_EDGE.._EDGE; the ends are escapes
_SMALLEST_MEAN = 2.0**-10
_CLASSES = 96
_LOG_FLOOR = -128  # log2 of the smallest predicted magnitude, in sixteenths
_CLASS_LOG = 5  # sixteenths of an octave in one class
_PRIOR = 16.0  # pseudo-counts of a fresh table
_ROW_WEIGHT, _COLUMN_WEIGHT, _KERNEL_WEIGHT = 8.0, 3.0, 6.0  # shrinkage, in observations
_SMALLEST_BLOCK, _SMALLEST_PASS = 4096, 512  # integers
_model = constriction.stream.model


def encode_arrays(arrays: Sequence[Ints]) -> bytes:
    """Code integer arrays of shape (rows, columns, taps) as one stream of bytes.

    Arrays of one and two dimensions count as (1, n, 1) and (rows, columns, 1); they are
    coded in order and share the adaptive tables of their kind (vector or weight). Raises
    :class:`BadInput` if a magnitude exceeds :data:`MAX_MAGNITUDE`.
    """
    coder = _Encoder()
    tables = _fresh_tables()
    for array in arrays:
        _walk(coder, np.array(_as_3d(array), dtype=np.int64), tables[array.ndim == 1])
    return coder.finish()


def decode_arrays(data: bytes, shapes: Sequence[tuple[int, ...]]) -> list[Ints]:
    """The inverse of :func:`encode_arrays` for arrays of these ``shapes``.

    Bytes that no encoder wrote give other integers or :class:`BadInput`; time and memory
    are bounded by ``shapes`` either way.
    """
    if len(data) % 4:
        raise BadInput(f"coded integers: {len(data)} bytes is not a whole number of 32-bit words")
    coder = _Decoder(data)
    tables = _fresh_tables()
    result = []
    for shape in shapes:
        array = _as_3d(np.zeros(shape, np.int64))
        _walk(coder, array, tables[len(shape) == 1])
        result.append(array.reshape(shape).astype(np.int32))
    return result


def _as_3d(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 1:
        return array.reshape(1, -1, 1)
    return array.reshape(*array.shape[:2], math.prod(array.shape[2:]))


# --- the range coder, one class at a time -------------------------------------------------


class _Encoder:
    """Writes; ``table`` and ``bits`` return what they were given."""

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def table(self, weights: NDArray[np.float64], values: Ints) -> Ints:
        self._coder.encode(values, _model.Categorical(weights, perfect=False))
        return values

    def bits(self, n_bits: Ints, values: Ints) -> Ints:
        """Raw ``values`` of ``n_bits`` (0..24) each, as two halves of at most 12 bits."""
        low = np.minimum(n_bits, 12)
        self._raw(low, values & ((1 << low) - 1))
        self._raw(n_bits - low, values >> low)
        return values

    def _raw(self, n_bits: Ints, values: Ints) -> None:
        some = n_bits > 0
        if some.any():
            sizes = (1 << n_bits[some]).astype(np.int32)
            self._coder.encode(values[some].astype(np.int32), _model.Uniform(), sizes)

    def finish(self) -> bytes:
        return bytes(self._coder.get_compressed().astype("<u4").tobytes())


class _Decoder:
    """Reads; only the shape of ``values`` counts."""

    def __init__(self, data: bytes) -> None:
        words = np.frombuffer(data, "<u4").astype(np.uint32)
        self._coder = constriction.stream.queue.RangeDecoder(words)

    def table(self, weights: NDArray[np.float64], values: Ints) -> Ints:
        try:
            model = _model.Categorical(weights, perfect=False)
            return np.asarray(self._coder.decode(model, values.size), np.int32)
        except AssertionError:
            raise BadInput("coded integers: the stream is corrupt") from None

    def bits(self, n_bits: Ints, values: Ints) -> Ints:
        low = np.minimum(n_bits, 12)
        bottom = self._raw(low)
        return bottom | (self._raw(n_bits - low) << low)

    def _raw(self, n_bits: Ints) -> Ints:
        result = np.zeros(n_bits.size, np.int32)
        some = n_bits > 0
        if some.any():
            sizes = (1 << n_bits[some]).astype(np.int32)
            try:
                result[some] = self._coder.decode(_model.Uniform(), sizes)
            except AssertionError:
                raise BadInput("coded integers: the stream is corrupt") from None
        return result


# --- contexts and tables ------------------------------------------------------------------


def _log(x: NDArray[np.float64]) -> Ints:
    """log2 in sixteenths of an octave, piecewise linear, read off the bits of a float32."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.int32)
    return (bits >> 19) - (127 << 4)


def _class_magnitude(c: int) -> float:
    """Expected |integer| of class ``c`` (the inverse of :func:`_log`, exactly rounded)."""
    log = _LOG_FLOOR + c * _CLASS_LOG + _CLASS_LOG // 2
    return float(np.ldexp(1.0 + (log % 16) / 16.0, log // 16))


def _shift(c: int) -> int:
    """Low bits of class ``c`` that are sent raw, so that the rest fits the alphabet."""
    return max(0, (_LOG_FLOOR + (c + 1) * _CLASS_LOG) // 16 - 2)


_SHIFTS = np.array([_shift(c) for c in range(_CLASSES)], np.int32)


def _laplace(magnitude: float) -> NDArray[np.float64]:
    """Two-sided geometric weights over the alphabet with E|q| = ``magnitude``."""
    theta = (np.sqrt(1.0 + magnitude * magnitude) - 1.0) / magnitude
    powers = np.ones(_EDGE + 1)
    for k in range(1, _EDGE + 1):
        powers[k] = powers[k - 1] * theta
    powers[_EDGE] /= 1.0 - theta  # the escape holds the whole tail
    powers *= (1.0 - theta) / (1.0 + theta)
    return np.concatenate([powers[:0:-1], powers])


def _fresh_tables() -> list[NDArray[np.float64]]:
    """Two sets of adaptive tables (weights, vectors), each (classes, alphabet)."""
    one = np.stack([_laplace(_class_magnitude(c) / 2 ** _SHIFTS[c]) for c in range(_CLASSES)])
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


def _walk(coder: Any, array: NDArray[np.int64], tables: NDArray[np.float64]) -> None:
    """Code ``array`` in place; both directions see the same contexts."""
    rows, columns, taps = array.shape
    if array.size == 0:
        return
    level = _level(coder, array)
    mean = float(np.ldexp(1.0, level - 8))
    seen, seen_sum = 4.0, 4.0 * mean
    column_sum = np.zeros((columns, taps))
    for block in _blocks(rows, columns * taps):
        n_rows = block.stop - block.start
        row_sum = np.zeros(n_rows)
        row_count = 0
        kernel_sum = np.zeros((n_rows, columns))
        for cols, tap in _parts(n_rows, columns, taps):
            average = max(seen_sum / seen, _SMALLEST_MEAN)
            row = (row_sum + _ROW_WEIGHT * average) / (row_count + _ROW_WEIGHT)
            column = (column_sum[cols, tap] + _COLUMN_WEIGHT * average) / (
                block.start + _COLUMN_WEIGHT
            )
            expected = row[:, None, None] * (column / average)[None]
            if tap.start:
                expected = (kernel_sum[:, cols, None] + _KERNEL_WEIGHT * expected) / (
                    tap.start + _KERNEL_WEIGHT
                )
            classes = (_log(expected) - _LOG_FLOOR) // _CLASS_LOG
            values = array[block, cols, tap]
            coded = _code(coder, values.reshape(-1), classes.reshape(-1), tables)
            values[...] = coded.reshape(values.shape)
            size = np.abs(values).astype(np.float64)
            row_sum += size.sum(axis=(1, 2))
            row_count += values.shape[1] * values.shape[2]
            kernel_sum[:, cols] += size.sum(axis=2)
            column_sum[cols, tap] += size.sum(axis=0)
            seen += size.size
            seen_sum += size.sum()


def _level(coder: Any, array: NDArray[np.int64]) -> int:
    """Send the first guess of the mean magnitude: 0..31 for 2**-8..2**23."""
    total = int(np.abs(array).sum())
    if total > MAX_MAGNITUDE * array.size or int(np.abs(array).max()) > MAX_MAGNITUDE:
        raise BadInput(f"cannot code integers beyond +-{MAX_MAGNITUDE}")
    guess = (total * 256 // array.size).bit_length() - 1 if total else 0
    five = np.array([5], np.int32)
    return int(coder.bits(five, np.array([min(31, max(0, guess))], np.int32))[0])


def _code(
    coder: Any, values: NDArray[np.int64], classes: Ints, tables: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Code one pass: each class by its table, which learns; then escapes, then low bits."""
    classes = np.clip(classes, 0, _CLASSES - 1).astype(np.uint8)
    order = np.argsort(classes, kind="stable")
    counts = np.bincount(classes, minlength=_CLASSES)
    present = np.flatnonzero(counts)
    shifts = np.repeat(_SHIFTS[present], counts[present])
    high = values[order] >> shifts
    symbols = (np.clip(high, -_EDGE, _EDGE) + _EDGE).astype(np.int32)
    start = 0
    for c in present:
        stop = start + int(counts[c])
        coded = coder.table(tables[c], symbols[start:stop])
        symbols[start:stop] = coded
        tables[c] += np.bincount(coded, minlength=2 * _EDGE + 1)
        start = stop
    result: NDArray[np.int64] = symbols.astype(np.int64) - _EDGE
    escaped = np.flatnonzero(np.abs(result) == _EDGE)
    if escaped.size:
        tail = _code_tail(coder, np.abs(high[escaped]) - _EDGE)
        result[escaped] += np.sign(result[escaped]) * tail
    if shifts[-1]:  # classes are in order of magnitude
        mask = (1 << shifts.astype(np.int64)) - 1
        low = coder.bits(shifts, (values[order] & mask).astype(np.int32))
        result = (result << shifts) + low
    unsorted: NDArray[np.int64] = np.empty_like(result)
    unsorted[order] = result
    return unsorted


def _code_tail(coder: Any, tail: NDArray[np.int64]) -> NDArray[np.int64]:
    """What exceeds the alphabet, >= 0, by Exp-Golomb: five bits of length, then the bits."""
    tail = tail.clip(0) + 1
    length = np.frexp(tail.astype(np.float64))[1].astype(np.int32) - 1  # floor(log2)
    length = coder.bits(np.full(tail.size, 5, np.int32), length)
    if (length > 24).any():
        raise BadInput("coded integers: the stream is corrupt (an escape out of range)")
    whole = 1 << length.astype(np.int64)
    rest = coder.bits(length, (tail - whole).astype(np.int32))
    return np.asarray(rest + whole - 1, np.int64)
