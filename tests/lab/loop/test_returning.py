"""A domain that returns, over real sockets: the device goes back to the model it keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from endedge.data.codec import Codec
from endedge.data.generated import generate
from endedge.data.shift import Shift
from endedge.data.stream import Captured
from endedge.distill.model import load_detector, model_hash, save_detector
from endedge.distill.package import inspect
from endedge.edge.server.service import EdgeService, ServeConfig
from endedge.end.client.client import Capture, Device, DeviceConfig, Outcome
from endedge.end.device import DeviceEnd
from endedge.lab.config import load_config
from endedge.lab.inputs import Inputs
from endedge.lab.loop.adaptation import adapt

FULL, LEAST = 110_000, 64  # budgets in bytes
DAY, NIGHT = Shift("none", 3), Shift("infrared", 5)


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    for split, n in (("pool", 32), ("eval", 4)):
        generate(tmp_path, domain="source", split=split, n=n, seed=3, size=128)
    config = {
        "name": "yard",
        "data": {
            "root": str(tmp_path),
            "image_side": 128,
            "pool_annotations": "source-pool.json",
            "pool_images": "source-pool",
            "eval_annotations": "source-eval.json",
            "eval_images": "source-eval",
        },
        "weights": {
            "teacher": "endedge:demo/teacher.safetensors",
            "student": "endedge:demo/student.safetensors",
        },
        "uplink": {"frames": [16], "codecs": ["jpeg-q90-128"]},
        "teacher": {"steps": 1, "batch": 4},
        "student": {"steps": 12, "batch": 4},
        "adaptation": {"policy": "chosen"},  # what is dark for bright is seen with one curve
        "edge": {"replay_frames": 0},
        "end": {"models_bytes": "20MB"},
        "downlink": {"budgets_bytes": [FULL], "mode": "auto"},
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    return Inputs.of(load_config(str(tmp_path / "c.yaml")), tmp_path)


@pytest.mark.slow
def test_a_domain_that_returns_costs_64_bytes_and_a_lost_model_one_round(
    inputs: Inputs, tmp_path: Path
) -> None:
    end = DeviceEnd(Codec.parse("jpeg-q90-128"), 128, "cpu")
    packages: list[bytes] = []

    def install(package: bytes, base: Path | None, target: Path) -> None:
        packages.append(package)
        held = inputs.student if base is None else load_detector(base)
        save_detector(end.apply(package, held), target)

    def batch(camera: Shift, at: Sequence[int]) -> bytes:
        frames = [inputs.pool.frames[i] for i in at]
        return end.encode([Captured(f, float(i), camera) for i, f in enumerate(frames)]).batch

    serve = ServeConfig(tmp_path / "edge", port=0, metrics_port=0, idle_timeout_s=600.0)

    async def play() -> None:
        async with EdgeService(serve, lambda job: adapt(inputs, tmp_path / "answers", job)) as edge:
            config = DeviceConfig("cam", "127.0.0.1", edge.port, tmp_path / "cam", retry_s=0.05)
            config = replace(config, models_bytes=20_000_000, idle_timeout_s=600.0)
            async with Device(config, install) as device:

                async def round_of(camera: Shift, at: Sequence[int], budget: int) -> Outcome:
                    capture = Capture(batch(camera, at), len(at), budget)
                    return await device.outcome(device.submit(capture))

                def running() -> str:
                    model = device.store.model
                    return model_hash(inputs.student if model is None else load_detector(model))

                assert (await round_of(NIGHT, range(16), FULL)).status == "applied"
                night = running()
                assert night != model_hash(inputs.student)
                outcome = await round_of(DAY, range(16), LEAST)  # as it came: it always has that
                assert outcome.status == "applied", outcome
                assert running() == model_hash(inputs.student)
                assert len(packages[-1]) <= 64
                outcome = await round_of(NIGHT, range(12, 28), LEAST)
                assert outcome.status == "applied", outcome
                assert running() == night
                assert len(packages[-1]) <= 64
                assert inspect(packages[-1])["mode"] == "reuse"

                outcome = await round_of(DAY, range(12, 28), LEAST)
                assert running() == model_hash(inputs.student)
                for path in device.store.kept.values():
                    path.unlink()  # the night's model
                outcome = await round_of(NIGHT, range(16, 32), LEAST)
                assert outcome.status == "missed"
                assert "goes back to the model" in outcome.reason
                assert "\n" not in outcome.reason
                assert running() == model_hash(inputs.student)
                outcome = await round_of(NIGHT, range(16, 32), FULL)
                assert outcome.status == "applied", outcome
                assert inspect(packages[-1])["mode"] == "full"
                assert running() not in (night, model_hash(inputs.student))

    asyncio.run(asyncio.wait_for(play(), 3000))
