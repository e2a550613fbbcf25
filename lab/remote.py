"""Edge and device as two processes: the same round as in the sweep, over a real socket."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from endedge.data.coco import Frame
from endedge.data.codec import Codec, Refused, decode_batch
from endedge.data.frames import stack_frames
from endedge.data.units import BadInput
from endedge.distill.model import DetectionModel, load_detector, save_detector
from endedge.distill.package import pack, unpack
from endedge.edge.adapt import adapt_teacher, distil_student, held_back_loss, split_upload
from endedge.edge.main import serve_main
from endedge.edge.service import Job, ServeConfig
from endedge.end.client import Capture, DeviceConfig, Outcome
from endedge.end.main import device_main
from endedge.end.metric import evaluate
from endedge.lab.config import Config
from endedge.lab.world import World

__all__ = ["device", "serve"]


def serve(config: Config, service: ServeConfig) -> None:
    """Run the edge until it is stopped. Labels come from the pool's annotations, by image id."""
    torch.set_num_threads(1)
    world = World.of(config, service.folder)
    serve_main(service, lambda job: adapt(world, service.folder / "models", job))


def adapt(world: World, models: Path, job: Job) -> bytes:
    """One job: the uploaded batch in, an update package out.

    Depends on the job alone, so it may run again after a crash; the model that a device holds
    after a round is kept in ``models``, for the delta of the next. Raises :class:`BadInput`
    when the upload cannot be used, or the update would not help: the round is then missed.
    """
    annotated = {f.image_id: f for f in world.pool.frames}
    frames: list[Frame] = []
    pictures = {}
    for item in decode_batch(job.batch):
        if isinstance(item, Refused) or item[0] not in annotated:
            continue  # one bad frame does not cost the batch
        frames.append(annotated[item[0]])
        pictures[item[0]] = item[1]
    if len(frames) < 4:
        raise BadInput(f"{len(frames)} usable frames; an update needs at least 4")
    known = split_upload(
        stack_frames(frames, world.side, lambda f: pictures[f.image_id]),
        world.config.held_back.share,
        world.config.held_back.most,
    )
    plan, shares = world.config, world.config.held_back.shares
    held = _model_of(world, models, job.device_id, job.base_round)
    teacher = adapt_teacher(
        world.teacher, known, plan.teacher.recipe(len(frames), job.round_index), shares,
        device=world.device,
    )  # fmt: skip
    gains = plan.distillation
    student = distil_student(
        held, teacher.model, known, plan.student.recipe(len(frames), job.round_index), shares,
        gains=(gains.label_gain, gains.score_gain, gains.box_gain), device=world.device,
    )  # fmt: skip
    packed = pack(
        student.model, job.budget_bytes,
        base=None if plan.downlink.mode == "full" else held,
        frames=known.trained.images[:32], mode=plan.downlink.mode,
    )  # fmt: skip
    decoded = unpack(packed.data, base=held)
    after = held_back_loss(decoded, known.held_back, world.device)
    if after >= student.losses[0.0]:
        raise BadInput("the held-back frames show no improvement; nothing is sent")
    save_detector(decoded, models / job.device_id / f"{job.round_index:08d}.safetensors")
    return packed.data


def _model_of(world: World, models: Path, device_id: str, round_index: int) -> DetectionModel:
    if round_index == 0:
        return world.student
    return load_detector(models / device_id / f"{round_index:08d}.safetensors")


def device(
    config: Config,
    device: DeviceConfig,
    *,
    rounds: int,
    frames: int,
    budget_bytes: int,
    seed: int,
    on_outcome: Callable[[Outcome], None],
) -> list[Outcome]:
    """Run a device for ``rounds`` rounds of ``frames`` new frames each, its camera's stream in
    the order of ``seed``; mAP is measured on the evaluation frames after each update.

    Raises :class:`BadInput` when the pool has too few frames.
    """
    torch.set_num_threads(1)
    world = World.of(config, device.folder)
    stream = world.captured(seed)
    if rounds * frames > len(stream):
        raise BadInput(f"{rounds} rounds of {frames} frames; the pool has {len(stream)}")
    codec = Codec.parse(config.uplink.codecs[0])

    def capture(round_index: int, model: Path | None) -> Capture | None:
        if round_index > rounds:
            return None
        new = stream[(round_index - 1) * frames : round_index * frames]
        return Capture(world.encoded(new, codec), len(new), budget_bytes)

    def install(package: bytes, base: Path | None, target: Path) -> None:
        held = world.student if base is None else load_detector(base)
        save_detector(unpack(package, base=held), target)

    def measure(model: Path) -> float:
        return evaluate(
            load_detector(model), world.evaluation_batch, world.evaluation, world.device
        ).map

    return device_main(device, capture, install, measure, on_outcome=on_outcome)
