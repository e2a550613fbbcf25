"""The main job end to end, and killed in the middle of it."""

from __future__ import annotations

import csv
import json
import random
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from endedge.configs import SHIPPED
from endedge.data.errors import BadInput
from endedge.distill.model import count_parameters, load_detector
from endedge.lab.cli.main import main
from endedge.lab.config import load_config
from endedge.lab.pipeline import measure_stage
from tests.starts import ENDEDGE, start

FILES = (
    "config.yaml",
    "surface.csv",
    "curves.json",
    "allocation.csv",
    "benchmark.csv",
    "report.html",
)


def _surface(folder: Path) -> list[dict[str, str]]:
    with (folder / "surface.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in rows]


def test_the_main_job(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = place / "out"
    command = ["run", str(place / "c.yaml"), "--out", str(out)]
    assert main(command) == 0
    said = capsys.readouterr()
    assert f"report: {out / 'report.html'}" in said.out
    assert "oracle" in said.out
    for name in FILES:
        assert (out / name).stat().st_size > 0
    rows = _surface(out)
    assert len(rows) == len(list((out / "cells").glob("*.json"))) == 4 * 2
    sizes = {(r["frames"]): int(r["upload_bytes"]) for r in rows}
    assert sizes["4"] < sizes["6"] < sizes["9"] < sizes["12"]
    assert all(int(r["update_bytes"]) <= int(r["budget_bytes"]) for r in rows)
    for r in rows:  # what was not sent did not change the device
        assert r["map"] == (r["decoded_map"] if r["sent"] == "1" else r["m0"])

    # Again: nothing is made anew. A wider grid: only what is new.
    before = {p: p.stat().st_mtime_ns for p in (out / "nodes").glob("*/record.json")}
    assert main(command) == 0
    wider = [*command, "downlink.budgets_bytes=[50000,120000,200000]"]
    assert main(wider) == 0
    after = {p: p.stat().st_mtime_ns for p in (out / "nodes").glob("*/record.json")}
    assert {p: after[p] for p in before} == before
    new = {p.parent.name.split("-")[0] for p in after.keys() - before.keys()}
    assert new == {"package", "verdict", "cell"}
    assert len(_surface(out)) == 4 * 3


def test_pruned_students_are_shared_by_all_budgets(place: Path) -> None:
    out = place / "out"
    wanted = ["uplink.frames=[6]", "downlink.mode=full", "downlink.keep=[1.0,0.6]"]
    budgets = "downlink.budgets_bytes=[7000,60000]"
    assert main(["measure", str(place / "c.yaml"), "--out", str(out), *wanted, budgets]) == 0
    assert len(list((out / "nodes").glob("pruned-*"))) == 1
    whole = count_parameters(load_detector(place / "student.safetensors"))
    for row in _surface(out):
        assert float(row["prune"]) == 0 or 0.4 <= float(row["prune"]) < 0.5
        assert int(row["params"]) == pytest.approx(whole * (1 - float(row["prune"])), abs=1)


def test_killed_again_and_again_it_loses_nothing(place: Path) -> None:
    words = ["measure", str(place / "c.yaml"), "workers=1", "--out"]
    assert main([*words, str(place / "calm")]) == 0
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng, out, kills = random.Random(seed), place / "killed", 0

    def begun() -> BaseProcess:
        return start(ENDEDGE, *words, out, folder=place, said=place / "said")

    def made() -> int:
        return len(list((out / "nodes").glob("*/record.json")))

    job = begun()
    while job.is_alive() and kills < 5:
        before = made()
        while job.is_alive() and made() < before + 2:  # every one gets a little further,
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.3))  # and is killed in the middle of what comes next
        if job.is_alive():
            job.kill()
            kills += 1
        job.join()
        job = begun()
    both = [job, begun()]  # two processes on one folder, too
    for one in both:
        one.join()
    assert [one.exitcode for one in both] == [0, 0]
    assert kills > 0
    assert _surface(place / "killed") == _surface(place / "calm")


def test_one_training_is_shared_with_the_sweep(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = place / "out"
    command = [str(place / "c.yaml"), "--out", str(out), "--frames", "6", "--json"]
    assert main(["train", *command]) == 0
    trained = json.loads(capsys.readouterr().out)
    assert load_detector(trained["checkpoint"]).names[0]
    assert main(["distill", *command]) == 0
    distilled = json.loads(capsys.readouterr().out)
    assert Path(distilled["checkpoint"]).name == "student.safetensors"
    assert len(list((out / "nodes").glob("teacher-*"))) == 1
    assert main(["train", str(place / "c.yaml"), "--out", str(out), "--frames", "13"]) == 2
    assert "the pool allows 2 to 12" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            "held_back.least=3",
            r"uplink\.frames: of 4 frames too few are held .*at least 13, a",
        ),
        ("held_back={least: 65, most: 64}", "asks for 65 frames .* holds back 64: none would ever"),
    ],
)
def test_levels_that_could_never_be_sent_are_refused_first(
    place: Path, change: str, says: str
) -> None:
    config = load_config(place / "c.yaml", [change])
    with pytest.raises(BadInput, match=says):
        measure_stage(config, place / "out", lambda done, total, text: None)
    assert not (place / "out").exists()


def test_shipped_configurations_have_no_such_level() -> None:
    for path in sorted(SHIPPED.glob("*.yaml")):
        config = load_config(path)
        assert 0 < config.fewest_frames <= min(config.uplink.frames), path.name
