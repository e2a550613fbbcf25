"""``endedge run``, ``measure``, ``status``, ``loop``, ``train``, ``distill``, ``fit``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from endedge.data.errors import BadInput
from endedge.lab.cli.arguments import Verb, add_config, add_json, add_policies
from endedge.lab.cli.common import config_from, headline, judged_by, progress_bar, show
from endedge.lab.cli.numbers import SEED, share, whole

__all__ = ["declare"]


def declare(verb: Verb) -> None:
    """The verbs' arguments."""
    for name, do, says in (
        ("run", _run, "the main job: measure, fit, allocate, benchmark, report; resumes"),
        ("measure", _measure, "measure the grid of accuracy against bytes; resumes"),
    ):
        sub = verb(name, do, says, f"endedge {name} demo --out runs/demo seeds=[0]")
        add_config(sub)
        sub.add_argument("--engine", help="auto, here, processes, ray or slurm")
        if name == "measure":
            sub.add_argument(
                "--adaptive",
                type=share,
                metavar="WIDTH",
                help="only the cells that the allocation needs: stop when its regret is below "
                "WIDTH mAP (0.01: one point) with 90 %% probability",
            )
    sub = verb(
        "status",
        _status,
        "progress of a sweep: cells done, running and failed, and the time left",
        "endedge status runs/demo",
    )
    sub.add_argument("dir", help="results folder")
    add_json(sub)
    sub = verb(
        "loop",
        _loop,
        "closed-loop rounds over a drifting stream, policies side by side; resumes",
        "endedge loop demo-loop --out runs/loop\n"
        "  endedge loop demo-loop 'loop.policies=[fitted,equal]' --policy mine.py --out runs/mine",
    )
    add_config(sub, "a YAML file with a loop section, or a shipped one (demo-loop)")
    sub.add_argument("--prior", metavar="DIR", help="results of an earlier run, for the curves")
    add_policies(sub)
    for name, says in (
        ("train", "adapt the teacher to one upload"),
        ("distill", "adapt the teacher to one upload and distil a student from it"),
    ):
        sub = verb(name, _train, says, f"endedge {name} demo --frames 64 --out runs/one")
        add_config(sub)
        sub.add_argument("--frames", type=whole(2), required=True, help="frames uploaded")
        sub.add_argument("--seed", type=SEED, default=0, help="seed of frames and training")
        add_json(sub)
    sub = verb("fit", _fit, "fit the curves of a results folder", "endedge fit runs/demo")
    sub.add_argument("dir", metavar="DIR", help="results folder")


def _run(a: argparse.Namespace) -> None:
    from endedge.lab import pipeline

    config = config_from(a)
    with progress_bar() as progress:
        report = pipeline.run(config, Path(a.out), progress)
    print(headline(Path(a.out)))
    print(f"report: {report}")


def _measure(a: argparse.Namespace) -> None:
    from endedge.lab import pipeline

    config = config_from(a)
    with progress_bar() as progress:
        surface = pipeline.measure_stage(config, Path(a.out), progress, a.adaptive)
    print(f"{judged_by(config)}surface: {surface}")


def _status(a: argparse.Namespace) -> None:
    from endedge.lab.sweep.status import format_status, status

    found = status(Path(a.dir))
    print(json.dumps(found, indent=1) if a.json else format_status(found))


def _loop(a: argparse.Namespace) -> None:
    from endedge.lab.loop import summary as loop_results

    with progress_bar() as progress:
        files = tuple(Path(file) for file in a.policy)
        print(loop_results.loop_stage(config_from(a), Path(a.out), a.prior, progress, files))


def _train(a: argparse.Namespace) -> None:
    """One teacher (``train``) or one student (``distill``), kept like those of a sweep."""
    from endedge.lab.inputs import Inputs
    from endedge.lab.store import Store
    from endedge.lab.sweep.cell import Cell, CellRunner
    from endedge.lab.sweep.precision import settled_here
    from endedge.lab.sweep.workers import one_thread

    out = Path(a.out)
    config = settled_here(config_from(a), out)
    with progress_bar() as progress, one_thread():
        runner = CellRunner(
            Inputs.of(config, out), Store(out), lambda message: progress(0, 1, message)
        )
        if not 2 <= a.frames <= len(runner.inputs.pool):
            raise BadInput(f"--frames {a.frames}; the pool allows 2 to {len(runner.inputs.pool)}")
        cell = Cell(a.seed, a.frames, config.uplink.codecs[0], 0)
        upload = runner.upload(cell)
        node, file = runner.teacher(cell, upload), "teacher.safetensors"
        if a.verb == "distill":
            node, file = runner.student(cell, upload, node), "student.safetensors"
    show({"checkpoint": str(node.folder / file), **upload.record, **node.record}, a.json)


def _fit(a: argparse.Namespace) -> None:
    from endedge.lab import pipeline

    curves = pipeline.fit_stage(Path(a.dir))
    print(f"curves: {Path(a.dir) / 'curves.json'} ({curves.joint.kind})")
    if curves.falls:
        print(f"note: {curves.falls}")
