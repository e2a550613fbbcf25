"""One experiment: all sections together, and what must hold between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from endedge.data.groups import LEAST_FRAMES
from endedge.distill.objectives import Responses
from endedge.lab.config.fields import LATER, Count, DeviceName, Precision, Section
from endedge.lab.config.sections import (
    Adaptation,
    BenchmarkConfig,
    DataConfig,
    Distillation,
    Downlink,
    Edge,
    End,
    HeldBack,
    LinkConfig,
    Loop,
    Serve,
    Training,
    Uplink,
    Weights,
)

__all__ = ["Config"]


class Config(Section):
    """One experiment."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    device: DeviceName = "auto"  # auto: the GPU if there is one, decided once a folder
    precision: Annotated[Precision, LATER] = "fp32"  # of trainings; auto: as is fast, once a folder
    cuda_graphs: Annotated[bool, LATER] = False  # a training step as one (docs/scaling.md)
    log: Literal["none", "tensorboard", "mlflow"] = "none"  # losses of the trainings, in DIR/logs
    engine: Literal["auto", "here", "processes", "ray", "slurm"] = "auto"  # lab/sweep/executors.py
    workers: Count | Literal["auto"] = "auto"  # auto: one a core, or workers_per_gpu
    workers_per_gpu: Count = 1  # small trainings leave most of a GPU idle: several share it
    slurm: dict[str, str | int] = {}  # of submitit, e.g. {slurm_partition: gpu, timeout_min: 60}
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0,)
    data: DataConfig
    weights: Weights
    uplink: Uplink
    teacher: Training
    student: Training
    distillation: Distillation = Responses()
    recovery: Training = Training(steps=100, epochs=10, lr=5e-5)  # of a pruned student
    held_back: HeldBack = HeldBack()
    adaptation: Annotated[Adaptation, LATER] = Adaptation()
    downlink: Downlink
    link: LinkConfig = LinkConfig()
    benchmark: BenchmarkConfig = BenchmarkConfig()
    scenarios: dict[str, tuple[Any, ...]] = {}  # keys of link, each with values to try instead
    edge: Edge = Edge()
    end: Annotated[End, LATER] = End()
    serve: Serve = Serve()
    loop: Loop | None = None

    @model_validator(mode="after")
    def _scenarios_of_the_link(self) -> Config:
        for key, values in self.scenarios.items():
            if key not in LinkConfig.model_fields:
                known = ", ".join(LinkConfig.model_fields)
                raise ValueError(f"scenarios.{key} is not a key of link; those are {known}")
            for value in values:
                try:
                    self.link_with(key, value)
                except ValidationError as error:
                    wrong = error.errors()[0]["msg"]
                    raise ValueError(f"scenarios.{key}: {value!r}: {wrong}") from None
        return self

    @model_validator(mode="after")
    def _a_loop_stays_where_it_is(self) -> Config:
        domains = {} if self.loop is None else self.loop.domains
        kinds = {f"loop.domains.{name}": domain.kind for name, domain in domains.items()}
        if self.loop is not None:
            kinds["data.camera"] = self.data.camera.kind
        for where, kind in kinds.items():
            if kind == "viewpoint":
                raise ValueError(
                    f"{where}: viewpoint moves the boxes, which a loop takes from the files; it is "
                    "for run, eval and serve"
                )
        return self

    def link_with(self, key: str, value: Any) -> LinkConfig:
        """The link with one key changed."""
        return LinkConfig.model_validate({**self.link.model_dump(), key: value})

    @model_validator(mode="after")
    def _a_delta_is_of_one(self) -> Config:
        if len(self.weights.student) > 1 and self.downlink.mode == "delta":
            raise ValueError(
                "downlink.mode: a delta carries no other architecture, and weights.student lists "
                f"{len(self.weights.student)}; use mode full or auto"
            )
        return self

    @model_validator(mode="after")
    def _can_be_judged(self) -> Config:
        fewest = min(self.uplink.frames, default=LEAST_FRAMES)
        if self.adaptation.policy == "chosen" and fewest < LEAST_FRAMES:
            raise ValueError(
                f"uplink.frames: {fewest} frames cannot choose an adaptation (adaptation.policy "
                f"is chosen) and nothing learned from them would be sent; at least {LEAST_FRAMES}"
            )
        return self

    @property
    def fewest_frames(self) -> int:
        """Uploaded frames below which no update is ever sent, as the policy of adaptation has it;
        0 where none ever is."""
        chosen = self.adaptation.policy == "chosen"
        return LEAST_FRAMES if chosen else self.held_back.fewest_frames

    @model_validator(mode="after")
    def _no_repeats(self) -> Config:
        grids: dict[str, Sequence[Any]] = {
            "seeds": self.seeds,
            "uplink.frames": self.uplink.frames,
            "uplink.codecs": self.uplink.codecs,
            "downlink.budgets_bytes with 4 B x budgets_params": self.downlink.budgets,
        }
        for name, values in grids.items():
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{name} must list at least one value, none of them twice")
        return self

    def to_yaml(self) -> str:
        """The resolved configuration, as ``config.yaml`` of a results folder holds it."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
