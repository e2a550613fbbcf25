"""A pruned detector learns again from the whole one, without labels."""

from __future__ import annotations

from pathlib import Path

from endedge.configs import SHIPPED
from endedge.data.coco import read_image
from endedge.data.frames import stack_frames, unlabelled
from endedge.data.generated import generate
from endedge.distill.losses import divergence
from endedge.distill.model import DetectionModel, count_parameters, load_detector, model_hash
from endedge.distill.recovery import pruned_and_recovered
from endedge.distill.training import Recipe


def test_recovery_brings_predictions_back_and_never_harms(tmp_path: Path) -> None:
    model = load_detector(SHIPPED / "demo/student.safetensors")
    scenes = generate(tmp_path, domain="source", split="pool", n=20, seed=0, size=128)
    frames = stack_frames(scenes.frames, 128, lambda f: read_image(f.path)).images
    before, seen = model_hash(model), []

    def made(steps: int, lr: float) -> DetectionModel:
        recipe = Recipe(steps=steps, batch=8, lr=lr, layers=None, ema=0.9)
        return pruned_and_recovered(
            model,
            0.3,
            unlabelled(frames),
            recipe,
            calibration=frames[:8],
            on_step=lambda step, loss: seen.append(step),
        )

    cut, gentle, brutal = made(0, 1e-3), made(25, 2e-4), made(3, 1.0)
    assert seen[:25] == [*range(1, 26)]
    assert seen[25:] in ([1, 2], [1, 2, 3])  # at such a rate it may diverge
    assert count_parameters(gentle) == count_parameters(cut) <= 0.3 * count_parameters(model)
    held = frames[-4:]
    assert divergence(model, gentle, held) < divergence(model, cut, held)
    assert model_hash(brutal) == model_hash(cut)  # what it learned was thrown away
    assert model_hash(model) == before
