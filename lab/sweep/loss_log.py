"""Losses of trainings as TensorBoard (``tensorboard --logdir DIR/logs``) or MLflow reads them."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from endedge.data.errors import BadInput

__all__ = ["Log", "heard", "loss_log"]

Log = Callable[[int, float], None]
_AT_ONCE = 50  # steps that MLflow is told of in one request


def loss_log(kind: str, folder: Path, name: str, total: int) -> Log:
    """A function of (step, loss) that logs the training ``name`` up to step ``total``; ``folder``
    holds the logs of a results folder. ``kind``: ``tensorboard`` or ``mlflow``.

    Raises :class:`BadInput` where what it needs is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return {"tensorboard": _tensorboard, "mlflow": _mlflow}[kind](folder, name, total)
    except ImportError:
        raise BadInput(f"log={kind} needs it: pip install 'endedge[{kind}]'") from None


def heard(say: Callable[[str], None], what: str, total: int, log: Log | None) -> Log:
    """A function of (step, loss) that says every tenth step of ``what`` and tells ``log``."""

    def on_step(step: int, loss: float) -> None:
        if step % 10 == 0 or step == total:
            say(f"{what}: step {step}/{total}, loss {loss:.3f}")
        if log is not None:
            log(step, loss)

    return on_step


def _tensorboard(folder: Path, name: str, total: int) -> Log:
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder / name, ignore_errors=True)  # of a training that was interrupted
    writer = SummaryWriter(str(folder / name))

    def write(step: int, loss: float) -> None:
        writer.add_scalar("loss", loss, step)
        if step == total:
            writer.close()

    return write


def _mlflow(folder: Path, name: str, total: int) -> Log:
    """To the server of ``MLFLOW_TRACKING_URI``, or to ``mlflow.db`` in the folder (``mlflow ui
    --backend-store-uri sqlite:///DIR/logs/mlflow.db``)."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    local = f"sqlite:///{folder.resolve() / 'mlflow.db'}"
    with (folder / "mlflow.lock").open("w") as lock:  # two workers may find no database at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        client = MlflowClient(tracking_uri=os.environ.get("MLFLOW_TRACKING_URI", local))
        title = f"endedge {folder.parent.name}"
        found = client.get_experiment_by_name(title)
        experiment = found.experiment_id if found else client.create_experiment(title)
    run = client.create_run(experiment, run_name=name).info.run_id
    waiting: list[Any] = []

    def write(step: int, loss: float) -> None:
        waiting.append(Metric("loss", loss, int(time.time() * 1000), step))
        if step == total or len(waiting) == _AT_ONCE:
            client.log_batch(run, metrics=waiting)
            waiting.clear()
        if step == total:
            client.set_terminated(run)

    return write
