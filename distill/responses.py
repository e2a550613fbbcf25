"""The loss ``responses``: what the teacher says, at every anchor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from endedge.distill.loss import Gain, Loss, Make, register

if TYPE_CHECKING:
    from endedge.distill.model import DetectionModel

__all__ = ["Responses"]


@register("responses")
class Responses(Loss):
    """Labels, and the teacher's class scores and box distributions at every anchor
    (:func:`endedge.distill.losses.distillation`): a gain each."""

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
