"""The verbs around the main job: doctor, completion, data, own policies, logs, Ctrl-C."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from endedge.data.coco import load_coco
from endedge.lab.cli import doctor
from endedge.lab.cli.main import main
from tests.starts import ENDEDGE, start


def test_doctor_runs_a_round(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["doctor", "--json", "--out", str(tmp_path / "not" / "yet")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {
        "python",
        "packages",
        "extras",
        "gpu",
        "threads",
        "offline",
        "disk",
        "self-test",
    }
    assert found["self-test"]["state"] == "ok"
    assert "mAP" in found["self-test"]["says"]
    assert "torch" in found["packages"]["says"]
    assert found["disk"]["says"].endswith(str(tmp_path))


def test_doctor_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> dict[str, float]:
        raise OSError("no such\nlibrary")

    monkeypatch.setattr(doctor, "self_test", broken)
    assert main(["doctor", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert "bad   self-test  OSError: no such library" in said.out
    assert said.err.count("\n") == 1
    assert main(["doctor", "--out", str(tmp_path), "--no-test"]) == 0


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["alocate"], "unknown verb 'alocate'; did you mean allocate?"),
        (["allocate", "d", "--bandwith", "3"], "unknown option --bandwith; did you mean --bandwid"),
        (["data", "subst"], "unknown job 'subst'; did you mean subset?"),
        (["completion", "tcsh"], "there are bash, zsh, fish"),
        (["run", "demo", "--out", "x", "uplnk.frames=[4]"], "did you mean 'uplink'?"),
        (["run", "demo", "--out", "x", "--workers", "2"], "write workers=…"),
        (["plot", "d", "--what", "share", "-o", "f.pdf"], "give a results folder"),
    ],
)
def test_typing_errors_get_a_suggestion(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(words)
    except SystemExit as left:
        status = int(str(left.code))
    assert status == 2
    said = capsys.readouterr().err
    assert hint in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab", reason="shtab is not installed: endedge[completion]")
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("allocate", "bandwidth", "subset", "doctor"):
        assert word in script
    if shutil.which(shell) is not None:
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_bash_completes_a_verb(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab", reason="shtab is not installed: endedge[completion]")
    if shutil.which("bash") is None:
        pytest.skip("no bash here")
    assert main(["completion", "bash"]) == 0
    asked = (
        capsys.readouterr().out + "\nCOMP_WORDS=(endedge al); COMP_CWORD=1; "
        '_shtab_endedge endedge al endedge; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash"], input=asked, text=True, capture_output=True, check=True)
    assert done.stdout.split() == ["allocate"]


def test_data_subset_makes_a_root_for_a_configuration(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "ids.txt").write_text("2\n5\n")
    source = [str(place / "field-pool.json"), str(place / "field-pool")]
    command = ["data", "subset", *source, "--out", str(place / "mine")]
    assert main([*command, "pool=4", f"eval=@{place / 'ids.txt'}"]) == 0
    assert "pool: 4 frames, eval: 2 frames" in capsys.readouterr().out
    root = place / "mine"
    made = load_coco(root / "annotations/instances_eval.json", root / "images/eval")
    assert [f.image_id for f in made.frames] == [2, 5]
    cases: tuple[tuple[list[str], str], ...] = (
        (["pool"], "pool=1000"),
        (["pool=many"], "pool=1000"),
        ([], "at least one"),
    )
    for words, says in cases:
        with contextlib.suppress(SystemExit):
            assert main([*command, *words]) == 2
        assert says in capsys.readouterr().err


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    (tmp_path / "web").mkdir()
    for name in ("yolo11n.pt", "yolov8n.pt"):
        (tmp_path / "web" / name).write_bytes(b"weights")
    handler = functools.partial(Quiet, directory=str(tmp_path / "web"))
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{made.server_address[1]}"
    made.shutdown()
    thread.join()
    made.server_close()


def test_data_download(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "got")]
    assert main(["data", "download", "yolov8n.pt", *out, "--mirror", server]) == 2
    assert "sha256" in capsys.readouterr().err  # its bytes are known, and these are others
    assert main(["data", "download", "yolo11n.pt", *out, "--mirror", server]) == 0
    assert main(["data", "download", f"{server}/yolov8n.pt?raw=1", *out]) == 0
    assert (tmp_path / "got" / "yolov8n.pt").read_bytes() == b"weights"
    wrong = ["--checksum", "md5:" + "0" * 32]
    assert main(["data", "download", f"{server}/yolov8n.pt", *out, *wrong]) == 2
    assert main(["data", "download", f"{server}/other.pt", *out]) == 2
    assert "404" in capsys.readouterr().err


POLICY = """
from endedge.allocator import register

@register("{name}")
def mine(known):
    return known.budget.with_share(0.25)
"""


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (None, "FileNotFoundError"),
        ("x = 1", "registers no policy"),
        ("import nothing_like_it", "ModuleNotFoundError"),
        (POLICY.format(name="equal"), "registered already"),
    ],
)
def test_files_that_are_no_policy(
    tmp_path: Path, source: str | None, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if source is not None:
        (tmp_path / "p.py").write_text(source)
    assert main(["bench", str(tmp_path), "--policy", str(tmp_path / "p.py")]) == 2
    assert says in capsys.readouterr().err


def test_trainings_are_logged_for_tensorboard(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard", reason="not installed: endedge[tensorboard]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    command = ["train", str(place / "c.yaml"), "--out", str(place / "out"), "--frames", "6"]
    assert main([*command, "teacher.steps=3", "log=tensorboard"]) == 0
    (folder,) = (place / "out" / "logs").iterdir()
    assert folder.name == "teacher-6-jpeg-q75-64-seed0"
    events = EventAccumulator(str(folder))
    events.Reload()
    assert [e.step for e in events.Scalars("loss")] == [1, 2, 3]
    assert main([*command, "log=wandb"]) == 2
    assert "'none', 'tensorboard' or 'mlflow'" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:The ``noload``:DeprecationWarning")  # of MLflow's own tables
def test_trainings_are_logged_for_mlflow(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="not installed: endedge[mlflow]")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    command = ["train", str(place / "c.yaml"), "--out", str(place / "out"), "--frames", "6"]
    assert main([*command, "teacher.steps=3", "log=mlflow"]) == 0
    uri = f"sqlite:///{place / 'out' / 'logs' / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name("endedge out")
    (run,) = client.search_runs([found.experiment_id])
    assert (run.info.run_name, run.info.status) == ("teacher-6-jpeg-q75-64-seed0", "FINISHED")
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [metric.step for metric in history] == [1, 2, 3]


def test_what_a_log_needs_is_named(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    command = ["train", str(place / "c.yaml"), "--out", str(place / "out"), "--frames", "6"]
    assert main([*command, "teacher.steps=3", "log=mlflow"]) == 2
    assert "pip install 'endedge[mlflow]'" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(place: Path, workers: int) -> None:
    # As on a terminal, also where these tests run in the background of a shell.
    listening = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    words = ["measure", str(place / "c.yaml"), "--out", str(place / "out")]
    words += ["uplink.frames=[4,6]", "student.steps=10"]
    heard = place / "said.err"
    job = start(
        listening + ENDEDGE, *words, f"workers={workers}", folder=place, said=place / "said"
    )
    while not heard.exists() or "[1/4]" not in heard.read_text():  # the first cell is measured
        assert job.is_alive(), heard.read_text()
        time.sleep(0.02)
    assert job.pid is not None
    os.killpg(job.pid, signal.SIGINT)  # the workers too
    job.join()
    said = heard.read_text()
    assert job.exitcode == 130, said
    assert "Traceback" not in said
    assert f"kept in {place / 'out'}, the same command goes on from there" in said
    kept = {p: p.stat().st_mtime_ns for p in (place / "out" / "nodes").glob("cell-*/record.json")}
    assert kept
    assert main([*words, "workers=1"]) == 0
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    # not iterdir(): a worker that is killed while it writes leaves its draft (.NAME.PID.new)
    assert len(list((place / "out" / "cells").glob("*.json"))) == 4
