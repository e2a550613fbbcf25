"""Suppression for accelerators keeps what Ultralytics keeps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from endedge.end import suppression
from endedge.end.inference import suppressed
from endedge.end.suppression import suppressed_there


def _raw(seed: int, n: int, classes: int, anchors: int, crowd: float) -> torch.Tensor:
    """Predictions whose boxes lie on each other where ``crowd`` is small."""
    drawn = torch.Generator().manual_seed(seed)
    middle = 320 * crowd * torch.rand(n, 2, anchors, generator=drawn)
    size = 40 + 60 * torch.rand(n, 2, anchors, generator=drawn)
    scores = torch.rand(n, classes, anchors, generator=drawn) ** 6
    return torch.cat([middle, size, (scores * 50).round() / 50], 1)  # some are equal


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 3),
    classes=st.sampled_from([1, 2, 5]),
    anchors=st.integers(7, 60),
    crowd=st.sampled_from([0.02, 0.2, 1.0]),
)
def test_the_same_boxes_in_the_same_order(
    seed: int, n: int, classes: int, anchors: int, crowd: float
) -> None:
    raw = _raw(seed, n, classes, anchors, crowd)
    rows, counts, sure = suppressed_there(raw, min_score=0.001, most_iou=0.7, most=300)
    assert sure.all()
    for own, k, wanted in zip(rows, counts.tolist(), suppressed(raw.clone()), strict=True):
        assert torch.equal(own[:k], wanted)
        assert not own[k:].any()


def test_what_it_cannot_be_sure_of_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """More candidates than are looked at, of which too few stay; and a chain too long."""
    raw = _raw(0, 2, 3, 50, 0.02)
    monkeypatch.setattr(suppression, "_CANDIDATES", 40)
    assert not suppressed_there(raw, min_score=0.001, most_iou=0.7, most=300)[2].any()
    full = suppressed_there(_raw(0, 2, 3, 50, 1.0), min_score=0.001, most_iou=0.7, most=5)
    assert full[2].all()  # as many stay as may
    monkeypatch.undo()
    monkeypatch.setattr(suppression, "_ROUNDS", 2)
    steps = torch.tensor([[[10.0 + 8 * i, 50.0, 60.0, 60.0, 0.9 - 0.05 * i] for i in range(10)]])
    rows, counts, sure = suppressed_there(steps.mT, min_score=0.001, most_iou=0.7, most=300)
    assert not sure.any()
    monkeypatch.undo()
    rows, counts, sure = suppressed_there(steps.mT, min_score=0.001, most_iou=0.7, most=300)
    assert sure.all()
    assert torch.equal(rows[0, : int(counts[0])], suppressed(steps.mT.clone())[0])
