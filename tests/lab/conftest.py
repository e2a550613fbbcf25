"""A tiny experiment that runs in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from endedge.data.generated import generate
from endedge.distill.model import DetectionModel, save_detector


@pytest.fixture
def place(tmp_path: Path, tiny: DetectionModel, tiny_teacher: DetectionModel) -> Path:
    """A folder with two detectors, twelve frames and a configuration of a tiny experiment."""
    save_detector(tiny, tmp_path / "student.safetensors")
    save_detector(tiny_teacher, tmp_path / "teacher.safetensors")
    for split, n in (("pool", 12), ("eval", 4)):
        generate(tmp_path, domain="field", split=split, n=n, seed=0, size=64)
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
        "downlink": {"budgets_bytes": [50_000, 200_000]},
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    return tmp_path
