"""Losses of trainings as TensorBoard reads them: ``tensorboard --logdir DIR/logs``."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from endedge.data.units import BadInput

__all__ = ["loss_log"]


def loss_log(folder: Path, total: int) -> Callable[[int, float], None]:
    """A function of (step, loss) that writes ``folder`` anew, up to step ``total``.

    Raises :class:`BadInput` where TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise BadInput("log=tensorboard needs it: pip install 'endedge[tensorboard]'") from None
    shutil.rmtree(folder, ignore_errors=True)  # of a training that was interrupted
    writer = SummaryWriter(str(folder))

    def write(step: int, loss: float) -> None:
        writer.add_scalar("loss", loss, step)
        if step == total:
            writer.close()

    return write
