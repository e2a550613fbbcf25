"""Which package goes to a device whose model is, or is not, known."""

from __future__ import annotations

from typing import Any

import pytest

from endedge.data.errors import BadInput
from endedge.distill.package import choose


@pytest.mark.parametrize(
    ("mode", "certain", "too_small_for", "tried"),
    [
        ("auto", True, "", ["auto"]),
        ("delta", True, "", ["delta"]),
        ("full", True, "", ["full"]),
        ("delta", False, "", ["full"]),  # decodes on top of anything
        ("delta", False, "full", ["full", "delta"]),
        ("auto", False, "full", ["full", "delta"]),
    ],
)
def test_the_packages_that_are_tried(
    monkeypatch: pytest.MonkeyPatch, mode: str, certain: bool, too_small_for: str, tried: list[str]
) -> None:
    asked: list[str] = []

    def pack(model: Any, budget: int, *, base: Any, mode: str, **_: Any) -> str:
        asked.append(mode)
        assert (base is None) == (mode == "full")
        if mode == too_small_for:
            raise BadInput("budget too small")
        return mode

    monkeypatch.setattr(choose, "pack", pack)
    model: Any = object()
    assert choose.pack_for(model, 10, model, mode, certain=certain) == tried[-1]  # type: ignore[comparison-overlap]
    assert asked == tried


def test_a_budget_too_small_for_everything_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def pack(*_: Any, **__: Any) -> None:
        raise BadInput("budget too small")

    monkeypatch.setattr(choose, "pack", pack)
    model: Any = object()
    for certain, mode in ((True, "delta"), (False, "auto"), (False, "full")):
        with pytest.raises(BadInput, match="too small"):
            choose.pack_for(model, 10, model, mode, certain=certain)
