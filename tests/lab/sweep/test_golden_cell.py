"""Every column of ``surface.csv``, recomputed from the files of a measured folder.

By another path than the product's wherever there is one: the package is decoded from its bytes,
mAP is pycocotools' on a plain forward pass, uploads are encoded by Pillow, sizes are of files.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from endedge.allocator import Surface
from endedge.configs import SHIPPED
from endedge.data.coco import load_coco, nested_subset
from endedge.data.frames import stack_frames
from endedge.data.shift import Shift
from endedge.distill.model import DetectionModel, count_parameters, load_detector
from endedge.distill.package import inspect, unpack
from endedge.end.inference import detect
from endedge.end.replicates import draws_of, map_replicates
from endedge.lab.sweep.replicates import Replicates

SENT, KEPT = 110_000, 7_000  # budgets in bytes of the update that is sent and of the other
CLOSE = 2e-3  # mAP: two orders of magnitude below the differences that are told apart here


def _student() -> DetectionModel:
    return load_detector(SHIPPED / "demo/student.safetensors")


def _package(seam: Any, budget: int) -> tuple[bytes, dict[str, Any]]:
    for file in (seam.out / "nodes").glob("package-*/record.json"):
        document = json.loads(file.read_text())
        if document["determinants"]["budget"] == budget:
            return (file.parent / "update.eeu").read_bytes(), document["record"]
    raise AssertionError(f"no package of {budget} B")


def test_map_is_that_of_the_decoded_package(
    seam: Any, evaluated: Callable[[DetectionModel], float]
) -> None:
    row = seam.rows[SENT]
    decoded = evaluated(unpack(_package(seam, SENT)[0], base=_student()))
    start = evaluated(_student())
    assert decoded > start + 0.05 > 0.1  # the world tells before from after
    assert row["sent"] == "1"
    assert float(row["map"]) == pytest.approx(decoded, abs=CLOSE)
    assert float(row["decoded_map"]) == pytest.approx(decoded, abs=CLOSE)
    assert float(row["m0"]) == pytest.approx(start, abs=CLOSE)
    assert float(row["map50"]) > float(row["map"])


def test_an_update_that_is_not_sent_leaves_the_device_as_it_was(
    seam: Any, evaluated: Callable[[DetectionModel], float]
) -> None:
    row = seam.rows[KEPT]
    wrecked = evaluated(unpack(_package(seam, KEPT)[0], base=_student()))
    assert row["sent"] == "0"
    assert float(row["decoded_map"]) == pytest.approx(wrecked, abs=CLOSE)
    assert float(row["map"]) == float(row["m0"]) == pytest.approx(evaluated(_student()), abs=CLOSE)
    assert wrecked < float(row["m0"]) - 0.05


def test_packing_costs_what_the_row_says(
    seam: Any, evaluated: Callable[[DetectionModel], float]
) -> None:
    """The student before packing is another model, and what is reported is not its mAP."""
    folder, _ = seam.record("student")
    whole = evaluated(load_detector(folder / "student.safetensors"))
    assert abs(whole - float(seam.rows[KEPT]["decoded_map"])) > 0.05


def test_the_teacher_is_the_adapted_one(
    seam: Any, evaluated: Callable[[DetectionModel], float]
) -> None:
    folder, _ = seam.record("teacher")
    adapted = evaluated(load_detector(folder / "teacher.safetensors"))
    as_shipped = evaluated(load_detector(SHIPPED / "demo/teacher.safetensors"))
    assert abs(adapted - as_shipped) > 0.01
    assert float(seam.rows[SENT]["teacher_map"]) == pytest.approx(adapted, abs=CLOSE)


def test_bytes_are_those_of_the_wire(seam: Any) -> None:
    for budget, row in seam.rows.items():
        data, _ = _package(seam, budget)
        assert int(row["update_bytes"]) == len(data) <= budget
        assert int(row["budget_bytes"]) == budget


def test_the_upload_is_the_camera_seen_frames_as_jpeg(seam: Any) -> None:
    """The bytes of the batch, from the pictures: camera, then Pillow's JPEG at quality 75."""
    truth = json.loads((seam.frames / "source-pool.json").read_text())["images"]
    chosen = [truth[i] for i in nested_subset(40, 0)[:32]]
    camera = Shift("night", 2, 5)
    payload = 0
    for entry in chosen:
        picture = np.asarray(Image.open(seam.frames / "source-pool" / entry["file_name"]))
        out = io.BytesIO()
        Image.fromarray(camera.apply(picture, entry["id"])).save(
            out, "JPEG", quality=75, optimize=True
        )
        payload += len(out.getvalue())
    said = int(seam.rows[SENT]["upload_bytes"])
    assert payload < said < payload + 32 * 64  # and framing
    assert int(seam.rows[SENT]["frames"]) == 32


def test_parameters_and_bits_are_those_of_the_package(seam: Any) -> None:
    for budget, row in seam.rows.items():
        data, _ = _package(seam, budget)
        model = unpack(data, base=_student())
        assert int(row["params"]) == count_parameters(model)
        assert float(row["prune"]) == 0.0
        assert row["mode"] == "full" == inspect(data)["mode"]
        # entropy-coded bits of all bytes but headers, a parameter
        assert 0.8 < float(row["bits"]) / (8 * len(data) / count_parameters(model)) <= 1.02


def test_seconds_are_of_the_stage_they_name(seam: Any) -> None:
    row = seam.rows[SENT]
    _, teacher = seam.record("teacher")
    _, student = seam.record("student")
    _, package = _package(seam, SENT)
    _, cell = seam.record("cell", map=float(row["decoded_map"]))
    named = {
        "seconds_teacher": teacher,
        "seconds_student": student,
        "seconds_pack": package,
        "seconds_eval": cell,
    }
    assert len({record["seconds"] for record in named.values()}) == 4
    for column, record in named.items():
        assert float(row[column]) == record["seconds"]


def test_the_row_says_which_student_travels_and_how_it_came_about(seam: Any) -> None:
    for row in seam.rows.values():
        assert list(row)[-8:] == [
            *("student", "keep", "latency_s", "labels", "precision", "candidate", "share"),
            "adapter",
        ]
        assert row["student"] == "endedge:demo/student.safetensors"
        assert (row["keep"], row["labels"], row["precision"]) == ("1.0", "truth", "fp32")
        assert (row["candidate"], row["adapter"], row["latency_s"]) == ("", "none", "")
        assert float(row["share"]) == seam.record("student")[1]["share"]


def test_replicates_are_of_the_decoded_package_on_draws_that_all_share(seam: Any) -> None:
    """Detected and drawn again; on all frames once they would be the cell's mAP."""
    truth = load_coco(seam.frames / "source-eval.json", seam.frames / "source-eval")
    camera = Shift("night", 2, 5)
    batch = stack_frames(truth.frames, 128, lambda f: camera.apply(f.read(), f.image_id))
    kept = Replicates.read(seam.out / "replicates.npz")
    draws = draws_of(len(truth))
    assert kept.map.shape == (2, 200)
    assert kept.groups == len(truth) == 24
    assert not kept.optimistic
    held = {"m0": (_student(), kept.m0)}
    for row, found in zip(kept.cell, kept.map, strict=True):
        package = json.loads((seam.out / "nodes" / row / "record.json").read_text())
        folder = seam.out / "nodes" / package["determinants"]["package"]
        held[row] = (unpack((folder / "update.eeu").read_bytes(), base=_student()), found)
    for model, found in held.values():
        wanted = map_replicates(truth, detect(model, batch), draws, fast=False)
        assert 1e-4 * found == pytest.approx(wanted, abs=6e-5)
    surface = Surface.read(seam.out / "surface.csv")
    drawn = kept.of(surface)
    unsent = int(np.flatnonzero(surface.sent == 0)[0])
    assert (drawn[unsent] == 1e-4 * kept.m0).all()  # the device keeps what it has
    assert drawn.std(axis=1).min() > 0.003


def test_evaluation_frames_are_not_among_the_uploaded(seam: Any) -> None:
    pool, evaluation = (
        {p.read_bytes() for p in (seam.frames / f"source-{split}").iterdir()}
        for split in ("pool", "eval")
    )
    assert len(pool) == 40
    assert len(evaluation) == 24
    assert not pool & evaluation
