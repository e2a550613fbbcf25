"""What `endedge serve` hands to its processes for jobs."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from endedge.data.codec import Codec, EncodedFrame, encode, pack_batch
from endedge.data.errors import BadInput
from endedge.edge.server.service import Job
from endedge.edge.server.workers import JobError, JobLimits, JobProcess, Ticket
from endedge.lab.config import load_config
from endedge.lab.loop.serving import AdaptationWork


def batch(ids: range) -> bytes:
    blob = encode(np.zeros((48, 64, 3), np.uint8), Codec("webp", 50, 64))
    return pack_batch([EncodedFrame(k, blob) for k in ids])


def test_a_process_loads_the_world_once_and_answers(place: Path) -> None:
    config = load_config(str(place / "c.yaml"), ["serve.frames=20"])
    work = pickle.loads(pickle.dumps(AdaptationWork(config, place / "edge")))
    answer = work()
    with pytest.raises(BadInput, match="announces 21 frames; at most 20"):
        answer(Job("cam", 1, 0, batch(range(21)), 50_000))
    with pytest.raises(BadInput, match=r"0 usable frames \(20 refused\)"):
        answer(Job("cam", 1, 0, batch(range(1000, 1020)), 50_000))


def test_what_is_wrong_with_the_experiment_is_said_before_anybody_is_served(place: Path) -> None:
    config = load_config(str(place / "c.yaml"), ["weights.student=missing.safetensors"])
    work = AdaptationWork(config, place / "edge")
    with pytest.raises(BadInput, match="weights not found: missing"):
        work()  # as every process does before it takes a job


def test_a_real_adaptation_in_a_process_with_bounds(place: Path) -> None:
    """Twelve frames, one step: whatever it decides, it decides within 2 GiB, and says so."""
    config = load_config(str(place / "c.yaml"), ["held_back.least=4"])  # two judge: never sent
    process = JobProcess(
        AdaptationWork(config, place / "edge"), JobLimits(memory_bytes=2 << 30, seconds=300)
    )
    process.start()
    try:
        (place / "b").write_bytes(batch(range(1, 13)))
        with pytest.raises(JobError, match=r"no improvement|usable frames"):
            process(Ticket("cam", 1, 0, place / "b", 50_000))
    finally:
        process.close()
