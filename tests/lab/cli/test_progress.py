"""What long work says where there is no terminal."""

from __future__ import annotations

import pytest

from endedge.lab.cli.progress import Progress


def test_plain_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 0.0, 1.0, 60.0, 65.0, 75.0, 120.0])
    monkeypatch.setattr("endedge.lab.cli.progress.time.monotonic", lambda: next(seconds))
    with Progress() as progress:
        progress(0, 3, "")  # nothing to say yet
        progress(0, 3, "student: step 1")
        progress(1, 3, "first cell")  # one cell in 60 s, two to go
        progress(1, 3, "student: step 2")  # too soon for another line
        progress(1, 3, "")  # whoever has nothing new to say is still at what it was
        progress(3, 3, "")
    assert capsys.readouterr().err.splitlines() == [
        "[0/3] student: step 1",
        "[1/3] first cell ~2 min left",
        "[1/3] student: step 2 ~2 min left",
        "[3/3] student: step 2 ~0 min left",
    ]
