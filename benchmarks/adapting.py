"""What ranks adaptations: each way to adapt, judged by uploaded frames that it was not trained on
and, which the edge cannot do, by the evaluation frames.

    python -m benchmarks.adapting hituav --frames 16 64 --ways front all --steps 60 \\
        --evaluate 2 --out runs/adapting data.root=DIR weights.root=DIR

For each upload: the input adapter that its frames choose, then every way from there, trained on
two thirds of the frames (by group). A line for each share of the way: gain over the detector as it
is (mean log ratio of the losses on the other third ± standard error), and mAP on every
``--evaluate``-th frame of evaluation. ``--all`` trains on all frames, which nobody can judge then.

Every training is a node of the results folder: killed, the same command goes on. On a CPU about
(steps x 1.3 s + shares x 10 s) a line of ways, YOLOv8n at 320 px.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from endedge.data.codec import Codec
from endedge.data.frames import Batch, stack_frames
from endedge.data.groups import folds_of, groups_of
from endedge.distill.adapter import attach, kind_of, start_adapter
from endedge.distill.adapter_training import learn_adapter
from endedge.distill.losses import labels
from endedge.distill.model import DetectionModel, clone, load_detector, save_detector
from endedge.distill.training import interpolate, train
from endedge.edge.adapt import held_back_losses
from endedge.edge.choosing import CANDIDATES, Candidate, choose_adapter
from endedge.edge.evidence import MOST_JUDGED, error_of, log_gains
from endedge.end.device import DeviceEnd
from endedge.end.metric import evaluate
from endedge.lab.config import load_config
from endedge.lab.inputs import Inputs
from endedge.lab.store import Node, Store
from endedge.lab.sweep.inbox import Inbox

FOLDS = 3


class Trials:
    """The trials of one configuration; what is made is kept in its store."""

    def __init__(self, inputs: Inputs, store: Store, every: int) -> None:
        self.inputs, self.store, self.every = inputs, store, every
        self._truth = inputs.evaluation.take(range(0, len(inputs.evaluation), every))
        self._seen = stack_frames(
            self._truth.frames,
            inputs.side,
            lambda frame: inputs.camera.apply(frame.read(), frame.image_id),
        )

    def upload(self, seed: int, frames: int) -> tuple[Batch, list[str]]:
        """The decoded upload with labels, and the group of each frame."""
        codec = Codec.parse(self.inputs.config.uplink.codecs[0])
        end = DeviceEnd(codec, self.inputs.side, self.inputs.device)
        known = Inbox(self.inputs, end, seed, frames).upload
        return known.trained, groups_of(known.groups, len(known.trained), FOLDS)

    def adapted(self, seed: int, frames: int) -> Node:
        """The detector behind the input adapter that the upload chooses."""

        def make(folder: Path) -> dict[str, Any]:
            batch, groups = self.upload(seed, frames)
            model, losses = choose_adapter(self.inputs.student, batch, groups=groups)
            save_detector(model, folder / "model.safetensors")
            return {"kind": kind_of(model), "losses": losses}

        return self.store.node("adapted", self._named(seed, frames), make)

    def trained(
        self, seed: int, frames: int, way: Candidate, steps: int, fold: int | None
    ) -> tuple[Node, DetectionModel]:
        """``way`` trained on all folds but one (None: on all), and what it started from."""
        first = load_detector(self.adapted(seed, frames).folder / "model.safetensors")
        if way.layers == 0 and kind_of(first) == "none":
            first = clone(first)
            attach(first, start_adapter())

        def make(folder: Path) -> dict[str, Any]:
            began = time.process_time()
            batch, groups = self.upload(seed, frames)
            folds = folds_of(groups, FOLDS, seed)
            at = [i for i in range(len(batch)) if folds[i] != fold]
            like = self.inputs.config.student.recipe(frames, seed)
            recipe = way.recipe(like, steps, len(at))
            if way.layers == 0:
                model = learn_adapter(first, batch.take(at), recipe, device=self.inputs.device)
            else:
                model = train(first, batch.take(at), labels, recipe, device=self.inputs.device)
            save_detector(model, folder / "model.safetensors")
            return {"cpu_s": time.process_time() - began}

        named = {**self._named(seed, frames), "way": str(way), "steps": steps, "fold": fold}
        return self.store.node("trained", named, make), first

    def judged(self, model: DetectionModel, seed: int, frames: int, fold: int) -> tuple[float, str]:
        """Gain of ``model`` on ``fold`` and its standard error, and both as text."""
        batch, groups = self.upload(seed, frames)
        folds = folds_of(groups, FOLDS, seed)
        at = [i for i in range(len(batch)) if folds[i] == fold][:MOST_JUDGED]
        device = self.inputs.device
        before, after = (
            held_back_losses(m, batch.take(at), device) for m in (self.inputs.student, model)
        )
        gains = log_gains(before, after)
        error = error_of(gains, [groups[i] for i in at])
        return float(gains.mean()), f"{gains.mean():+.3f} ± {error:.3f} on {len(at)}"

    def scored(self, model: DetectionModel) -> float:
        """mAP in percent on the evaluation frames that are looked at."""
        return 100 * evaluate(model, self._seen, self._truth, self.inputs.device).map

    def _named(self, seed: int, frames: int) -> dict[str, Any]:
        hashes, config = self.inputs.hashes, self.inputs.config
        return {
            "pool": hashes["pool"],
            "student": hashes["student"],
            "camera": config.data.camera.model_dump(),
            "codec": config.uplink.codecs[0],
            "labels": self.inputs.plan.labels,
            "side": self.inputs.side,
            "seed": seed,
            "frames": frames,
        }


def main() -> None:
    ways = {c.name: c for c in CANDIDATES}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("config")
    parser.add_argument("--frames", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--ways", nargs="+", choices=ways, default=list(ways))
    parser.add_argument("--shares", type=float, nargs="+", default=[0.25, 0.5, 0.75, 1.0])
    parser.add_argument("--steps", type=int, default=66)
    parser.add_argument("--evaluate", type=int, default=1, help="every so many-th frame")
    parser.add_argument("--all", action="store_true", help="train on all frames, judge by none")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("overrides", nargs="*")
    arguments, rest = parser.parse_known_args()
    torch.set_num_threads(1)
    config = load_config(arguments.config, [*arguments.overrides, *rest])
    trials = Trials(Inputs.of(config, arguments.out), Store(arguments.out), arguments.evaluate)
    fold = None if arguments.all else 0
    print(f"as it is: mAP {trials.scored(trials.inputs.student):.1f}", flush=True)
    for seed in config.seeds:
        for frames in arguments.frames:
            adapted = trials.adapted(seed, frames)
            first = load_detector(adapted.folder / "model.safetensors")
            text = trials.judged(first, seed, frames, 0)[1]
            print(
                f"seed {seed}, {frames} frames, adapter {adapted.record['kind']}: {text}, "
                f"mAP {trials.scored(first):.1f}",
                flush=True,
            )
            for name in arguments.ways:
                end, start = trials.trained(seed, frames, ways[name], arguments.steps, fold)
                model = load_detector(end.folder / "model.safetensors")
                for share in arguments.shares:
                    mixed = interpolate(start, model, share)
                    said = (
                        "" if fold is None else trials.judged(mixed, seed, frames, fold)[1] + ", "
                    )
                    print(
                        f"  {name}, {arguments.steps} steps, {share:.2f} of the way: {said}"
                        f"mAP {trials.scored(mixed):.1f} ({end.record['cpu_s']:.0f} s)",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
