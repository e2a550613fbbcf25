"""Ultralytics, imported once: offline, away from the user's own settings, threads left alone.

Everything else that needs its classes imports this module (or one that does) first.
"""

from __future__ import annotations

import os

import torch

from endedge.data.storage import cache_folder


def _private_ultralytics() -> None:
    """Keep Ultralytics offline and away from the user's own settings (before its import)."""
    os.environ.setdefault("YOLO_OFFLINE", "1")
    os.environ.setdefault("YOLO_AUTOINSTALL", "0")
    os.environ.setdefault("YOLO_VERBOSE", "False")
    if "YOLO_CONFIG_DIR" not in os.environ:
        os.environ["YOLO_CONFIG_DIR"] = str(cache_folder())


_private_ultralytics()
_threads = torch.get_num_threads()
from ultralytics.nn.modules import Conv, Detect  # noqa: E402
from ultralytics.nn.tasks import DetectionModel, parse_model  # noqa: E402
from ultralytics.utils import DEFAULT_CFG  # noqa: E402
from ultralytics.utils.torch_utils import fuse_conv_and_bn  # noqa: E402

torch.set_num_threads(_threads)  # importing Ultralytics resets it

__all__ = [
    "DEFAULT_CFG",
    "Conv",
    "Detect",
    "DetectionModel",
    "fuse_conv_and_bn",
    "parse_model",
]
