"""The command line as a user meets it: answers, errors, exit statuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from endedge.lab.cli.main import main


def _annotations(place: Path, change: Any) -> None:
    path = place / "field-pool.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def _move_a_box(document: dict[str, Any]) -> None:
    document["annotations"][0]["bbox"] = [60, 60, 30, 30]


BAD_RUNS: dict[str, tuple[Any, list[str], str]] = {
    "unknown config key": (None, ["uplnk.frames=[4]"], "unknown key 'uplnk'"),
    "negative budget": (None, ["downlink.budgets_bytes=[-5]"], "greater than or equal to 1"),
    "budget nobody can meet": (None, ["downlink.budgets_bytes=[500]"], "500"),
    "missing folder": (None, ["data.root=/no/such/folder"], "data.root is not a folder"),
    "annotations that are not COCO": (
        lambda p: (p / "field-pool.json").write_text('{"a": 1}'),
        [],
        "not a COCO instances file",
    ),
    "box outside its image": (lambda p: _annotations(p, _move_a_box), [], "lies outside"),
    "image that does not decode": (
        lambda p: next((p / "field-pool").glob("*.png")).write_bytes(b"no"),
        [],
        "does not decode",
    ),
    "weights missing": (None, ["weights.teacher=other.pt"], "weights not found"),
    "weights that are no detector": (
        lambda p: (p / "teacher.safetensors").write_bytes(b"123456789"),
        [],
        "corrupt weights",
    ),
    "more frames than there are": (None, ["uplink.frames=[99]"], "the pool has 12"),
    "out is a file": (lambda p: (p / "out").write_text(""), [], "is a file"),
}


@pytest.mark.parametrize("case", BAD_RUNS)
def test_bad_input_is_one_line_and_status_2(
    place: Path, case: str, capfd: pytest.CaptureFixture[str]
) -> None:
    spoil, overrides, message = BAD_RUNS[case]
    if spoil is not None:
        spoil(place)
    status = main(["run", str(place / "c.yaml"), "--out", str(place / "out"), *overrides])
    said = capfd.readouterr().err
    assert status == 2
    complaint = [line for line in said.splitlines() if line.startswith("endedge run: ")]
    assert len(complaint) == 1
    assert message in complaint[0]
    assert "Traceback" not in said
    assert not (place / "out" / "surface.csv").exists()


def test_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["run"], ["nothing"], ["run", "demo"], []):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    assert "see endedge" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["bench", "demo", "--json", "link.edge_s=bad"], "link.edge_s"),
        (["replay", "demo", "--days", "2", "link.edge_s=bad"], "link.edge_s"),
        (["report", "demo", "-o", "never.html", "link.edge_s=bad"], "link.edge_s"),
        (["allocate", "demo", "--bandwidth", "50kHz", "no-such-table"], "no-such-table"),
    ],
)
def test_words_may_stand_after_options(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert says in line
    assert "unrecognized" not in line


def test_every_verb_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = capsys.readouterr().out
    verbs = re.findall(r"^    ([a-z]+)\b", listed, re.M)
    assert {"run", "measure", "fit", "bench", "report", "allocate", "pack", "eval"} <= set(verbs)
    for verb in verbs:
        with pytest.raises(SystemExit) as caught:
            main([verb, "--help"])
        assert caught.value.code == 0
        assert f"endedge {verb}" in capsys.readouterr().out.split("example", 1)[1]


def test_pack_inspect_eval(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = str(place / "u.eeu")
    student = str(place / "student.safetensors")
    assert main(["pack", student, "--budget", "60kB", "-o", package, "--json"]) == 0
    packed = json.loads(capsys.readouterr().out)
    assert packed["bytes"] == Path(package).stat().st_size <= 60_000
    assert main(["inspect", package, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mode"] == "full"
    frames = [
        "--annotations",
        str(place / "field-eval.json"),
        "--images",
        str(place / "field-eval"),
    ]
    for model, size in ((package, packed["bytes"]), (student, None)):
        assert main(["eval", model, *frames, "--imgsz", "64", "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert set(answer) >= {"map", "map50", "images", "update_bytes", "latency_s", "labels"}
        assert answer["images"] == 4
        assert answer["update_bytes"] == size
        assert 0 <= answer["map"] <= 1


def test_pack_chooses_between_shares(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["pack", str(place / "student.safetensors"), "-o", str(place / "u.eeu"), "--json"]
    frames = ["--frames", str(place / "field-eval"), "--imgsz", "64", "--steps", "1"]
    assert main([*command, "--budget", "12kB", "--keep", "1,0.6", *frames]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["bytes"] <= 12_000
    assert answer["divergence_nats"] >= 0
    assert answer["kept"] == 1 or answer["kept"] <= 0.6
    for wrong in (["--keep", "0.6"], ["--keep", "2", *frames], ["--keep", "much", *frames]):
        assert main([*command, "--budget", "12kB", *wrong]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert sum("--keep" in line for line in errors) == 3


def test_eval_of_something_else(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = [
        "--annotations",
        str(place / "field-eval.json"),
        "--images",
        str(place / "field-eval"),
    ]
    (place / "broken.eeu").write_bytes(b"EEU1 and then nothing")
    for model in ("broken.eeu", "missing.eeu", "missing.pt"):
        assert main(["eval", str(place / model), *frames]) == 2
    assert capsys.readouterr().err.count("\n") == 3
