"""The criterion for accelerators gives what Ultralytics' gives, whatever is in a picture."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from endedge.distill.dense import DenseLoss, anchors_of
from endedge.distill.feed import Targets, padded
from endedge.distill.losses import labels, labels_by_frame
from endedge.distill.model import DetectionModel
from endedge.distill.network import DEFAULT_CFG

_EDGE = st.floats(1 / 64, 63 / 64, width=32)
_BOX = st.tuples(st.integers(0, 2), _EDGE, _EDGE, _EDGE, _EDGE)
_PICTURES = st.lists(st.lists(_BOX, max_size=11), min_size=1, max_size=4)


@functools.cache
def _detector(name: str) -> DetectionModel:
    torch.manual_seed(0)
    model = DetectionModel(f"{name}.yaml", nc=3, verbose=False)
    model.args = DEFAULT_CFG
    for parameter in model.model[-1].parameters():  # else no class is ever likely
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.eval()


def _targets(boxes: list[list[tuple[float, ...]]], seed: int) -> Targets:
    torch.manual_seed(seed)
    rows = [(i, *box) for i, own in enumerate(boxes) for box in own]
    images = torch.rand(len(boxes), 3, 64, 64)
    return Targets(images, torch.tensor(rows).reshape(-1, 6), (), ())


def _leaves(raw: Any) -> list[torch.Tensor]:
    heads = [raw[n] for n in ("one2many", "one2one") if raw.get(n)] or [raw]
    return [head[part] for head in heads for part in ("boxes", "scores")]


def _apart(raw: Any) -> Any:
    """The same predictions, each to be asked for its gradient."""
    if isinstance(raw, dict):
        return {name: _apart(part) for name, part in raw.items()}
    if isinstance(raw, list | tuple):
        return [_apart(part) for part in raw]
    return raw.detach().clone().requires_grad_()


@pytest.mark.parametrize("name", ["yolov8n", "yolo11n", "yolov10n", "yolo26n"])
@settings(max_examples=8, deadline=None)
@given(boxes=_PICTURES, seed=st.integers(0, 9))
def test_losses_and_gradients_are_those_of_ultralytics(
    name: str, boxes: list[list[tuple[float, ...]]], seed: int
) -> None:
    model, targets = _detector(name), _targets(boxes, seed)
    with torch.no_grad():
        raw = model(targets.images)[1]
    one, other = _apart(raw), _apart(raw)
    theirs, ours = labels(model)(one, targets), DenseLoss(model)(other, targets, together=True)
    assert ours.mean().item() == pytest.approx(theirs.item(), rel=1e-5)
    theirs.backward()  # type: ignore[no-untyped-call]
    ours.mean().backward()  # type: ignore[no-untyped-call]
    for a, b in zip(_leaves(one), _leaves(other), strict=True):
        wanted = torch.zeros_like(a) if a.grad is None else a.grad
        got = torch.zeros_like(b) if b.grad is None else b.grad
        assert torch.allclose(wanted, got, rtol=1e-3, atol=1e-5 * float(wanted.abs().max()) + 1e-9)
    with torch.no_grad():
        alone = labels_by_frame(model)(raw, targets)
        apart = DenseLoss(model)(raw, targets, together=False)
    assert apart.tolist() == pytest.approx(alone.tolist(), rel=1e-5)


@pytest.mark.parametrize("name", ["yolov8n", "yolo26n"])
def test_pictures_without_boxes(name: str) -> None:
    model, targets = _detector(name), _targets([[], []], 0)
    with torch.no_grad():
        raw = model(targets.images)[1]
        found = DenseLoss(model)(raw, targets, together=True)
        assert float(found.mean()) == pytest.approx(float(labels(model)(raw, targets)), rel=1e-5)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=5))
def test_every_box_is_in_its_picture_s_row_and_nothing_else(counts: list[int]) -> None:
    rows = torch.tensor(
        [(i, j + 1.0, 0.5, 0.5, 0.1, 0.2) for i, k in enumerate(counts) for j in range(k)]
    ).reshape(-1, 6)
    found = padded(rows, len(counts))
    assert found.shape[1] % 8 == 0
    for i, k in enumerate(counts):
        assert found[i, :k, 0].tolist() == [j + 1.0 for j in range(k)]
        assert not found[i, k:].any()


def test_anchors_are_those_of_ultralytics() -> None:
    from ultralytics.utils.tal import make_anchors

    shapes, strides = ((5, 7), (3, 4)), [8.0, 16.0]
    maps = [torch.zeros(1, 1, *shape) for shape in shapes]
    wanted = make_anchors(maps, torch.tensor(strides), 0.5)
    for a, b in zip(wanted, anchors_of(shapes, strides, maps[0]), strict=True):
        assert torch.equal(a, b)
