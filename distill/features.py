"""The loss ``feature-l2``: what the teacher sees, at the maps that enter its head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from endedge.distill.loss import Gain, Loss, Make, register

if TYPE_CHECKING:
    from endedge.distill.losses import Objective
    from endedge.distill.model import DetectionModel

__all__ = ["Features"]


@register("feature-l2")
class Features(Loss):
    """Labels, and the squared error to the teacher's feature maps with the given ``gain``, as
    Ultralytics distils (:class:`endedge.distill.losses.FeatureL2`)."""

    gain: Gain = 6.0

    def towards(self, teacher: DetectionModel, device: str) -> Make:
        import torch

        from endedge.distill.losses import FeatureL2

        def make(model: DetectionModel) -> Objective:
            with torch.random.fork_rng(devices=[]):  # the same projections in every training
                torch.manual_seed(0)
                return FeatureL2(model, teacher, gain=self.gain, device=device)

        return make
