"""What the edge remembers from round to round, and what decisions in the loop may see.

The edge's update is replaced by one that marks the models that it gets, so a round that starts
from another teacher, another student or other labels is found out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import yaml

from endedge.allocator import Observed
from endedge.data.codec import EncodedFrame, encode, pack_batch
from endedge.data.shift import Shift
from endedge.distill.model import DetectionModel, clone, load_detector, model_hash
from endedge.edge.adapt import Adapted, Upload, Verdict
from endedge.edge.edge import EdgeEnd
from endedge.edge.labels import Labels
from endedge.edge.plan import Student
from endedge.edge.server.workers import Job
from endedge.lab.config import Config, load_config
from endedge.lab.inputs import Inputs
from endedge.lab.loop import answers
from endedge.lab.loop.adaptation import adapt
from endedge.lab.loop.answers import Answers, round_seed
from endedge.lab.loop.day import Day, evaluation_sets
from endedge.lab.loop.policies import Air, learned
from endedge.lab.store import Node, Store

LOOP: dict[str, Any] = {
    "bandwidth_hz": 8000,
    "edge_s": 3,
    "latency_s": 0.5,
    "domains": {"dusk": {"kind": "night", "severity": 2}},
    "days": [[{"domain": "dusk", "periods": 2}], [{"domain": "dusk", "periods": 2}]],
    "frames_per_period": 6,
    "eval_frames": 2,
    "monitor_frames": 2,
}


def marked(model: DetectionModel, mark: float) -> DetectionModel:
    """A copy that is told apart from all others."""
    copy = clone(model)
    next(copy.parameters()).data.add_(mark)
    return copy


@dataclass(frozen=True)
class Marking(EdgeEnd):
    """An edge whose updates are marks. ``helps``, ``learns``: what they are said to do."""

    heard: ClassVar[list[SimpleNamespace]] = []
    helps: ClassVar[bool] = True
    learns: ClassVar[bool] = True

    def update(
        self, teacher: Any, starts: Any, known: Upload, budget_bytes: int, *, base: Any, **_: Any
    ) -> Any:
        told = {"seed": self.seed, "teacher": teacher, "starts": starts, "known": known}
        self.heard.append(SimpleNamespace(**told, budget=budget_bytes, base=base))
        return SimpleNamespace(
            teacher=Adapted(marked(teacher, 1.0), 1.0, {0.0: 2.0, 1.0: 1.0 if self.learns else 3}),
            decoded=marked(base, 2.0),
            packed=SimpleNamespace(data=b"p" * 61, report=SimpleNamespace(mode="full")),
            line=Student(next(iter(starts))),
            recalled="",
            evidence=None,
            helps=self.helps,
            verdict=Verdict(2.0, 1.0, 0.1, 4, 2),
        )


@pytest.fixture
def config(place: Path) -> Config:
    document = yaml.safe_load((place / "c.yaml").read_text()) | {
        "link": {"schedule": "sequential", "period_s": 50},
        "edge": {"replay_frames": 3, "least_frames": 4},
        "held_back": {"share": 0.2, "least": 2},
        "loop": LOOP,
    }
    (place / "loop.yaml").write_text(yaml.safe_dump(document))
    return load_config(place / "loop.yaml")


@pytest.fixture
def inputs(place: Path, config: Config) -> Inputs:
    return Inputs.of(config, place)


@pytest.fixture
def edge(inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answers:
    monkeypatch.setattr(answers, "EdgeEnd", Marking)
    monkeypatch.setattr(Marking, "helps", True)
    monkeypatch.setattr(Marking, "learns", True)
    Marking.heard.clear()
    return Answers(inputs, Store(tmp_path / "answers"), seed=3)


def _batch(inputs: Inputs, at: range) -> bytes:
    codec = Day(inputs, 0, 0).end.codec
    frames = [inputs.pool.frames[i] for i in at]
    return pack_batch([EncodedFrame(f.image_id, encode(f.read(), codec)) for f in frames])


def _two_rounds(edge: Answers) -> tuple[Node, Node]:
    inputs = edge.inputs
    first = edge.answer("cam", 1, _batch(inputs, range(6)), 70_000, base=None)
    second = edge.answer("cam", 2, _batch(inputs, range(6, 12)), 70_001, base=first, past=[first])
    return first, second


def test_a_round_goes_on_from_the_round_before(edge: Answers) -> None:
    inputs = edge.inputs
    first, second = _two_rounds(edge)
    one, two = Marking.heard
    taught, held = marked(inputs.teacher, 1.0), marked(inputs.student, 2.0)
    assert model_hash(one.teacher) == model_hash(inputs.teacher)
    assert model_hash(two.teacher) == model_hash(taught)
    for call, model in ((one, inputs.student), (two, held)):
        assert model_hash(call.base) == model_hash(model)
        assert [model_hash(m) for m in call.starts.values()] == [model_hash(model)]
    assert (one.budget, two.budget) == (70_000, 70_001)
    assert (one.seed, two.seed) == (3001, 3002)
    assert first.record["base"] == model_hash(inputs.student)
    assert second.record["base"] == first.record["model"] == model_hash(held)
    assert model_hash(edge.student_of(first)) == model_hash(held)
    assert model_hash(edge.student_of(None)) == model_hash(inputs.student)


def test_replayed_frames_carry_their_own_labels(edge: Answers) -> None:
    inputs = edge.inputs
    _two_rounds(edge)
    one, two = Marking.heard
    assert (len(one.known.trained), len(one.known.held_back)) == (4, 2)
    trained = two.known.trained
    fresh, replayed = trained.take(range(4)), trained.take(range(4, 7))
    assert set(fresh.image_ids) <= {f.image_id for f in inputs.pool.frames[6:]}
    assert len(set(replayed.image_ids)) == 3
    assert set(replayed.image_ids) <= {f.image_id for f in inputs.pool.frames[:6]}
    assert len(two.known.held_back) == 2  # nothing replayed is held back
    by_id = {f.image_id: f for f in inputs.pool.frames}
    for image_id, boxes in zip(replayed.image_ids, replayed.boxes, strict=True):
        true = by_id[int(image_id)].boxes / 64  # frames of 64 px, as the detector sees them
        centred = np.concatenate([true[:, :2] + true[:, 2:] / 2, true[:, 2:]], axis=1)
        assert np.allclose(boxes, centred, atol=1e-5)


def test_a_teacher_that_did_not_learn_is_not_kept(edge: Answers) -> None:
    Marking.learns = False
    first, _ = _two_rounds(edge)
    assert model_hash(Marking.heard[1].teacher) == model_hash(edge.inputs.teacher)
    kept = load_detector(first.folder / "teacher.safetensors")
    assert model_hash(kept) == model_hash(edge.inputs.teacher)
    assert first.record["teacher_learned"] is False


def test_an_update_that_does_not_help_is_not_sent(edge: Answers) -> None:
    Marking.helps = False
    first, _ = _two_rounds(edge)
    assert first.record["sent"] is False
    assert first.record["reason"] == "the held-back frames show no improvement"


def test_too_few_frames_make_no_update(edge: Answers) -> None:
    answer = edge.answer("cam", 1, _batch(edge.inputs, range(3)), 70_000, base=None)
    assert (answer.record["sent"], answer.record["update_bytes"]) == (False, 0)
    assert "an update needs 4" in answer.record["reason"]
    assert not Marking.heard


def test_rounds_and_seeds_draw_apart() -> None:
    drawn = {round_seed(seed, k) for seed in range(3) for k in range(1, 9)}
    assert len(drawn) == 24


def test_labels_are_calibrated_on_the_monitor(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not on the frames that results are measured on."""
    seen: list[int] = []

    def calibrate(found: Any, frames: Any) -> SimpleNamespace:
        seen.extend(f.image_id for f in frames)
        return SimpleNamespace(threshold=0.4)

    monkeypatch.setattr("endedge.edge.labels.calibrate", calibrate)
    assert Answers(inputs, Store(tmp_path), 0)._threshold == 0.4
    results, monitor = evaluation_sets(inputs)
    assert seen == [f.image_id for f in monitor.frames]
    assert not set(seen) & {f.image_id for f in results.frames}


# What decisions and results see -----------------------------------------------------------------


def test_results_and_monitor_share_no_frame(inputs: Inputs) -> None:
    results, monitor = ({f.image_id for f in some.frames} for some in evaluation_sets(inputs))
    assert len(results) == len(monitor) == 2
    assert not results & monitor
    assert not (results | monitor) & {f.image_id for f in inputs.pool.frames}


def test_the_loop_is_scored_through_the_domains_camera(inputs: Inputs) -> None:
    day, shown = Day(inputs, 0, 0), []

    def evaluate(model: Any, frames: Any, truth: Any) -> SimpleNamespace:
        shown.append((frames, truth))
        return SimpleNamespace(map=0.1 * len(shown))

    end: Any = SimpleNamespace(evaluate=evaluate)
    day.end = end
    domain = day.periods[0].domain
    assert [day.score(inputs.student, domain, monitor=m) for m in (False, True)] == [
        pytest.approx(0.1),
        pytest.approx(0.2),
    ]
    results, monitor = evaluation_sets(inputs)
    for (frames, truth), wanted in zip(shown, (results, monitor), strict=True):
        assert {f.image_id for f in truth.frames} == {f.image_id for f in wanted.frames}
        for i, frame in enumerate(truth.frames):
            seen = Shift("night", 2).apply(frame.read(), frame.image_id)
            assert (frames.images[i].permute(1, 2, 0).numpy() == seen).all()


def test_devices_and_seeds_see_other_streams(inputs: Inputs) -> None:
    def captured(number: int, seed: int) -> tuple[int, ...]:
        return tuple(c.frame.image_id for c in Day(inputs, number, seed).periods[0].captured)

    assert len({captured(number, seed) for number in (0, 1) for seed in (0, 1)}) == 4


def test_the_air_of_a_period(config: Config) -> None:
    """50 s, of which two devices' updates keep the edge 3 s each and four ways take half a
    second each; 8 kHz carry 2,550 and 5,000 B/s."""
    air = Air.of(config, (900.0, 1000.0))
    assert air.room_s == pytest.approx(50 - 2 * 3 - 4 * 0.5)
    assert air.up_s == pytest.approx(1 / 2550)
    assert air.down_s == pytest.approx(1 / 5000)
    assert air.devices == 2
    assert air.slot.room == pytest.approx(21.0)
    assert (air.upload.low, air.upload.high) == (4 * 1000 + 32, 6 * 950)
    assert (air.update.low, air.update.high) == (50_000, 200_000)


def test_curves_that_follow_from_the_rounds(config: Config) -> None:
    """Told that frames gained and packages did not, they rise with frames; none before that."""
    air = Air.of(config, (900.0, 1000.0))
    slot = air.slot
    assert learned([], air, None) is None
    assert learned([Observed(1, 0.0, 0.0, 0.2, 0.2)], air, None) is None
    rounds = [
        Observed(k, up, slot.update.low, 0.2, 0.2 + 0.2 * up / slot.upload.high)
        for k, up in enumerate(np.linspace(slot.upload.low, slot.upload.high, 8))
    ]
    curves = learned(rounds, air, None)
    assert curves is not None
    assert curves.m0 == pytest.approx(rounds[-1].after)
    few, many = (curves.predict(u, slot.update.low) for u in (slot.upload.low, slot.upload.high))
    assert many > few
    assert learned(rounds, air, None) is not curves


def test_labels_survive_the_disk(tmp_path: Path) -> None:
    named = [
        Labels(7, np.array([[1.0, 2, 3, 4], [5, 6, 7, 8]]), np.array([1, 0])),
        Labels(9, np.zeros((0, 4)), np.zeros(0, np.int64)),
        Labels(8, np.array([[9.0, 8, 7, 6]]), np.array([2])),
    ]
    (tmp_path / "labels.npz").write_bytes(answers._labels_out(named))
    for entry, again in zip(named, answers._labels_in(tmp_path / "labels.npz"), strict=True):
        assert entry.image_id == again.image_id
        assert entry.boxes.tolist() == again.boxes.tolist()
        assert entry.labels.tolist() == again.labels.tolist()


def test_a_job_starts_from_the_round_that_its_device_runs(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not from the newest answer, and from no other device's."""
    for device_id, rounds in (("cam-1", (1, 2)), ("cam-2", (1, 2, 3))):
        store = Store(tmp_path / device_id)
        for k in rounds:

            def made(folder: Path, k: int = k) -> dict[str, Any]:
                return {"round": k, "sent": True}

            store.node("answer", {"round": k}, made)
    asked: list[tuple[str, int | None, list[int]]] = []

    def answer(
        self: Answers,
        device_id: str,
        k: int,
        batch: bytes,
        budget: int,
        *,
        base: Any,
        past: Any,
        **_: Any,
    ) -> Node:
        rounds = [node.record["round"] for node in past]
        asked.append((device_id, None if base is None else base.record["round"], rounds))
        assert {node.folder.parts[-3] for node in past} <= {device_id}
        (tmp_path / "update.eeu").write_bytes(b"package")
        return Node("answer-new", tmp_path, {"round": k, "sent": True}, 0.0)

    monkeypatch.setattr(Answers, "answer", answer)
    batch = _batch(inputs, range(6))
    for base_round, known in ((1, 1), (0, None)):
        assert adapt(inputs, tmp_path, Job("cam-1", 3, base_round, batch, 5000)) == b"package"
        assert asked.pop() == ("cam-1", known, [1, 2])
