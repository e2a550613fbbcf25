"""The thin link: capacity, latency, jitter and outages of each direction, in exact arithmetic.

One model serves two clocks. The simulations ask it for transfer times (a pure function of
bytes and start time: nothing waits, nothing is random twice); the shaper of
:mod:`endedge.link.shaper` asks the same functions when it paces the bytes of a real socket.

Capacity is a curve of *cumulative* bytes over time, piecewise linear, so that a transfer of
``n`` bytes started at ``s`` leaves the bottleneck at the earliest ``t`` with
``C(t) - C(s) >= n``; nothing is stepped or sampled. Times are seconds since the link was
brought up, floats >= 0.
"""

from __future__ import annotations

import hashlib
import math
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from endedge.data.errors import BadInput
from endedge.data.units import parse_quantity

__all__ = ["Bottleneck", "Capacity", "Channel", "DuplexLink", "read_channel", "read_link"]

_MTU_BYTES = 1500  # what one line of a Mahimahi trace lets through (man mm-link)
_MAX_TRACE_BYTES = 64 * 2**20
_MAX_TRACE_MS = 10**9
_JITTER_SLOT_S = 0.1  # the delay is redrawn this often
_EPSILON_S = 1e-9  # a deadline met within a nanosecond is met


@dataclass(frozen=True)
class Capacity:
    """Cumulative bytes over one period, repeated forever.

    ``times_s`` and ``total_bytes`` are the corners of a non-decreasing piecewise linear
    curve from (0, 0); the last corner ends the period. Build it with :meth:`constant` or
    :meth:`mahimahi`.
    """

    times_s: tuple[float, ...]
    total_bytes: tuple[float, ...]

    @classmethod
    def constant(cls, bit_per_s: float) -> Capacity:
        """The same rate for ever. Raises :class:`BadInput` unless it is finite and > 0."""
        if not (math.isfinite(bit_per_s) and bit_per_s > 0):
            raise BadInput(f"capacity is {bit_per_s} bit/s; give a finite rate above 0")
        return cls((0.0, 1.0), (0.0, bit_per_s / 8.0))

    @classmethod
    def mahimahi(cls, source: Path | Iterable[int]) -> Capacity:
        """A packet-delivery trace: one time in ms a line, each letting 1500 bytes through.

        The format of Mahimahi's ``mm-link`` (Netravali et al., USENIX ATC 2015): times do not
        decrease, a repeated time is a further packet, the last time ends the period and the
        trace starts again. Mahimahi delivers the bytes at the end of the millisecond; here
        they flow during it, so that a transfer ends at most 1 ms earlier. Time 0 counts
        as the first millisecond. Raises :class:`BadInput` for anything else.
        """
        where = str(source) if isinstance(source, Path) else "trace"
        counts: dict[int, int] = {}
        last = 0
        lines: Iterable[str | int] = _trace_lines(source) if isinstance(source, Path) else source
        for number, item in enumerate(lines, start=1):
            try:
                time_ms = int(item)
            except ValueError:
                raise BadInput(
                    f"{where}, line {number}: {str(item)[:40]!r} is not one whole number of ms"
                ) from None
            if not last <= time_ms <= _MAX_TRACE_MS:
                raise BadInput(
                    f"{where}, line {number}: {time_ms} ms; times must not decrease, nor be "
                    f"negative or above {_MAX_TRACE_MS}"
                )
            last = time_ms
            counts[max(time_ms, 1)] = counts.get(max(time_ms, 1), 0) + 1
        if last == 0:
            raise BadInput(f"{where}: no delivery after 0 ms; the trace must last 1 ms or more")
        times, totals = [0.0], [0.0]
        for time_ms, packets in counts.items():
            if times[-1] < (time_ms - 1) / 1000:
                times.append((time_ms - 1) / 1000)
                totals.append(totals[-1])
            times.append(time_ms / 1000)
            totals.append(totals[-1] + packets * _MTU_BYTES)
        return cls(tuple(times), tuple(totals))

    @property
    def mean_bit_per_s(self) -> float:
        """Capacity averaged over the period, bit/s."""
        return 8.0 * self.total_bytes[-1] / self.times_s[-1]

    def levels(self, period_s: float, where: str = "trace") -> tuple[float, ...]:
        """The mean rate of each whole stretch of ``period_s`` over the mean of them all; of a trace
        that is shorter, 1. Raises :class:`BadInput` for a stretch in which nothing passes."""
        stretches = max(1, int(self.times_s[-1] / period_s))
        edges = [self.at(k * period_s) for k in range(stretches + 1)]
        passed = [b - a for a, b in pairwise(edges)]
        if min(passed) <= 0:
            raise BadInput(
                f"{where}: nothing passes in a whole period of {period_s:g} s; cut that out of "
                "the trace, or set a longer link.period_s"
            )
        return tuple(n * stretches / sum(passed) for n in passed)

    def at(self, time_s: float) -> float:
        """Bytes let through from 0 to ``time_s``."""
        periods, rest_s = divmod(time_s, self.times_s[-1])
        right = min(bisect_right(self.times_s, rest_s), len(self.times_s) - 1)
        return periods * self.total_bytes[-1] + _between(
            rest_s, right, self.times_s, self.total_bytes
        )

    def when(self, n_bytes: float) -> float:
        """The earliest time at which ``n_bytes`` > 0 have been let through."""
        periods = math.ceil(n_bytes / self.total_bytes[-1]) - 1
        rest = n_bytes - periods * self.total_bytes[-1]
        right = min(bisect_left(self.total_bytes, rest), len(self.total_bytes) - 1)
        return periods * self.times_s[-1] + _between(
            rest, max(right, 1), self.total_bytes, self.times_s
        )


def _between(x: float, right: int, xs: tuple[float, ...], ys: tuple[float, ...]) -> float:
    """Linear interpolation of ``ys`` at ``x`` between corners ``right - 1`` and ``right``."""
    share = (x - xs[right - 1]) / (xs[right] - xs[right - 1])
    return ys[right - 1] + share * (ys[right] - ys[right - 1])


def _trace_lines(path: Path) -> Iterable[str]:
    try:
        if path.stat().st_size > _MAX_TRACE_BYTES:
            raise BadInput(f"trace {path} is larger than {_MAX_TRACE_BYTES} bytes")
        return [line for line in path.read_text("ascii").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read trace {path}: {error}") from None


@dataclass(frozen=True)
class Channel:
    """One direction of the link.

    ``capacity``: bytes over time at the bottleneck, first in first out. ``latency_s``: added
    to every byte. ``jitter_s``: a further delay, uniform in [0, ``jitter_s``), redrawn from
    ``seed`` every 100 ms; bytes are never reordered. ``outages_s``: windows (start, end) in
    which nothing passes and capacity is lost.
    Raises :class:`BadInput` for negative or unordered values.
    """

    capacity: Capacity
    latency_s: float = 0.0
    jitter_s: float = 0.0
    outages_s: tuple[tuple[float, float], ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in (("latency", self.latency_s), ("jitter", self.jitter_s)):
            if not (math.isfinite(value) and 0 <= value <= 60):
                raise BadInput(f"link: {name} is {value} s; give 0 to 60")
        end_before = 0.0
        for begin, end in self.outages_s:
            if not (math.isfinite(end) and end_before <= begin < end):
                raise BadInput(
                    f"link: outage ({begin}, {end}); give windows (start, end) in seconds, in "
                    "order, not overlapping"
                )
            end_before = end

    def leaves_s(self, n_bytes: float, start_s: float) -> float:
        """When the last of ``n_bytes`` leaves the bottleneck if the first enters at ``start_s``."""
        position_s, left = start_s, float(n_bytes)
        for begin, end in self.outages_s:
            if end <= position_s:
                continue
            if position_s < begin:
                passed = self.capacity.at(begin) - self.capacity.at(position_s)
                if left <= passed:
                    break
                left -= passed
            position_s = end
        if left <= 0:
            return position_s
        return max(position_s, self.capacity.when(self.capacity.at(position_s) + left))

    def arrives_s(self, leaves_s: float, start_s: float) -> float:
        """When a byte that left at ``leaves_s`` arrives, behind those sent since ``start_s``."""
        if self.jitter_s == 0:
            return leaves_s + self.latency_s
        first_s = max(start_s, leaves_s - self.jitter_s)  # older ones have arrived before
        slots = range(int(first_s / _JITTER_SLOT_S), int(leaves_s / _JITTER_SLOT_S) + 1)
        behind = max(min((k + 1) * _JITTER_SLOT_S, leaves_s) + self._jitter(k) for k in slots)
        return behind + self.latency_s

    def _jitter(self, slot: int) -> float:
        digest = hashlib.blake2b(struct.pack("<qq", self.seed, slot), digest_size=8).digest()
        return float(self.jitter_s * int.from_bytes(digest, "little") / 2**64)

    def transfer_time_s(self, n_bytes: int, start_s: float = 0.0) -> float:
        """Seconds from ``start_s`` until the last of ``n_bytes`` has arrived, on an idle link."""
        return self.arrives_s(self.leaves_s(n_bytes, start_s), start_s) - start_s

    def bytes_by(self, deadline_s: float, start_s: float = 0.0) -> int:
        """The most whole bytes that, sent from ``start_s`` on, have arrived by ``deadline_s``.

        Exactly the inverse of :meth:`transfer_time_s` (found by bisection on it).
        """
        if deadline_s <= start_s:
            return 0
        most = int(self.capacity.at(deadline_s) - self.capacity.at(start_s)) + 2
        fits = bisect_right(
            range(most),
            deadline_s + _EPSILON_S,
            key=lambda n: self.arrives_s(self.leaves_s(n, start_s), start_s),
        )
        return max(fits - 1, 0)


@dataclass(frozen=True)
class DuplexLink:
    """Both directions, independent of each other: ``up`` device to edge, ``down`` back."""

    up: Channel
    down: Channel


class Bottleneck:
    """The queue in front of a :class:`Channel`: what is sent while it is busy waits its turn.

    It holds no clock: callers say when bytes are ready, in virtual or in real seconds.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.busy_until_s = 0.0
        self._arrived_s = 0.0
        self._began_s = 0.0

    def reserve(self, n_bytes: int, ready_s: float) -> float:
        """Queue ``n_bytes`` that are ready at ``ready_s``; returns when the last one arrives."""
        start_s = max(ready_s, self.busy_until_s)
        if start_s > self.busy_until_s:
            self._began_s = start_s  # idle before: a new run of back-to-back bytes
        self.busy_until_s = self.channel.leaves_s(n_bytes, start_s)
        arrives_s = self.channel.arrives_s(self.busy_until_s, self._began_s)
        self._arrived_s = max(self._arrived_s, arrives_s)
        return self._arrived_s


def read_channel(settings: Mapping[str, object], where: str = "link") -> Channel:
    """A :class:`Channel` from a mapping as people write it in a configuration file.

    Keys: ``capacity`` ("2 Mbit/s" or a number) or ``trace`` (path of a Mahimahi file), and
    optionally ``latency``, ``jitter`` (seconds, "0.05 s"), ``outages`` ([[start, end], ...]
    in seconds), ``seed``. Raises :class:`BadInput` for anything else.
    """
    unknown = set(settings) - {"capacity", "trace", "latency", "jitter", "outages", "seed"}
    if unknown:
        raise BadInput(f"{where}: unknown key {sorted(unknown)[0]!r}")
    if ("capacity" in settings) == ("trace" in settings):
        raise BadInput(f"{where}: give either 'capacity' or 'trace'")
    try:
        if "trace" in settings:
            capacity = Capacity.mahimahi(Path(str(settings["trace"])))
        else:
            capacity = Capacity.constant(_quantity(settings["capacity"], "bit/s"))
        outages = settings.get("outages", ())
        seed = settings.get("seed", 0)
        if not isinstance(outages, list | tuple) or not isinstance(seed, int):
            raise BadInput("'outages' is a list of [start, end] and 'seed' a whole number")
        return Channel(
            capacity,
            _quantity(settings.get("latency", 0.0), "s"),
            _quantity(settings.get("jitter", 0.0), "s"),
            tuple((float(begin), float(end)) for begin, end in outages),
            seed,
        )
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None
    except (TypeError, ValueError):
        raise BadInput(f"{where}: outages must be a list of [start, end] in seconds") from None


def read_link(settings: Mapping[str, object], where: str = "link") -> DuplexLink:
    """A :class:`DuplexLink` from ``{"up": {...}, "down": {...}}``; see :func:`read_channel`."""
    directions = []
    if set(settings) != {"up", "down"}:
        raise BadInput(f"{where}: give exactly the two directions 'up' and 'down'")
    for name in ("up", "down"):
        part = settings[name]
        if not isinstance(part, Mapping):
            raise BadInput(f"{where}.{name}: give a mapping such as {{capacity: 2 Mbit/s}}")
        directions.append(read_channel(part, f"{where}.{name}"))
    return DuplexLink(*directions)


def _quantity(value: object, unit: str) -> float:
    if not isinstance(value, str | int | float):
        raise BadInput(f"{value!r} is not a quantity in {unit}")
    return parse_quantity(value, unit)
