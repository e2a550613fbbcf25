"""What earlier rounds gained, as the prior of the next one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from endedge.data.codec import Codec
from endedge.edge.choosing import choose_and_train
from endedge.edge.evidence import FIRST_ROUND, Prior
from endedge.end.device import DeviceEnd
from endedge.lab.config import load_config
from endedge.lab.inputs import Inputs
from endedge.lab.loop.answers import Answers
from endedge.lab.store import Node, Store


def test_a_round_expects_what_the_rounds_before_gained(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(
        place / "c.yaml",
        [
            "adaptation.policy=chosen",
            "uplink.frames=[12]",
            "student={steps: 6, batch: 4}",
            "edge.replay_frames=0",
        ],
    )
    inputs = Inputs.of(config, place / "out")
    answers = Answers(inputs, Store(place / "out"), seed=0)
    priors: list[Prior] = []

    def spy(*arguments: Any, **options: Any) -> Any:
        priors.append(options["prior"])
        return choose_and_train(*arguments, **options)

    monkeypatch.setattr("endedge.edge.edge.choose_and_train", spy)
    end = DeviceEnd(Codec.parse("jpeg-q75-64"), inputs.side, "cpu")
    seen = inputs.captured(0)
    past: list[Node] = []
    for number in (1, 2, 3):
        batch = end.encode(seen[:12]).batch
        past.append(answers.answer("cam", number, batch, 200_000, base=None, past=past))
    gains = [node.record["gain"] for node in past]
    first, second, third = priors
    assert first == FIRST_ROUND
    assert second.mean == pytest.approx(gains[0] / 2)
    assert third == second.after(gains[1])
