"""A menu of architectures: the package that detects best for each budget, and what is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from endedge.configs import SHIPPED
from endedge.data.errors import BadInput
from endedge.data.generated import generate
from endedge.distill.model import (
    build_detector,
    count_parameters,
    load_detector,
    model_hash,
    save_detector,
)
from endedge.distill.package import inspect, unpack
from endedge.edge import menu
from endedge.edge.adapt import held_back_loss
from endedge.edge.edge import EdgeEnd
from endedge.end.latency import Latency
from endedge.lab.config import load_config, named
from endedge.lab.inputs import Inputs
from endedge.lab.store import Store
from endedge.lab.sweep.cell import Cell, CellRunner
from endedge.lab.sweep.described import whole_of

SMALL, LARGE = "endedge:demo/student.safetensors", "endedge:demo/teacher.safetensors"
MENU = f"weights.student=[{SMALL},{LARGE}]"


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a few small frames and a configuration of the shipped detectors."""
    yard = tmp_path_factory.mktemp("yard")
    for split, n in (("pool", 20), ("eval", 4)):
        generate(yard, domain="source", split=split, n=n, seed=3, size=64)
    config = {
        "name": "yard",
        "workers": 1,
        "data": {
            "root": str(yard),
            "image_side": 64,
            "pool_annotations": "source-pool.json",
            "pool_images": "source-pool",
            "eval_annotations": "source-eval.json",
            "eval_images": "source-eval",
        },
        "weights": {"teacher": LARGE, "student": SMALL},
        "uplink": {"frames": [20], "codecs": ["jpeg-q75-64"]},
        "teacher": {"steps": 2, "batch": 4},
        "student": {"steps": 12, "batch": 4},
        "downlink": {"budgets_bytes": [5_000, 110_000], "mode": "full"},
    }
    (yard / "c.yaml").write_text(yaml.safe_dump(config))
    return yard


def _cell(budget: int) -> Cell:
    return Cell(seed=0, frames=20, codec="jpeg-q75-64", budget_bytes=budget)


def _inputs(yard: Path, *changes: str) -> Inputs:
    return Inputs.of(load_config(str(yard / "c.yaml"), changes), yard)


def _runner(yard: Path, store: Store, *changes: str) -> CellRunner:
    return CellRunner(_inputs(yard, *changes), store, lambda message: None)


def test_a_menu_makes_nothing_again_that_one_student_has_made(yard: Path, tmp_path: Path) -> None:
    """And the configuration of one student says what it said before there were several."""
    keys = []
    for changes in ((), (MENU,)):
        runner, cell = _runner(yard, Store(tmp_path), *changes), _cell(110_000)
        upload = runner.upload(cell)
        teacher = runner.teacher(cell, upload)
        keys.append([n.key for n in (runner.student(cell, upload, teacher), runner.start())])
    assert keys[0] == keys[1]
    one = load_config(str(yard / "c.yaml"))
    assert named(one)["weights"]["student"] == SMALL
    assert load_config(str(yard / "c.yaml"), [f"weights.student=[{SMALL}]"]) == one
    assert yaml.safe_load(one.to_yaml())["weights"]["student"] == SMALL


@pytest.mark.parametrize("policy", ["fixed", "chosen"])
def test_the_package_with_the_smallest_loss_on_held_back_frames_travels(
    yard: Path, tmp_path: Path, policy: str
) -> None:
    runner = _runner(yard, Store(tmp_path / "out"), MENU, f"adaptation.policy={policy}")
    prepared, winners = None, set()
    for budget in (5_000, 110_000):
        cell = _cell(budget)
        row, known = runner.measure(cell), runner.received(cell)
        upload = runner.upload(cell)
        students = runner.students(cell, upload, runner.teacher(cell, upload))
        models = [load_detector(node.folder / "student.safetensors") for node in students]
        prepared = prepared or EdgeEnd(runner.inputs.plan, 0, 20).prepare(models, models[0], known)
        score = {}
        for packed in prepared.finalists(budget):
            line = runner.inputs.plan.menu[packed.candidate]
            score[line.architecture] = held_back_loss(packed.decoded, known.held_back)
        assert len(score) == 2
        if policy == "fixed":  # by plain losses; the evidence of the other policy is another test's
            assert row["student"] == min(score, key=lambda name: score[name])
        package = runner.package(cell, upload, students)
        decoded = unpack((package.folder / "update.eeu").read_bytes())
        file = SHIPPED / ("demo/student.yaml" if row["student"] == SMALL else "demo/teacher.yaml")
        whole = build_detector(yaml.safe_load(file.read_text()))
        assert row["params"] == count_parameters(decoded) == count_parameters(whole)
        assert row["mode"] == "full"
        assert row["keep"] == 1
        whole = whole_of(runner.inputs, package, students)
        verdict = runner.verdict(cell, package, whole).record
        if policy == "fixed":
            assert verdict["after"] == pytest.approx(score[row["student"]], rel=1e-5)
            start = held_back_loss(runner.inputs.student, known.held_back)
            assert verdict["before"] == pytest.approx(start, rel=1e-5)
        else:
            whose = whole.record["evidence"]
            assert verdict["before"] == pytest.approx(whose["before"])
            assert verdict["frames"] == whose["frames"]
        winners.add(row["student"])
    assert LARGE in winners


def test_what_frames_choose_is_a_gain_over_what_the_device_holds(
    yard: Path, tmp_path: Path
) -> None:
    """Of every architecture: the same loss before, by the same frames."""
    runner = _runner(yard, Store(tmp_path / "out"), MENU, "adaptation.policy=chosen")
    cell = _cell(110_000)
    upload = runner.upload(cell)
    small, _, large, _ = runner.students(cell, upload, runner.teacher(cell, upload))
    assert small.record["evidence"]["before"] == large.record["evidence"]["before"]
    assert small.record["evidence"]["frames"] == large.record["evidence"]["frames"]


def test_a_device_changes_its_architecture_and_takes_deltas_of_that(
    yard: Path, tmp_path: Path
) -> None:
    """It holds the large one: only packages of that may build upon it."""
    runner = _runner(yard, Store(tmp_path), MENU, "downlink.mode=auto")
    inputs, known = runner.inputs, runner.received(_cell(30_000))
    held = load_detector(SHIPPED / "demo/teacher.safetensors")
    update = EdgeEnd(inputs.plan, 0).update(
        inputs.teacher, {**inputs.starts, LARGE: held}, known, 30_000, base=held
    )
    about = inspect(update.packed.data)
    assert (about["mode"] == "delta") == (update.line.architecture == LARGE)
    assert model_hash(unpack(update.packed.data, base=held)) == model_hash(update.decoded)
    assert update.verdict.before == pytest.approx(held_back_loss(held, known.held_back))
    prepared = EdgeEnd(inputs.plan, 0).prepare(update.students, held, known)
    kinds = [[kind.name for kind in candidate.kinds] for candidate in prepared.prepared.values()]
    assert kinds == [["full"], ["full", "delta"]]


def test_students_that_cannot_stand_beside_each_other_are_refused(
    place: Path, tmp_path: Path
) -> None:
    """One line that names both."""
    spec = yaml.safe_load((SHIPPED / "demo/student.yaml").read_text())
    spec["names"] = {**spec["names"], 2: "giraffe"}
    save_detector(build_detector(spec), place / "other.safetensors")
    one = "weights.student=[student.safetensors,other.safetensors]"
    with pytest.raises(BadInput, match=r"other\.safetensors and .*student\.safetensors .*giraffe"):
        Inputs.of(load_config(str(place / "c.yaml"), [one]), tmp_path)
    coarse = yaml.safe_load((SHIPPED / "demo/student.yaml").read_text())
    coarse["yaml"]["backbone"][0][3] = [coarse["yaml"]["backbone"][0][3][0], 3, 1]
    save_detector(build_detector(coarse), place / "coarse.safetensors")
    two = "weights.student=[student.safetensors,coarse.safetensors]"
    with pytest.raises(BadInput, match=r"coarse\.safetensors predicts at strides .*student\.safe"):
        Inputs.of(load_config(str(place / "c.yaml"), [two]), tmp_path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ([f"weights.student=[{SMALL},{SMALL}]"], "twice"),
        (["weights.student=[]"], "at least one"),
        ([MENU, "downlink.mode=delta"], "no other architecture"),
    ],
)
def test_menus_that_make_no_sense(yard: Path, changes: list[str], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        load_config(str(yard / "c.yaml"), changes)


def test_what_is_too_slow_for_the_device_is_not_sent(
    yard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Said in one line, once; the pruned line of a slow one may stay. Timed by a clock of ours."""
    seconds = {1: 0.3, 2: 0.1, 3: 0.9, 4: 0.2}  # small, small at 60 %, large, large at 60 %
    timed: list[int] = []

    def told(network: object, images: torch.Tensor, **_: object) -> Latency:
        timed.append(len(timed) + 1)
        assert images.shape[1:] == (3, 64, 64)
        return Latency("torch", seconds[timed[-1]], 0.0, 0.0, 0.0, 20, 1)

    monkeypatch.setattr(menu, "latency", told)
    changes = [MENU, "downlink.keep=[1.0,0.6]", "end.max_latency_s=0.25"]
    config = load_config(str(yard / "c.yaml"), changes)
    inputs = Inputs.of(config, tmp_path)
    plan = inputs.plan
    assert [str(line) for line in plan.menu] == [SMALL, f"{SMALL} at 60%", LARGE, f"{LARGE} at 60%"]
    assert [str(line) for line in plan.barred] == [SMALL, LARGE]
    (line,) = [r.getMessage() for r in caplog.records]
    assert SMALL in line
    assert "0.25 s" in line
    assert "60%" not in line
    assert Inputs.of(config, tmp_path).plan.barred == plan.barred
    assert len(timed) == 4
    strict = [*changes[:2], "end.max_latency_s=0.15"]
    least = Inputs.of(load_config(str(yard / "c.yaml"), strict), tmp_path)
    assert {line.architecture for line in least.plan.menu} == {SMALL}
    with pytest.raises(BadInput, match=r"at 60%, takes 0\.1 s"):
        _ = Inputs.of(
            load_config(str(yard / "c.yaml"), [*changes[:2], "end.max_latency_s=0.01"]), tmp_path
        ).plan
    runner, cell = CellRunner(inputs, Store(tmp_path), lambda message: None), _cell(110_000)
    row = runner.measure(cell)
    assert row["keep"] == 0.6
    assert row["latency_s"] == seconds[2 if row["student"] == SMALL else 4]


def test_every_training_is_told_under_a_name_of_its_own(
    yard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress and loss curves: of each architecture, and of what only tried an adaptation."""
    logs: dict[str, list[int]] = {}

    def log(kind: str, folder: Path, name: str, total: int) -> Callable[[int, float], None]:
        assert name not in logs  # or one curve is written over another
        logs[name] = [total]
        return lambda step, loss: logs[name].append(step)

    monkeypatch.setattr("endedge.lab.sweep.cell.loss_log", log)
    said: list[str] = []
    inputs = _inputs(yard, MENU, "adaptation.policy=chosen", "log=tensorboard")
    runner, cell = CellRunner(inputs, Store(tmp_path), said.append), _cell(110_000)
    upload = runner.upload(cell)
    runner.students(cell, upload, runner.teacher(cell, upload))
    for small_or_large in ("student", "teacher"):  # files of the demo
        for tried in ("adapter", "front", "all"):
            assert any(
                n.startswith(f"student-try-{tried}-") and f"-{small_or_large}-" in n for n in logs
            )
    assert all(steps[1:] == list(range(1, steps[0] + 1)) for steps in logs.values())
    for name, (total, *_) in logs.items():
        what = name.removesuffix("-20-jpeg-q75-64-seed0").replace("-", " ")
        last = f"{what} on 20 frames, seed 0: step {total}/{total}"
        assert any(line.startswith(last) for line in said), what
