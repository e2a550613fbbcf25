"""HIT-UAV from a repository that stands in for the authors'."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from endedge.data.coco import load_coco
from endedge.data.errors import BadInput
from endedge.data.hituav import FRAMES, fetch_hituav
from endedge.lab.cli.main import main

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

CATEGORIES = ("Person", "Car", "Bicycle", "OtherVehicle", "DontCare")
FEW = {"pool": (0, 3), "eval": (1609,)}


def _git(where: Path, *arguments: str) -> str:
    own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    names = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    done = subprocess.run(
        ["git", *names, "-C", str(where), *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **own},
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """URL and commit of a repository laid out like the authors': frames of three kinds of split."""
    root = tmp_path_factory.mktemp("hituav-source")
    rng = np.random.default_rng(0)
    for split, number, date in (
        ("train", 0, "20201217"),
        ("test", 3, "20201217"),
        ("val", 1609, "20210115"),
    ):
        folder = root / "normal_json" / split
        folder.mkdir(parents=True)
        (root / "rotate_xml").mkdir(exist_ok=True)
        name = f"1_60_30_0_{number:05d}.jpg"
        grey = rng.integers(0, 255, (512, 640), np.uint8)
        Image.fromarray(grey).save(folder / name, quality=95)
        (root / "rotate_xml" / f"{number}.xml").write_text("<annotation/>")
        document = {
            "images": [
                {
                    "filename": name,
                    "height": 512,
                    "width": 640,
                    "id": number,
                    "date_captured": date,
                }
            ],
            "categories": [{"id": i, "name": n} for i, n in enumerate(CATEGORIES)],
            "annotation": [
                {"image_id": number, "bbox": [271, 72, 7, 16], "category_id": kind, "id": kind}
                for kind in range(5)
            ],
        }
        annotations = root / "normal_json" / "annotations"
        annotations.mkdir(exist_ok=True)
        (annotations / f"{split}.json").write_text(json.dumps(document))
    _git(root, "init", "-q")
    _git(root, "config", "uploadpack.allowFilter", "true")
    _git(root, "config", "uploadpack.allowAnySHA1InWant", "true")
    _git(root, "add", "-A")
    _git(root, "commit", "-qm", "as published")
    pinned = _git(root, "rev-parse", "HEAD")
    (root / "normal_json/annotations/train.json").write_text("{}")  # later, and not wanted
    _git(root, "commit", "-qam", "changed")
    return root.as_uri(), pinned


def test_frames_arrive_converted(source: tuple[str, str], tmp_path: Path) -> None:
    url, commit = source
    said: list[str] = []
    made = fetch_hituav(tmp_path, source=url, commit=commit, frames=FEW, say=said.append)
    assert [p.name for p in made] == ["instances_pool.json", "instances_eval.json"]
    assert any(url in text for text in said)
    pool = load_coco(made[0], tmp_path / "images/pool")
    assert [f.image_id for f in pool.frames] == [1, 4]
    assert {f.group for f in pool.frames} == {"20201217-1-60"}
    first = pool.frames[0]
    assert (first.width, first.height) == (416, 333)
    assert first.read().shape == (333, 416, 3)
    assert first.crowd.tolist() == [False, False, False, True]  # OtherVehicle is left out
    assert first.boxes[0] == pytest.approx([176.15, 46.83, 4.55, 10.41])
    assert [pool.names[i] for i in first.labels] == ["person", "car", "bicycle", "person"]
    evaluation = load_coco(made[1], tmp_path / "images/eval")
    assert [f.group for f in evaluation.frames] == ["20210115-1-60"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["annotations", "images"]


def test_what_is_there_is_not_fetched_again(source: tuple[str, str], tmp_path: Path) -> None:
    url, commit = source
    made = fetch_hituav(tmp_path, source=url, commit=commit, frames=FEW)
    assert fetch_hituav(tmp_path, source="file:///nowhere", commit=commit, frames=FEW) == made


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"source": "file:///no/such/repository"}, "git fetch of file:///no/such/repository: "),
        ({"commit": "0" * 40}, "git fetch of file://.*: "),
        ({"frames": {"pool": (7,)}}, "HIT-UAV lacks frame 7, which was pinned"),
    ],
)
def test_a_source_that_is_not_it_is_one_line(
    source: tuple[str, str], tmp_path: Path, change: dict[str, object], says: str
) -> None:
    url, commit = source
    wanted = {"source": url, "commit": commit, "frames": FEW, **change}
    with pytest.raises(BadInput, match=says) as caught:
        fetch_hituav(tmp_path, **wanted)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("annotations/*.json"))


def test_a_changed_source_is_noticed(source: tuple[str, str], tmp_path: Path) -> None:
    url, _ = source
    later = _git(Path(url.removeprefix("file://")), "rev-parse", "HEAD")
    with pytest.raises(BadInput, match="normal_json is not the HIT-UAV that was pinned"):
        fetch_hituav(tmp_path, source=url, commit=later, frames=FEW)


def test_the_pinned_frames_are_those_of_the_experiments() -> None:
    assert {split: len(numbers) for split, numbers in FRAMES.items()} == {"pool": 764, "eval": 390}
    assert not set(FRAMES["pool"]) & set(FRAMES["eval"])
    assert all(list(n) == sorted(set(n)) for n in FRAMES.values())


def test_the_verb_says_what_went_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["data", "download", "hituav", "--out", str(tmp_path), "--mirror", "file:///none"])
    assert code == 2
    assert "git fetch of file:///none" in capsys.readouterr().err
