"""Two rounds of the loop, recomputed from the files that they left.

Times by hand from bytes and bandwidth, mAP by the reference of conftest.py, models decoded from
the packages: nothing here calls the loop's own code.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from endedge.configs import SHIPPED
from endedge.data.codec import decode_batch
from endedge.distill.model import DetectionModel, load_detector, model_hash
from endedge.distill.package import unpack

CLOSE = 2e-3
UP_BIT_S, DOWN_BIT_S = 20_000 * 2.55, 20_000 * 5.0  # 20 kHz at the default efficiencies
EDGE_S, LATENCY_S, PERIOD_S = 4.0, 0.5, 60.0


def _rows(seam_loop: Any) -> dict[int, dict[str, str]]:
    with (seam_loop.out / "rounds.csv").open(newline="") as file:
        return {int(row["round"]): row for row in csv.DictReader(file)}


def _answer(seam_loop: Any, round_index: int) -> tuple[Path, dict[str, Any]]:
    folder, record = seam_loop.record("answer", round=round_index)
    return folder, record


def _student() -> DetectionModel:
    return load_detector(SHIPPED / "demo/student.safetensors")


def test_a_round_is_worth_the_old_model_until_the_new_one_is_applied(
    seam_loop: Any, scored: Callable[[DetectionModel], float]
) -> None:
    row = _rows(seam_loop)[1]
    folder, _ = _answer(seam_loop, 1)
    package = (folder / "update.eeu").read_bytes()
    after = unpack(package, base=_student())
    before_map, after_map = scored(_student()), scored(after)
    assert after_map > before_map + 0.03 > 0.1  # the world tells before from after
    assert float(row["map_before"]) == pytest.approx(before_map, abs=CLOSE)
    assert float(row["map_after"]) == pytest.approx(after_map, abs=CLOSE)
    # uplink, latency, edge, downlink, latency
    upload_s = 8 * int(row["upload_bytes"]) / UP_BIT_S + LATENCY_S
    applied_s = upload_s + EDGE_S + 8 * len(package) / DOWN_BIT_S + LATENCY_S
    assert float(row["upload_s"]) == pytest.approx(upload_s)
    assert float(row["applied_s"]) == pytest.approx(applied_s)
    fresh = 1 - applied_s / PERIOD_S
    assert 0.3 < fresh < 0.9
    assert float(row["map"]) == pytest.approx(
        before_map * (1 - fresh) + after_map * fresh, abs=CLOSE
    )


def test_what_was_applied_is_what_the_edge_sent(seam_loop: Any) -> None:
    row = _rows(seam_loop)[1]
    folder, record = _answer(seam_loop, 1)
    package = (folder / "update.eeu").read_bytes()
    assert int(row["update_bytes"]) == len(package) == record["update_bytes"]
    assert len(package) <= int(row["budget_bytes"])
    decoded = model_hash(unpack(package, base=_student()))
    assert row["model_before"] == model_hash(_student())
    assert row["model_after"] == row["edge_model"] == decoded
    assert (row["sent"], row["applied"], row["lost"]) == ("1", "1", "0")


def test_the_next_round_starts_from_what_runs_and_a_lost_package_changes_nothing(
    seam_loop: Any, scored: Callable[[DetectionModel], float]
) -> None:
    first, second = (_rows(seam_loop)[k] for k in (1, 2))
    assert second["model_before"] == first["model_after"]
    assert float(second["map_before"]) == float(first["map_after"])
    assert (second["sent"], second["applied"], second["lost"]) == ("1", "0", "1")
    assert second["model_after"] == second["model_before"]
    assert float(second["map"]) == float(second["map_before"]) == float(second["map_after"])


def test_a_round_uploads_what_was_captured_in_the_period_before(seam_loop: Any) -> None:
    """Sixteen frames a period in one order without repetition: the uploads are disjoint."""
    sent: list[set[int]] = []
    for k in (1, 2):
        folder, record = _answer(seam_loop, k)
        batch = (folder / "upload.batch").read_bytes()
        row = _rows(seam_loop)[k]
        ids = {item[0] for item in decode_batch(batch) if isinstance(item, tuple)}
        assert len(batch) == int(row["upload_bytes"])
        assert len(ids) == int(row["frames"]) == record["frames"] > 3
        sent.append(ids)
    assert not sent[0] & sent[1]


def test_earlier_frames_are_replayed_and_a_fifth_is_held_back(seam_loop: Any) -> None:
    for k, replayed in ((1, 0), (2, 8)):
        _, record = _answer(seam_loop, k)
        held_back = max(2, round(0.2 * record["frames"]))
        assert record["trained"] == record["frames"] - held_back + replayed


def test_the_teacher_goes_on_from_round_to_round(seam_loop: Any) -> None:
    models = [load_detector(_answer(seam_loop, k)[0] / "teacher.safetensors") for k in (1, 2)]
    shipped = load_detector(SHIPPED / "demo/teacher.safetensors")
    assert len({model_hash(m) for m in (*models, shipped)}) == 3


def test_the_summary_is_the_mean_over_rounds_and_counts_bytes_that_flew(seam_loop: Any) -> None:
    rows = list(_rows(seam_loop).values())
    with (seam_loop.out / "summary.csv").open(newline="") as file:
        (summary,) = csv.DictReader(file)
    assert float(summary["map"]) == pytest.approx(sum(float(r["map"]) for r in rows) / 2)
    assert float(summary["last_map"]) == float(rows[1]["map_after"])
    assert float(summary["upload_bytes"]) == sum(int(r["upload_bytes"]) for r in rows)
    assert float(summary["update_bytes"]) == sum(int(r["update_bytes"]) for r in rows)
    assert (summary["sent"], summary["applied"], summary["rounds"]) == ("2", "1", "2")


def test_no_uploaded_frame_is_evaluated(seam_loop: Any) -> None:
    digests = {
        split: {p.read_bytes() for p in (seam_loop.frames / f"source-{split}").iterdir()}
        for split in ("pool", "eval")
    }
    assert not digests["pool"] & digests["eval"]
    truth = json.loads((seam_loop.frames / "source-pool.json").read_text())
    pool = {entry["id"] for entry in truth["images"]}
    for k in (1, 2):
        batch = (_answer(seam_loop, k)[0] / "upload.batch").read_bytes()
        assert {item[0] for item in decode_batch(batch) if isinstance(item, tuple)} <= pool
