"""Losses of the student by name, each with its settings: ``distillation`` of a configuration.

Another loss is a module with a :class:`Loss` and a line in :data:`LOSSES`. Configurations are read
without PyTorch, so what computes is imported where it is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from endedge.distill.losses import Objective
    from endedge.distill.model import DetectionModel

__all__ = ["DEFAULT_LOSS", "LOSSES", "Features", "Loss", "Make", "Responses"]

Gain = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Make: TypeAlias = "Callable[[DetectionModel], Objective]"


class Loss(BaseModel):
    """The settings of a loss; its fields are the keys of a configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def towards(self, teacher: DetectionModel, device: str) -> Make:
        """What makes the loss of a student that learns from ``teacher`` on ``device``."""
        raise NotImplementedError


class Responses(Loss):
    """Labels, and the teacher's class scores and box distributions at every anchor
    (:func:`endedge.distill.losses.distillation`)."""

    label_gain: Gain = 1.0
    score_gain: Gain = 1.0
    box_gain: Gain = 1.0

    def towards(self, teacher: DetectionModel, device: str) -> Make:
        from endedge.distill.losses import TeacherCache, distillation

        return distillation(
            TeacherCache(teacher, device),
            label_gain=self.label_gain,
            score_gain=self.score_gain,
            box_gain=self.box_gain,
        )


class Features(Loss):
    """Labels, and the teacher's feature maps at the head, as Ultralytics distils
    (:class:`endedge.distill.losses.FeatureL2`)."""

    gain: Gain = 6.0

    def towards(self, teacher: DetectionModel, device: str) -> Make:
        from endedge.distill.losses import FeatureL2

        return lambda model: FeatureL2(model, teacher, gain=self.gain, device=device)


DEFAULT_LOSS = "responses"
LOSSES: dict[str, type[Loss]] = {
    "responses": Responses,
    "feature-l2": Features,
}
