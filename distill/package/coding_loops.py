"""The compiled loops of the range coder, and one pass of it over integers in classes of like
magnitude. All in one module: Numba's cache does not notice that a function of another one changed.

The coder is that of the ``constriction`` library (Bamler, 2022; 32-bit words, 64-bit state, 24
bits of precision), after Martin (1979): tests hold every byte to that library's. It is written
out here because a package is hundreds of thousands of calls of a few symbols, and calls, sorting
and temporary arrays cost ten times what coding does.

A stream's state is an array of seven uint64: lower end, range, the decoder's window, words written
or read, words held back until a carry is decided, the first of those, and whether it decodes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from endedge.distill.package.compiled import compiled

__all__ = [
    "AT",
    "CLASSES",
    "CLASS_LOG",
    "DECODES",
    "EDGE",
    "FULL",
    "HELD",
    "LOG_FLOOR",
    "LOW",
    "LOWER",
    "MOST_WORDS",
    "RANGE",
    "WINDOW",
    "code_class",
    "code_pass",
    "code_raw",
    "flush",
]

EDGE = 20  #: the alphabet of a table is -EDGE..EDGE; the ends are escapes
_CORRUPT = -1  # what a pass returns for a stream that no encoder wrote
_SYMBOLS = 2 * EDGE + 1
_PRECISION = 24
CLASSES = 96  #: of predicted magnitude
LOG_FLOOR = -128  #: log2 of the smallest predicted magnitude, in sixteenths
CLASS_LOG = 5  #: sixteenths of an octave in one class
_ROW_WEIGHT, _COLUMN_WEIGHT, _KERNEL_WEIGHT = 8.0, 3.0, 6.0  # shrinkage, in observations
_HALF = 12  # bits are coded at most so many at once
_LONGEST_TAIL = 24  # bits
MOST_WORDS = 4  # an integer: a table's 24 bits, an escape's 29, low bits' 24
FULL = 0xFFFFFFFFFFFFFFFF

LOWER, RANGE, WINDOW, AT, HELD, _FIRST, DECODES = range(7)
_WORD = np.uint64(32)
_BITS = np.uint64(_PRECISION)
LOW = np.uint64(0xFFFFFFFF)
_ONE = np.uint64(1)
_NONE = np.uint64(0)
_WHOLE = np.uint64(1 << _PRECISION)
_NARROWEST = np.uint64(1 << 32)

U64 = np.uint64
State = NDArray[np.uint64]
Words = NDArray[np.uint32]


@compiled
def flush(state: State, words: Words, carry: bool) -> None:
    """Write the words held back: a carry turned them over, or it did not come."""
    at = np.int64(state[AT])
    words[at] = np.uint32((state[_FIRST] + (_ONE if carry else _NONE)) & LOW)
    for i in range(1, np.int64(state[HELD])):
        words[at + i] = np.uint32(_NONE if carry else LOW)
    state[AT] += state[HELD]
    state[HELD] = _NONE


@compiled
def _put(state: State, words: Words, left: NDArray[U64], chance: NDArray[U64]) -> None:
    """Encode intervals [left, left + chance) of [0, 2**24), one after the other."""
    lower, span = state[LOWER], state[RANGE]
    for i in range(len(left)):
        before = lower
        scale = span >> _BITS
        lower = lower + scale * left[i]
        span = scale * chance[i]
        if state[HELD] != _NONE and lower + span > lower:
            flush(state, words, lower < before)
        if span < _NARROWEST:
            word = lower >> _WORD
            lower = lower << _WORD
            span = span << _WORD
            if state[HELD] != _NONE:
                state[HELD] += _ONE
            elif lower + span > lower:
                words[state[AT]] = np.uint32(word)
                state[AT] += _ONE
            else:
                state[HELD] = _ONE
                state[_FIRST] = word
    state[LOWER] = lower
    state[RANGE] = span


@compiled
def _take_symbols(
    state: State, words: Words, edges: NDArray[U64], symbols: NDArray[np.int64]
) -> bool:
    """Decode ``symbols``; the k-th is [edges[k], edges[k + 1]). False for a corrupt stream."""
    lower, span, window, at = state[LOWER], state[RANGE], state[WINDOW], state[AT]
    for i in range(len(symbols)):
        scale = span >> _BITS
        slot = (window - lower) // scale
        if slot >= _WHOLE:
            return False
        k = np.uint64(EDGE)  # most often near the middle
        while slot < edges[k]:
            k -= _ONE
        while slot >= edges[k + _ONE]:
            k += _ONE
        symbols[i] = np.int64(k)
        lower = lower + scale * edges[k]
        span = scale * (edges[k + _ONE] - edges[k])
        if span < _NARROWEST:  # written out in both decoders: a shared step costs a fifth
            lower = lower << _WORD
            span = span << _WORD
            window = window << _WORD
            if at < len(words):
                window = window | np.uint64(words[at])
            at += _ONE
    state[LOWER], state[RANGE], state[WINDOW], state[AT] = lower, span, window, at
    return True


@compiled
def _take_bits(
    state: State, words: Words, n_bits: NDArray[np.int64], values: NDArray[np.int64], shift: int
) -> bool:
    """Decode raw bits, ``n_bits`` (0..12) for each of ``values``, into those from bit ``shift`` on.
    False for a corrupt stream."""
    lower, span, window, at = state[LOWER], state[RANGE], state[WINDOW], state[AT]
    for i in range(len(values)):
        if n_bits[i] <= 0:
            continue
        chance = _WHOLE >> np.uint64(n_bits[i])
        scale = span >> _BITS
        slot = (window - lower) // scale
        if slot >= _WHOLE:
            return False
        part = slot // chance
        values[i] |= np.int64(part) << shift
        lower = lower + scale * (part * chance)
        span = scale * chance
        if span < _NARROWEST:
            lower = lower << _WORD
            span = span << _WORD
            window = window << _WORD
            if at < len(words):
                window = window | np.uint64(words[at])
            at += _ONE
    state[LOWER], state[RANGE], state[WINDOW], state[AT] = lower, span, window, at
    return True


@compiled
def code_raw(
    state: State, words: Words, n_bits: NDArray[np.int64], values: NDArray[np.int64]
) -> bool:
    """Code raw ``values`` of ``n_bits`` (0..24) each: all low halves of at most 12 bits, then what
    is left. When decoding, they come in as zeros. False for a corrupt stream."""
    for shift in (0, _HALF):
        part_bits = np.maximum(n_bits - shift, 0)
        if shift == 0:
            part_bits = np.minimum(part_bits, _HALF)
        if state[DECODES] != _NONE:
            if not _take_bits(state, words, part_bits, values, shift):
                return False
            continue
        left = np.empty(len(values), np.uint64)
        chance = np.empty(len(values), np.uint64)
        n = 0
        for i in range(len(values)):
            if part_bits[i] > 0:
                part = (values[i] >> shift) & ((1 << part_bits[i]) - 1)
                chance[n] = _WHOLE >> np.uint64(part_bits[i])
                left[n] = np.uint64(part) * chance[n]
                n += 1
        _put(state, words, left[:n], chance[:n])
    return True


@compiled
def code_class(
    state: State,
    words: Words,
    table: NDArray[np.float64],
    symbols: NDArray[np.int64],
) -> bool:
    """Code ``symbols`` (0.._SYMBOLS-1), in place, by the weights in ``table``, which learns them.
    False for a corrupt stream."""
    total = 0.0
    for k in range(_SYMBOLS):
        total += table[k]
    scale = np.float64((1 << _PRECISION) - _SYMBOLS) / total
    edges = np.empty(_SYMBOLS + 1, np.uint64)
    reached = 0.0
    for k in range(_SYMBOLS):  # every symbol keeps a chance of at least 1
        edges[k] = np.uint64(reached * scale) + np.uint64(k)
        reached += table[k]
    edges[_SYMBOLS] = _WHOLE
    if state[DECODES] != _NONE:
        if not _take_symbols(state, words, edges, symbols):
            return False
    else:
        left = np.empty(len(symbols), np.uint64)
        chance = np.empty(len(symbols), np.uint64)
        for i in range(len(symbols)):
            k = symbols[i]
            left[i] = edges[k]
            chance[i] = edges[k + 1] - edges[k]
        _put(state, words, left, chance)
    counts = np.zeros(_SYMBOLS, np.int64)
    for i in range(len(symbols)):
        counts[symbols[i]] += 1
    for k in range(_SYMBOLS):
        table[k] += counts[k]
    return True


@compiled
def _code_escapes(
    state: State, words: Words, values: NDArray[np.int64], symbols: NDArray[np.int64]
) -> bool:
    """Code what exceeds the alphabet, by Exp-Golomb: five bits of length, then the bits. ``values``
    are whole when encoding, and become so when decoding. False for a corrupt stream."""
    decodes = state[DECODES] != _NONE
    n = 0
    for i in range(len(symbols)):
        if symbols[i] == 0 or symbols[i] == _SYMBOLS - 1:
            n += 1
    if n == 0:
        return True
    lengths = np.zeros(n, np.int64)
    tails = np.zeros(n, np.int64)
    n = 0
    for i in range(len(symbols)):
        if symbols[i] == 0 or symbols[i] == _SYMBOLS - 1:
            if not decodes:
                tail = abs(values[i]) - EDGE + 1
                while tail >> (lengths[n] + 1):
                    lengths[n] += 1
                tails[n] = tail - (1 << lengths[n])
            n += 1
    if not code_raw(state, words, np.full(n, 5), lengths):
        return False
    if lengths.max() > _LONGEST_TAIL or not code_raw(state, words, lengths, tails):
        return False
    n = 0
    for i in range(len(symbols)):
        if symbols[i] == 0 or symbols[i] == _SYMBOLS - 1:
            tail = tails[n] + (1 << lengths[n]) - 1
            values[i] = EDGE + tail if symbols[i] else -EDGE - tail
            n += 1
    return True


@compiled
def code_pass(
    state: State,
    words: Words,
    array: NDArray[np.int32],
    window: tuple[int, int, int, int, int, int],
    average: float,
    column_sum: NDArray[np.float64],
    row_sum: NDArray[np.float64],
    kernel_sum: NDArray[np.float64],
    tables: NDArray[np.float64],
    shifts: NDArray[np.int64],
) -> float:
    """Code a ``window`` (first row, last, first column, ... tap, each last excluded) of ``array``
    (rows, columns, taps), in place where the stream is read.

    Magnitudes are predicted from their ``average`` and from what was coded: ``column_sum``
    (columns, taps) in the rows before the window, ``row_sum`` (rows of it,) and ``kernel_sum``
    (rows of it, columns). Predictions sort integers into the classes of ``tables`` (classes,
    symbols), whose low ``shifts`` bits are sent raw. The three sums gain the magnitudes. Returns
    their total, or -1 for a corrupt stream.
    """
    first_row, last_row, first_column, last_column, first_tap, last_tap = window
    n_rows, n_columns, n_taps = (
        last_row - first_row,
        last_column - first_column,
        last_tap - first_tap,
    )
    size = n_rows * n_columns * n_taps
    coded_before = first_column * n_taps + first_tap * n_columns  # in each row
    single = np.empty(1, np.float32)
    bits = single.view(np.int32)
    column = np.empty((n_columns, n_taps))
    grain = _COLUMN_WEIGHT * average
    for c in range(n_columns):
        for t in range(n_taps):
            own = (column_sum[first_column + c, first_tap + t] + grain) / (
                first_row + _COLUMN_WEIGHT
            )
            column[c, t] = own / average
    classes = np.empty(size, np.uint8)
    grain = _ROW_WEIGHT * average
    starts = np.zeros(CLASSES + 1, np.int64)
    at = 0
    for r in range(n_rows):
        row = (row_sum[r] + grain) / (coded_before + _ROW_WEIGHT)
        for c in range(n_columns):
            heard = kernel_sum[r, first_column + c]
            for t in range(n_taps):
                expected = row * column[c, t]
                if first_tap:
                    shrunk = _KERNEL_WEIGHT * expected
                    expected = (heard + shrunk) / (first_tap + _KERNEL_WEIGHT)
                single[0] = expected
                log = (bits[0] >> 19) - (127 << 4)  # log2 in sixteenths, piecewise linear
                k = min(CLASSES - 1, max(0, (log - LOG_FLOOR) // CLASS_LOG))
                classes[at] = k
                starts[k + 1] += 1
                at += 1
    for k in range(CLASSES):
        starts[k + 1] += starts[k]
    decodes = state[DECODES] != _NONE
    places = starts[:CLASSES].copy()
    values = np.zeros(size, np.int64)  # in order of class
    symbols = np.empty(size, np.int64)
    raw_bits = np.zeros(size, np.int64)
    if not decodes:
        at = 0
        for r in range(n_rows):
            for c in range(n_columns):
                for t in range(n_taps):
                    k = classes[at]
                    value = np.int64(array[first_row + r, first_column + c, first_tap + t])
                    values[places[k]] = value
                    symbols[places[k]] = min(EDGE, max(-EDGE, value >> shifts[k])) + EDGE
                    places[k] += 1
                    at += 1
    last = 0
    for k in range(CLASSES):
        a, b = starts[k], starts[k + 1]
        if a < b:
            last = k
            if not code_class(state, words, tables[k], symbols[a:b]):
                return _CORRUPT
            if shifts[k]:
                raw_bits[a:b] = shifts[k]
    high = values >> raw_bits
    if decodes:
        high = symbols - EDGE
    if not _code_escapes(state, words, high, symbols):
        return _CORRUPT
    if shifts[last]:  # classes are in order of magnitude
        low = values & ((1 << raw_bits) - 1)
        if not code_raw(state, words, raw_bits, low):
            return _CORRUPT
        high = (high << raw_bits) + low
    elif not decodes:
        high = values
    places[:] = starts[:CLASSES]
    total = 0.0
    at = 0
    for r in range(n_rows):
        for c in range(n_columns):
            for t in range(n_taps):
                k = classes[at]
                value = high[places[k]]
                places[k] += 1
                at += 1
                if decodes:
                    array[first_row + r, first_column + c, first_tap + t] = value
                size_of = np.float64(abs(value))
                row_sum[r] += size_of
                column_sum[first_column + c, first_tap + t] += size_of
                kernel_sum[r, first_column + c] += size_of
                total += size_of
    return total
