"""Results folders of the report's tests: copied, read, their page written."""

from __future__ import annotations

import shutil
from pathlib import Path

from endedge.lab.config import load_config
from endedge.lab.report.page import write_report
from endedge.lab.report.results import Results


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "copy", ignore=lambda *_: ["report.html"]))


def written(folder: Path) -> str:
    return write_report(results_of(folder), folder / "report.html").read_text(encoding="utf-8")


def results_of(folder: Path) -> Results:
    return Results.read(folder, load_config(folder / "config.yaml"))
