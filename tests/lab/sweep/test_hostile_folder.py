"""Somebody else's results folder, resumed: its files were made to run code, and its records
were sealed over them as ours are. Nothing runs; the run says which file it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from endedge.lab.cli.main import main
from endedge.lab.store import Store


def _payload(mark: Path) -> str:
    return f"(__import__('pathlib').Path({str(mark)!r}).touch(), __import__('torch').nn.SiLU())[1]"


def _evaluated(file: Path, mark: Path) -> None:
    """An activation that Ultralytics would evaluate."""
    with safe_open(file, "pt") as opened:
        head = dict(opened.metadata())
    spec = json.loads(head["spec"])
    spec["yaml"]["activation"] = _payload(mark)
    save_file(load_file(file), file, head | {"spec": json.dumps(spec)})


class _Touch:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def _pickled(file: Path, mark: Path) -> None:
    """A checkpoint whose pickle calls, under the name of a file that is none."""
    torch.save({"model": _Touch(mark)}, file)


CASES = {
    "a student that is evaluated": ("student", "student.safetensors", _evaluated),
    "a teacher that is evaluated": ("teacher", "teacher.safetensors", _evaluated),
    "a student that is a pickle": ("student", "student.safetensors", _pickled),
    "a package that is a pickle": ("package", "update.eeu", _pickled),
}


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_node_with_matching_hashes(
    case: str, seam: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage, name, poison = CASES[case]
    mark, out = tmp_path / "ran", tmp_path / "out"
    shutil.copytree(seam.out, out)
    store = Store(out)
    later = ("teacher", "student", "package", "applied", "cell")
    for after in later[later.index(stage) + 1 :]:
        shutil.rmtree(out / "cells", ignore_errors=True)
        for folder in (out / "nodes").glob(f"{after}-*"):
            shutil.rmtree(folder)
    poisoned = 0
    for old in store.nodes(stage):
        determinants = json.loads((old.folder / "record.json").read_text())["determinants"]
        kept = tmp_path / old.key
        shutil.move(old.folder, kept)

        def copied(scratch: Path, kept: Path = kept, record: Any = old.record) -> dict[str, Any]:
            for file in kept.iterdir():
                if file.name != "record.json":
                    shutil.copy(file, scratch)
            poison(scratch / name, mark)
            return dict(record)

        store.node(stage, determinants, copied)
        poisoned += 1
    assert poisoned > 0
    status = main(["measure", str(seam.config), "--out", str(out)])
    said = capsys.readouterr()
    assert not mark.exists()
    assert status != 0
    assert name in said.out + said.err
    assert "Traceback" not in said.out + said.err
