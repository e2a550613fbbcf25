"""Batches that fit, and redaction."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from endedge.data.codec import Codec, decode_batch, encode, frames_within
from endedge.end.capture import covered, encode_batch, redact

CODEC = Codec("jpeg", 60, 64)


Shot = tuple[int, NDArray[np.uint8]]


def pictures(n: int) -> list[Shot]:
    rng = np.random.default_rng(0)
    return [(i, rng.integers(0, 256, (40, 64, 3), dtype=np.uint8)) for i in range(n)]


@pytest.mark.parametrize("budget", [0, 16, 3000, 5000, 9000, 1e9])
def test_a_batch_is_the_longest_prefix_that_fits(budget: float) -> None:
    shots = pictures(5)
    batch, n = encode_batch(shots, CODEC, budget)
    assert n == frames_within([len(encode(p, CODEC)) for _, p in shots], budget)
    assert len(batch) <= max(budget, 16)  # an empty batch is its header
    found = list(decode_batch(batch))
    assert [item[0] for item in found if isinstance(item, tuple)] == list(range(n))


def test_a_budget_pays_for_header_and_framing_to_the_byte() -> None:
    shots = pictures(3)
    whole, _ = encode_batch(shots, CODEC)
    assert encode_batch(shots, CODEC, len(whole)) == (whole, 3)
    one_byte_less, n = encode_batch(shots, CODEC, len(whole) - 1)
    assert n == 2
    assert len(one_byte_less) < len(whole) - 1


def test_nothing_is_encoded_beyond_the_first_that_does_not_fit() -> None:
    looked = []

    def shots() -> Iterator[Shot]:
        for image_id, picture in pictures(9):
            looked.append(image_id)
            yield image_id, picture

    _, n = encode_batch(shots(), CODEC, 8000)
    assert 0 < n < 8
    assert looked == list(range(n + 1))


def test_redaction_leaves_no_detail_inside_and_everything_outside() -> None:
    picture = pictures(1)[0][1]
    box = np.array([[10.0, 5.0, 20.0, 20.0]])
    out = redact(picture, box)
    inside = (slice(5, 25), slice(10, 30))
    changed = (out != picture).any(2)
    assert changed[inside].mean() > 0.9
    changed[3:27, 8:32] = False  # the box and its margin
    assert not changed.any()
    # Noise of sigma 74 averaged over 6 x 6 px: what is left varies by a sixth of it.
    assert out[inside].std() < picture[inside].std() / 3
    assert (picture == pictures(1)[0][1]).all()  # the device's own picture stays


@pytest.mark.parametrize(
    "box",
    [
        [-30.0, -30.0, 20.0, 20.0],  # outside
        [60.0, 30.0, 100.0, 100.0],  # reaches far beyond the frame
        [5.0, 5.0, 0.0, 0.0],  # no area
        [0.0, 0.0, 64.0, 40.0],  # everything
        [3.2, 3.7, 0.4, 30.0],  # a sliver
    ],
)
def test_any_box_can_be_redacted(box: list[float]) -> None:
    picture = pictures(1)[0][1]
    assert redact(picture, np.array([box])).shape == picture.shape


def test_covered_needs_half_of_a_box_under_one_blur() -> None:
    truth = np.array([[0.0, 0, 10, 10], [20, 0, 10, 10], [40, 0, 10, 10]])
    assert covered(truth, np.zeros((0, 4))) == 0
    assert covered(np.zeros((0, 4)), truth) == 0
    assert covered(truth, truth) == 3
    assert covered(truth, np.array([[5.0, 0, 10, 10]])) == 1  # exactly half of the first
    assert covered(truth, np.array([[5.1, 0, 10, 10]])) == 0
    assert covered(truth, np.array([[0.0, 0, 4, 10], [6.0, 0, 4, 10]])) == 0  # two small ones
