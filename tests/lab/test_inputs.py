"""Everything that is given, checked before the first measurement."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from endedge.data.errors import BadInput
from endedge.distill.model import build_detector, load_detector, save_detector, spec_of
from endedge.lab.config import load_config
from endedge.lab.devices import pick_device
from endedge.lab.inputs import Inputs, find_weights


def _inputs(place: Path, *overrides: str) -> Inputs:
    return Inputs.of(load_config(place / "c.yaml", overrides), place / "out")


def _change(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_all_bad_pictures_of_both_sets_at_once(place: Path) -> None:
    for name in ("field-pool/000003.png", "field-eval/000001.png"):
        (place / name).write_bytes((place / name).read_bytes()[:-200])
    (place / "field-pool/000005.png").write_text("<html>404</html>")
    with pytest.raises(BadInput, match="3 of 16 pictures cannot be used") as caught:
        _inputs(place)
    for name in ("pool/000003.png", "pool/000005.png", "eval/000001.png"):
        assert name in str(caught.value)
    assert not (place / "out").exists()


def test_an_evaluation_without_a_box(place: Path) -> None:
    _change(place / "field-eval.json", lambda d: d.update(annotations=[]))
    with pytest.raises(BadInput, match=r"field-eval.json: no box on 4 frames"):
        _inputs(place)


def test_a_picture_that_is_not_the_annotated_one(place: Path) -> None:
    _change(place / "field-pool.json", lambda d: d["images"][2].update(width=640, height=480))
    with pytest.raises(BadInput, match=r"000002.png is 64 x 64 px, annotated as 640 x 480"):
        _inputs(place)


def test_classes_in_another_order_with_a_dummy_are_the_same_boxes(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = _inputs(place)

    def shuffle(document: dict[str, Any]) -> None:
        """Ids in the opposite order of the names, and Roboflow's group in front."""
        n = len(document["categories"])
        for category in document["categories"]:
            category["id"] = n + 1 - category["id"]
        for box in document["annotations"]:
            box["category_id"] = n + 1 - box["category_id"]
        document["categories"].insert(0, {"id": 0, "name": "my-project"})

    _change(place / "field-eval.json", shuffle)
    with caplog.at_level(logging.WARNING, "endedge"):
        after = _inputs(place)
    assert "no box of 'my-project'" in caplog.text
    assert after.hashes["pool"] == before.hashes["pool"]
    for a, b in zip(before.evaluation.frames, after.evaluation.frames, strict=True):
        assert a.labels.tolist() == b.labels.tolist()
    assert before.evaluation.names == after.evaluation.names


def test_detectors_with_the_same_classes_in_another_order(place: Path) -> None:
    teacher = load_detector(place / "teacher.safetensors")
    spec = spec_of(teacher)
    spec["names"] = dict(enumerate(reversed(list(teacher.names.values()))))
    save_detector(build_detector(spec), place / "teacher.safetensors")
    with pytest.raises(BadInput, match=r"class 0 is '.*' in one and '.*' in the other"):
        _inputs(place)


def test_a_side_that_a_stride_does_not_divide(place: Path) -> None:
    inputs = _inputs(place)
    stride = int(inputs.student.stride.max())
    assert 64 % stride == 0
    with pytest.raises(BadInput, match=r"data\.image_side"):
        _inputs(place, "data.image_side=100")


def test_frames_that_the_edge_would_not_decode(place: Path) -> None:
    from PIL import Image

    Image.new("L", (6000, 6000)).save(place / "field-pool/000000.png")
    _change(place / "field-pool.json", lambda d: d["images"][0].update(width=6000, height=6000))
    with pytest.raises(BadInput, match=r"jpeg-q75-6000 sends .*000000.png as 6000 x 6000 px"):
        _inputs(place, "uplink.codecs=[jpeg-q75-6000]")
    assert len(_inputs(place, "uplink.codecs=[jpeg-q75-320]").pool) == 12


@pytest.mark.parametrize("wanted", ["0", "mps", "gpu", "cuda:x", "cuda:99", "CPU", "", "cpu\n"])
def test_devices_that_are_not_there(wanted: str) -> None:
    with pytest.raises(BadInput, match="device"):
        pick_device(wanted)


def test_pinned_weights_in_the_cache_are_compared_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's file under a pinned name, where downloads lie, is not taken; one of the
    user's own, in the folder of the run, is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("endedge.lab.inputs.cache_folder", lambda: tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/yolov8n.pt").write_bytes(b"another")
    with pytest.raises(BadInput, match=r"yolov8n\.pt is there but its sha256 is not"):
        find_weights("yolov8n.pt", None)
    (tmp_path / "yolov8n.pt").write_bytes(b"fine-tuned")
    assert find_weights("yolov8n.pt", None) == Path("yolov8n.pt")


def test_no_evaluated_picture_may_be_uploaded(place: Path) -> None:
    twin = place / "field-pool/000002.png"
    twin.write_bytes((place / "field-eval/000001.png").read_bytes())
    with pytest.raises(BadInput, match="must not overlap") as caught:
        _inputs(place)
    assert str(twin) in str(caught.value)


def test_the_plan_is_that_of_the_configuration(place: Path) -> None:
    """Every key of it at another value than its default."""
    inputs = _inputs(
        place,
        "uplink.frames=[6, 9]",
        "held_back.share=0.3",
        "held_back.most=9",
        "held_back.least=5",
        "held_back.shares=[0.75]",
        "downlink.keep=[0.5, 1]",
        "downlink.mode=full",
        "edge.labels=mix-9",
        "adaptation.policy=chosen",
        "adaptation.sure=2.5",
        "recovery.steps=3",
    )
    plan, config = inputs.plan, inputs.config
    assert (plan.held_share, plan.held_most, plan.least) == (0.3, 9, 5)
    assert plan.shares == (0.75,)
    lines = [(line.keep, line.shallow) for line in plan.menu]
    assert lines == [(1, False), (1, True), (0.5, False)]  # the whole one first
    assert (plan.mode, plan.labels, plan.side, plan.device) == ("full", "mix-9", 64, inputs.device)
    assert (plan.chosen, plan.sure) == (True, 2.5)
    assert (plan.teacher, plan.student) == (config.teacher, config.student)
    assert (plan.recovery, plan.loss) == (config.recovery, config.distillation)


@pytest.mark.parametrize("side", ["eval", "pool"])
def test_boxes_of_a_detector_are_not_taken_for_truth(place: Path, side: str) -> None:
    drawn = {"endedge": {"labels": "teacher"}}
    _change(place / f"field-{side}.json", lambda d: d.update(info=drawn))
    with pytest.raises(BadInput, match=f"data.{side}_labels=teacher takes them as they are"):
        _inputs(place)
    assert len(_inputs(place, f"data.{side}_labels=teacher").evaluation) == 4
