"""Two experiments in small: one that runs in seconds and detects nothing, one that detects."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
import yaml
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from endedge.data.coco import nested_subset
from endedge.data.generated import generate
from endedge.data.shift import Shift
from endedge.distill.model import DetectionModel, save_detector
from endedge.lab.cli.main import main


@pytest.fixture(scope="session")
def _few_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("few")
    for split, n in (("pool", 12), ("eval", 4)):
        generate(folder, domain="field", split=split, n=n, seed=0, size=64)
    return folder


@pytest.fixture
def place(
    tmp_path: Path, tiny: DetectionModel, tiny_teacher: DetectionModel, _few_frames: Path
) -> Path:
    """A folder with two detectors, twelve frames and a configuration of a tiny experiment."""
    save_detector(tiny, tmp_path / "student.safetensors")
    save_detector(tiny_teacher, tmp_path / "teacher.safetensors")
    shutil.copytree(_few_frames, tmp_path, dirs_exist_ok=True)
    config = {
        "name": "tiny",
        "workers": 1,
        "data": {
            "root": str(tmp_path),
            "image_side": 64,
            "pool_annotations": "field-pool.json",
            "pool_images": "field-pool",
            "eval_annotations": "field-eval.json",
            "eval_images": "field-eval",
        },
        "weights": {
            "root": str(tmp_path),
            "teacher": "teacher.safetensors",
            "student": "student.safetensors",
        },
        "uplink": {"frames": [4, 6, 9, 12], "codecs": ["jpeg-q75-64"]},
        "teacher": {"steps": 1, "batch": 2},
        "student": {"steps": 1, "batch": 2},
        "held_back": {"least": 2},  # of 4 frames 2: all levels can be judged
        "downlink": {"budgets_bytes": [50_000, 200_000]},
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


# A world that detects -------------------------------------------------------------------------
# The shipped detectors on the domain they know, through a camera that costs them half of their
# mAP. Seconds of training bring it back, so "before" and "after" differ and one update is sent;
# another, of 7 kB, is wrecked by its packing and is not.

SEAM: dict[str, Any] = {
    "name": "seam",
    "workers": 1,
    "data": {
        "image_side": 128,
        "pool_annotations": "source-pool.json",
        "pool_images": "source-pool",
        "eval_annotations": "source-eval.json",
        "eval_images": "source-eval",
        "camera": {"kind": "night", "severity": 2, "seed": 5},
    },
    "weights": {
        "teacher": "endedge:demo/teacher.safetensors",
        "student": "endedge:demo/student.safetensors",
    },
    "uplink": {"frames": [32], "codecs": ["jpeg-q75-128"]},
    "teacher": {"steps": 12, "batch": 8, "lr": 1e-3, "train_norm": True},
    "student": {"steps": 24, "batch": 8, "lr": 1e-3, "train_norm": True},
    "downlink": {"budgets_bytes": [7000, 110_000], "mode": "full"},
}


@dataclass(frozen=True)
class Seam:
    """A measured folder ``out`` of the world above, its frames in ``frames``."""

    config: Path
    frames: Path
    out: Path

    @property
    def rows(self) -> dict[int, dict[str, str]]:
        """Rows of ``surface.csv`` by budget in bytes."""
        with (self.out / "surface.csv").open(newline="") as file:
            return {int(row["budget_bytes"]): row for row in csv.DictReader(file)}

    def record(self, stage: str, **wanted: object) -> tuple[Path, dict[str, Any]]:
        """The node of ``stage`` whose record has the values ``wanted``: its folder, its record."""
        for file in sorted((self.out / "nodes").glob(f"{stage}-*/record.json")):
            document = json.loads(file.read_text())
            found = document.get("record", document)
            if all(found.get(k) == v for k, v in wanted.items()):
                return file.parent, found
        raise AssertionError(f"no node {stage} with {wanted}")


Once = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def seam_world(once: Once) -> Path:
    """Its frames and its configuration; nothing is measured yet."""

    def make(place: Path) -> None:
        for split, n in (("pool", 40), ("eval", 24)):
            generate(place / "frames", domain="source", split=split, n=n, seed=3, size=128)
        document = {**SEAM, "data": {**SEAM["data"], "root": str(place / "frames")}}
        (place / "seam.yaml").write_text(yaml.safe_dump(document))

    return once("seam", make)


@pytest.fixture(scope="session")
def seam(seam_world: Path, once: Once) -> Seam:
    """Measured once a session: about fifteen seconds."""

    def measure(out: Path) -> None:
        assert main(["measure", str(seam_world / "seam.yaml"), "--out", str(out)]) == 0

    return Seam(seam_world / "seam.yaml", seam_world / "frames", once("seam-measured", measure))


def reference_map(
    model: DetectionModel, truth: dict[str, Any], images: Path, camera: Shift, moved: int = 0
) -> float:
    """COCO mAP50-95 by another path than the product's: PIL, a plain forward pass a frame,
    torchvision's NMS, pycocotools as it comes. For frames that need no letterbox; ``moved`` is
    what the camera adds to image ids before it draws its noise."""
    results = []
    for entry in truth["images"]:
        picture = np.asarray(Image.open(images / entry["file_name"]).convert("RGB"))
        seen = camera.apply(picture, entry["id"] + moved)
        with torch.no_grad():
            raw = model.eval()(torch.from_numpy(seen).permute(2, 0, 1)[None].float() / 255)[0][0]
        anchors, labels = (raw[4:] > 0.001).T.nonzero(as_tuple=True)
        scores = raw[4:].T[anchors, labels]
        centre, extent = raw[:2].T[anchors], raw[2:4].T[anchors]
        corners = torch.cat([centre - extent / 2, centre + extent / 2], 1)
        kept = torchvision.ops.batched_nms(corners, scores, labels, 0.7)[:300]
        corners = corners[kept].clamp(0, 128)
        for (x0, y0, x1, y1), score, label in zip(
            corners.tolist(), scores[kept].tolist(), labels[kept].tolist(), strict=True
        ):
            category = truth["categories"][label]["id"]
            results.append([entry["id"], x0, y0, x1 - x0, y1 - y0, score, category])
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = truth
        known.createIndex()
        run = COCOeval(known, known.loadRes(np.array(results)), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return float(run.stats[0])


@pytest.fixture
def evaluated(seam: Seam) -> Callable[[DetectionModel], float]:
    """The reference mAP of a model on the evaluation frames of ``seam``, through its camera."""
    truth = json.loads((seam.frames / "source-eval.json").read_text())
    images = seam.frames / "source-eval"
    return lambda model: reference_map(model, truth, images, Shift("night", 2, 5))


# The same world in a closed loop of two rounds, the second package of which is lost.
LOOP: dict[str, Any] = {
    "bandwidth_hz": "20kHz",
    "edge_s": 4,
    "latency_s": 0.5,
    "domains": {"dusk": {"kind": "night", "severity": 2}},
    "days": [[{"domain": "dusk", "periods": 3}]],
    "frames_per_period": 16,
    "eval_frames": 16,
    "monitor_frames": 8,
    "policies": ["static-0.6"],
    "lost": [2],
}


@pytest.fixture(scope="session")
def seam_loop(seam_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Seam:
    """Played once a session: about fifteen seconds."""
    place = tmp_path_factory.mktemp("loop")
    document = yaml.safe_load((seam_world / "seam.yaml").read_text()) | {
        "link": {"schedule": "sequential", "period_s": 60},
        "edge": {"replay_frames": 8},
        "held_back": {"share": 0.2, "least": 2},
        "downlink": {"budgets_bytes": [20_000, 110_000], "mode": "full"},
        "loop": LOOP,
    }
    (place / "loop.yaml").write_text(yaml.safe_dump(document))
    assert main(["loop", str(place / "loop.yaml"), "--out", str(place / "out")]) == 0
    return Seam(place / "loop.yaml", seam_world / "frames", place / "out")


@pytest.fixture
def scored(seam_loop: Seam) -> Callable[[DetectionModel], float]:
    """The reference mAP of a model on the frames that the loop's results are measured on: what
    a seeded order of the evaluation frames has after its first third, which is for decisions."""
    truth = json.loads((seam_loop.frames / "source-eval.json").read_text())
    chosen = {truth["images"][i]["id"] for i in nested_subset(24, 0)[8:]}
    some = {
        "categories": truth["categories"],
        "images": [entry for entry in truth["images"] if entry["id"] in chosen],
        "annotations": [a for a in truth["annotations"] if a["image_id"] in chosen],
    }
    pool = json.loads((seam_loop.frames / "source-pool.json").read_text())["images"]
    moved = max(entry["id"] for entry in pool)
    images = seam_loop.frames / "source-eval"
    return lambda model: reference_map(model, some, images, Shift("night", 2, 0), moved)
