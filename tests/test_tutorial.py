"""The tutorial works as it is written: its blocks run one after the other, in one folder.

``sh`` blocks are command lines of ours, ``python`` blocks share their names, a block with a
title is that file; ``console`` blocks show what is not run (installing).
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.starts import start

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.md"
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.M | re.S)

RUNNER = r"""
import json, shlex, sys, time
from pathlib import Path
from endedge.lab.cli.main import main

names = {}
for kind, title, text in json.loads(Path(sys.argv[1]).read_text()):
    began = time.perf_counter()
    if title:
        Path(title).write_text(text)
    elif kind == "python":
        exec(compile(text, "tutorial.md", "exec"), names)
    else:
        for line in text.replace("\\\n", " ").splitlines():
            program, *words = shlex.split(line)
            assert program == "endedge", line
            status = main(words)
            assert status == 0, f"{line}: exit status {status}"
    print(f"[{time.perf_counter() - began:.1f} s] {text.splitlines()[0]}", flush=True)
"""


def test_the_tutorial_runs_as_it_is_written(tmp_path: Path) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed: endedge[notebook]")
    blocks = [b for b in BLOCK.findall(TUTORIAL.read_text()) if b[0] in ("sh", "python")]
    assert len(blocks) >= 8
    (tmp_path / "blocks.json").write_text(json.dumps(blocks))
    job = start(RUNNER, tmp_path / "blocks.json", folder=tmp_path, said=tmp_path / "said")
    job.join()
    said = (tmp_path / "said").read_text()
    print(said)
    assert job.exitcode == 0, (tmp_path / "said.err").read_text()[-3000:]
    assert "quarter-up" in said
    for name in ("runs/tutorial/report.html", "update.eeu"):
        assert (tmp_path / name).stat().st_size > 0
