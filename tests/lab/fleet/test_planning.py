"""A band shared by fitted curves: the same as for one device, and what is told of many."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from endedge.data.errors import BadInput
from endedge.lab.benchmark.planning import plan
from endedge.lab.cli.main import main
from endedge.lab.fleet.members import read_members
from endedge.lab.fleet.planning import FleetPlan


def test_one_device_gets_what_allocate_gives_it() -> None:
    for place, hz in (("demo", 15e3), ("coco-infrared", 150e3)):
        alone = plan(Path(place), {}).allocate(hz)
        found = FleetPlan.of(read_members([f"{place}@3"]), {}).allocate(hz)
        assert found.upload_bytes[0] == pytest.approx(alone.upload_bytes, rel=1e-4)
        assert found.update_bytes[0] == pytest.approx(alone.update_bytes, rel=1e-4)
        assert found.map[0] == pytest.approx(alone.predicted_map, abs=1e-6)
        assert abs(int(found.frames[0]) - alone.frames) <= 1
        device = found.record()["devices"][0]
        told = alone.record()
        assert {k: device[k] for k in ("codec", "bits", "prune")} == {
            k: told[k] for k in ("codec", "bits", "prune")
        }


def test_the_whole_is_the_sum_of_the_devices() -> None:
    found = FleetPlan.of(read_members(["coco-infrared*2@0.5", "demo*3"]), {}).allocate(4e5)
    assert found.member.tolist() == [0, 0, 1, 1, 1]
    hertz = found.uplink_hz + found.downlink_hz
    assert hertz.sum() == pytest.approx(found.found.used_hz)
    assert hertz.sum() <= 4e5 * (1 + 1e-9)
    weighted = (found.map * np.array([0.5, 0.5, 1, 1, 1])).sum()
    assert weighted == pytest.approx(found.found.objective, abs=1e-9)
    record = found.record()
    assert record["mean_map"] == pytest.approx(weighted / 4)
    assert record["bound"] >= record["mean_map"]
    assert "demo*3" in str(found)


def test_a_fleet_of_many_is_quick_and_told_in_short() -> None:
    found = FleetPlan.of(read_members(["demo*30000", "coco-infrared*20000"]), {}).allocate(1e9)
    assert len(found) == 50_000
    text = str(found)
    assert "49,980 more" in text
    assert len(text.splitlines()) < 60


def test_seconds_of_one_trainer() -> None:
    found = FleetPlan.of(read_members(["demo*5"]), {"edge_s": "25"}).allocate(4e5)
    assert found.served.sum() == 2
    assert found.found.used_s == pytest.approx(50.0)
    assert "for one more second" in str(found)
    assert FleetPlan.of(read_members(["demo*5"]), {"edge_s": "25"}).allocate(4e5, None).served.all()


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "fleet.svg"
    words = ["allocate", "demo*2", "coco-infrared@2", "--bandwidth", "200kHz"]
    assert main([*words, "--json", "--plot", str(picture)]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [d["member"] for d in record["devices"]] == [0, 0, 1]
    assert "demo*2" in picture.read_text()
    assert main(["allocate", "demo", "--bandwidth", "20kHz"]) == 0
    assert "regime" in capsys.readouterr().out
    chart = tmp_path / "bench.svg"
    made = tmp_path / "bench.csv"
    bench = ["bench", "demo*2", "coco-infrared", "--bandwidth", "60kHz", "--bandwidth", "0.2MHz"]
    assert main([*bench, "--markdown", "--plot", str(chart), "--csv", str(made)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert "turns-spare" in chart.read_text()
    assert made.read_text().startswith("devices,objective,keep,bandwidth_hz,policy,map")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["allocate", "demo*2", "--bandwidth", "1kHz"], "fits no share of the band"),
        (["allocate", "demo*2", "coco-infrared", "--bandwidth", "30kHz"], "coco-infrared: it fits"),
        (["allocate", "demo@0", "--bandwidth", "1MHz"], "weight '0'"),
        (["allocate", "demo*2", "nowhere", "--bandwidth", "1MHz"], "nowhere"),
        (["allocate", "demo*2", "--bandwidth", "1MHz", "--schedule", "sequential"], "pipelined"),
        (["allocate", "demo", "--bandwidth", "1MHz", "--plot", "x.svg"], "several devices"),
        (["allocate", "demo*2", "--bandwidth", "1MHz", "--plot", "x.doc"], "cannot draw into"),
        (["bench", "demo", "--turns", "2"], "--turns is for several devices"),
        (["bench", "demo", "--csv", "x.csv"], "--csv is for several devices"),
        (["bench", "demo*2", "--exact"], "--exact is for one device"),
        (["bench", "demo*2", "--turns", "3"], "power of two"),
        (["bench", "demo*2", "demo@-1"], "weight '-1'"),
        (["bench", "demo*2", "--bandwidth", "0"], "must be > 0"),
        (["bench", "demo*2", "--bandwidth", "100"], "fits no share"),
        (["bench", "demo*2", "seeds=[0]"], "only the link can change"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    complaint = [line for line in said.splitlines() if line.startswith(f"endedge {words[0]}: ")]
    assert len(complaint) == 1
    assert message in complaint[0]


def test_a_curves_file_beside_a_table(tmp_path: Path) -> None:
    plan(Path("demo"), {}).curves.save(tmp_path / "curves.json")
    found = FleetPlan.of(read_members([str(tmp_path / "curves.json"), "demo"]), {}).allocate(5e4)
    assert found.record()["devices"][0]["student"] is None
    with pytest.raises(BadInput, match="other"):
        FleetPlan.of(read_members([str(tmp_path / "other.json"), "demo"]), {})
