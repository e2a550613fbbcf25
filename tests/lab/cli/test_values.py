"""What the command line is given: values out of range, disks that are full, odd terminals."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import yaml

from endedge.configs import SHIPPED
from endedge.data.generated import generate
from endedge.distill.model import build_detector, save_detector
from endedge.lab.cli.main import main
from tests.starts import start

EVAL = ["eval", "student.safetensors", "--annotations", "field-eval.json"]
EVAL += ["--images", "field-eval", "--imgsz", "64"]

REFUSED = [
    ([*EVAL, "--device", "0"], "device cuda:0: "),
    ([*EVAL, "--device", "mps"], "device mps: "),
    ([*EVAL, "--device", "gpu"], "device 'gpu'; there are auto, cpu, cuda"),
    ([*EVAL, "--device", "cuda:99"], "device cuda:99: "),
    ([*EVAL, "--device", "cpu "], "device 'cpu '"),
    ([*EVAL, "--imgsz", "0"], "--imgsz: '0'; give a whole number, 32 to 8192"),
    ([*EVAL, "--imgsz", "-32"], "--imgsz: '-32'"),
    ([*EVAL, "--imgsz", "64.0"], "--imgsz: '64.0'"),
    ([*EVAL, "--imgsz", "1000000"], "--imgsz: '1000000'"),
    ([*EVAL, "--imgsz", "100"], "takes multiples of 16; give 96 or 112"),
    ([*EVAL, "--imgsz", "33"], "takes multiples of 16; give 32 or 48"),
    ([*EVAL, "--severity", "9"], "--severity: '9'; give a whole number, 1 to 5"),
    ([*EVAL, "--shift", "rain"], "unknown shift 'rain'"),
    (["train", "c.yaml", "--out", "o", "--frames", "1"], "--frames: '1'; give a whole number, 2"),
    (["train", "c.yaml", "--out", "o", "--frames", "4", "--seed", "-1"], "--seed: '-1'"),
    (["train", "c.yaml", "--out", "o", "--frames", "99"], "the pool allows 2 to 12"),
    (["measure", "c.yaml", "--out", "o", "--adaptive", "nan"], "--adaptive: 'nan'"),
    (["measure", "c.yaml", "--out", "o", "data.image_side=96", "data.root=~x"], "data.root is not"),
    (["serve", "c.yaml", "--out", "o", "--port", "70000"], "--port: '70000'"),
    (["device", "c.yaml", "--out", "o", "--edge", "a:1", "--rounds", "0"], "--rounds: '0'"),
    (["pack", "student.safetensors", "--budget", "nan", "-o", "o"], "cannot read 'nan'"),
    (["pack", "student.safetensors", "--budget", "9kB", "-o", "o", "--aware", "-5"], "--aware"),
    (
        ["data", "subset", "field-eval.json", "field-eval", "a=1", "--out", "o", "--seed", "-1"],
        "seed",
    ),
]


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place


@pytest.mark.parametrize(("words", "says"), REFUSED, ids=[" ".join(w[-2:]) for w, _ in REFUSED])
def test_refused_in_one_line_before_any_work(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    try:
        status = main(words)
    except SystemExit as end:
        status = int(str(end.code))
    said = capsys.readouterr().err
    assert status == 2
    assert says in said
    assert said.count("\n") == 1
    assert not (here / "o").exists()


def test_the_models_own_stride(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A detector with a P6 level takes multiples of 64: 96 px are none."""
    spec = yaml.safe_load((SHIPPED / "demo/student.yaml").read_text())
    layers = spec["yaml"]["backbone"]
    spec["yaml"]["head"] = [
        *([-1, 1, "Conv", [16, 3, 2]] for _ in range(2)),
        [[len(layers) - 1, len(layers) + 1], 1, "Detect", ["nc"]],
    ]
    deep = build_detector(spec)
    stride = int(deep.stride.max())
    assert stride >= 64
    save_detector(deep, tmp_path / "p6.safetensors")
    generate(tmp_path, domain="field", split="eval", n=2, seed=0, size=64)
    words = ["eval", str(tmp_path / "p6.safetensors"), "--annotations"]
    words += [str(tmp_path / "field-eval.json"), "--images", str(tmp_path / "field-eval")]
    assert main([*words, "--imgsz", str(stride + 32)]) == 2
    assert f"takes multiples of {stride}" in capsys.readouterr().err
    assert main([*words, "--imgsz", str(stride), "--json"]) == 0


def test_home_on_the_command_line(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(here))
    words = [
        f"--{k}=~/{v}" for k, v in (("annotations", "field-eval.json"), ("images", "field-eval"))
    ]
    assert main(["eval", "~/student.safetensors", *words, "--imgsz", "64", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 4


@pytest.mark.parametrize(
    ("code", "says"), [(errno.ENOSPC, "No space left"), (errno.EROFS, "Read-only file system")]
)
def test_a_disk_that_fails_is_one_line(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: int,
    says: str,
) -> None:
    def fails(*arguments: object, **options: object) -> None:
        raise OSError(code, os.strerror(code), "o/field-pool.json")

    monkeypatch.setattr("os.replace", fails)
    assert main(["data", "generate", "--out", "o", "-n", "2", "--size", "64"]) == 2
    assert says in (said := capsys.readouterr().err)
    assert said.count("\n") == 1
    assert [p.name for p in (here / "o").iterdir()] == []


VERBS = {
    "data generate": ["data", "generate", "--out", "o", "-n", "3", "--size", "256"],
    "data subset": ["data", "subset", "field-pool.json", "field-pool", "a=3", "--out", "o"],
    "pack": ["pack", "student.safetensors", "--budget", "100kB", "-o", "o/u.eeu"],
    "train": ["train", "c.yaml", "--out", "o", "--frames", "4"],
    "export": ["export", "student.safetensors", "--format=pt", "-o", "o/u.eeu", "--imgsz=64"],
    "export torchscript": [
        "export",
        "student.safetensors",
        "--format=torchscript",
        "-o",
        "o/u.eeu",
        "--imgsz=64",
    ],
    "predict": ["predict", "student.safetensors", "field-eval", "--out", "o/seen", "--imgsz=64"],
    "import": [
        "import",
        "field-pool.json",
        "--out",
        "o/mine",
        "--teacher=teacher.safetensors",
        "--student=student.safetensors",
    ],
}


@pytest.mark.parametrize("verb", VERBS)
def test_files_that_cannot_grow(here: Path, verb: str) -> None:
    """The kernel's own refusal (RLIMIT_FSIZE) in a real process: one line, nothing in halves."""
    limit = 8_000
    code = (
        "import resource, sys; from endedge.lab.cli.main import main;"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
        f"sys.exit(main({VERBS[verb]!r}))"
    )
    job = start(code, folder=here, said=here / "said")
    job.join(120)
    said = (here / "said.err").read_text()
    lines = [line for line in said.splitlines() if not line.startswith(("[", "note:"))]
    assert (job.exitcode, len(lines)) == (2, 1), said
    assert "File too large" in lines[0]
    left = [p for p in (here / "o").rglob("*") if p.is_file()] if (here / "o").exists() else []
    assert [p for p in left if p.name != "record.json" and p.stat().st_size >= limit] == []
    assert not (here / "o/u.eeu").exists()
    assert not (here / "o/field-pool.json").exists()


def test_an_ascii_terminal(here: Path) -> None:
    code = (
        "import sys; from endedge.lab.cli.main import main;"
        "[s.reconfigure(encoding='ascii', errors='strict') for s in (sys.stdout, sys.stderr)];"
        "sys.exit(main(['eval', 'µ.pt', '--annotations', 'ä.json', '--images', '.']))"
    )
    job = start(code, folder=here, said=here / "said")
    job.join(60)
    said = (here / "said.err").read_bytes()
    assert job.exitcode == 2
    assert said.isascii()
    assert b"Traceback" not in said
