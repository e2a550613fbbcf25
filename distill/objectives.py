"""All losses that a configuration can choose: a line each, which registers it."""

from __future__ import annotations

from endedge.distill.features import Features as Features
from endedge.distill.loss import LOSSES as LOSSES
from endedge.distill.responses import Responses as Responses
