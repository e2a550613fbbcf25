"""A pruned detector learns again from the whole one, without labels."""

from __future__ import annotations

from pathlib import Path

from endedge.configs import SHIPPED
from endedge.data.coco import read_image
from endedge.data.frames import stack_frames, unlabelled
from endedge.data.generated import generate
from endedge.distill.candidates import divergence
from endedge.distill.model import DetectionModel, count_parameters, load_detector, model_hash
from endedge.distill.recovery import pruned_and_recovered
from endedge.distill.training import Recipe


def test_recovery_brings_the_predictions_back(tmp_path: Path) -> None:
    model = load_detector(SHIPPED / "demo/student.safetensors")
    scenes = generate(tmp_path, domain="source", split="pool", n=12, seed=0, size=128)
    frames = stack_frames(scenes.frames, 128, lambda f: read_image(f.path)).images
    before, seen = model_hash(model), []

    def recover(steps: int) -> DetectionModel:
        recipe = Recipe(steps=steps, batch=4, lr=1e-3, layers=None, train_norm=True, ema=0.9)
        return pruned_and_recovered(
            model, 0.6, unlabelled(frames), recipe, calibration=frames[:4],
            on_step=lambda step, loss: seen.append(step),
        )  # fmt: skip

    cut, small = recover(0), recover(20)
    assert seen == list(range(1, 21))
    assert count_parameters(small) == count_parameters(cut) <= 0.6 * count_parameters(model)
    assert divergence(model, small, frames) < 0.7 * divergence(model, cut, frames)
    assert model_hash(model) == before
