"""One adaptation job of the socket service: the uploaded batch in, an update package out.

The edge's end is :class:`endedge.lab.loop.answers.Answers`, as in the simulated loop.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from endedge.data.codec import unpack_batch
from endedge.data.errors import BadInput
from endedge.edge.server.workers import Job
from endedge.lab.config import Config
from endedge.lab.inputs import World
from endedge.lab.loop.answers import Answers
from endedge.lab.store import Store
from endedge.lab.sweep.precision import settled_here
from endedge.lab.sweep.workers import compute_alone

__all__ = ["adapt", "adaptation"]


def adaptation(config: Config, folder: Path) -> Callable[[Job], bytes]:
    """Load the experiment; the function that answers its jobs, with its memory in ``folder``."""
    compute_alone()
    world = World.of(settled_here(config, folder), folder)
    return partial(adapt, world, folder / "models")


def adapt(world: World, models: Path, job: Job) -> bytes:
    """One job: the uploaded batch in, an update package out.

    Depends on the job and on the answers before it, which are kept in ``models``, so it may run
    again after a crash. Raises :class:`BadInput` when the upload cannot be used, or the update
    would not help: the round is then missed.
    """
    next(unpack_batch(job.batch, max_frames=world.config.serve.frames), None)  # not only offered
    store = Store(models / job.device_id)
    answers = {node.record["round"]: node for node in store.nodes("answer")}
    known = {k: node for k, node in answers.items() if k < job.round_index}
    if job.base_round and job.base_round not in known:
        raise BadInput(f"the model of round {job.base_round} is not in {models} any more")
    base = known.get(job.base_round)
    past = [known[k] for k in sorted(known)][-world.config.edge.memory_rounds :]
    answer = Answers(world, store, world.config.seeds[0]).answer(
        job.device_id, job.round_index, job.batch, job.budget_bytes, base=base, past=past
    )
    for node in answers.values():  # forgotten, or of a device that had this name before
        if node not in (*past, base, answer):
            store.remove(node.key)
    if not answer.record["sent"]:
        raise BadInput(answer.record["reason"])
    return (answer.folder / "update.eeu").read_bytes()
