"""Bytes, hertz and seconds by hand: 1 kHz at 2 bit/s/Hz carries 250 B a second."""

from __future__ import annotations

from endedge.data.units import bytes_in_period, hz_for_bytes


def test_bytes_that_a_band_carries_and_the_band_that_carries_them() -> None:
    assert bytes_in_period(1000.0, 2.0, 60.0) == 15_000
    assert hz_for_bytes(15_000, 2.0, 60.0) == 1000
    assert hz_for_bytes(1, 1.0, 1.0) == 8
