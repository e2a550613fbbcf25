"""One adaptation job of the socket service: the uploaded batch in, an update package out.

The edge's end is :class:`endedge.lab.loop.answers.Answers`, as in the simulated loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from endedge.data.codec import unpack_batch
from endedge.data.errors import BadInput
from endedge.edge.server.workers import Job
from endedge.end.client.outcomes import HELD_BACK
from endedge.lab.config import Config
from endedge.lab.inputs import Inputs
from endedge.lab.loop.answers import Answers, keeping
from endedge.lab.store import Node, Store
from endedge.lab.sweep.precision import settled_here
from endedge.lab.sweep.workers import compute_alone

__all__ = ["adapt", "adaptation"]


def adaptation(config: Config, folder: Path) -> Callable[[Job], bytes]:
    """Load the experiment; the function that answers its jobs, with its memory in ``folder``."""
    compute_alone()
    inputs = Inputs.of(settled_here(config, folder), folder)
    return partial(adapt, inputs, folder / "models")


def adapt(inputs: Inputs, models: Path, job: Job) -> bytes:
    """One job: the uploaded batch in, an update package out.

    Depends on the job and on the answers before it, which are kept in ``models``, so it may run
    again after a crash. Raises :class:`BadInput` when the upload cannot be used, or the update
    would not help: the round is then missed.
    """
    next(unpack_batch(job.batch, max_frames=inputs.config.serve.frames), None)  # not only offered
    store = Store(models / job.device_id)
    answers = {node.record["round"]: node for node in store.nodes("answer")}
    earlier = {k: node for k, node in answers.items() if k < job.round_index}
    if job.base_round and job.base_round not in earlier:
        raise BadInput(f"the model of round {job.base_round} is not in {models} any more")
    base = earlier.get(job.base_round)
    past = [earlier[k] for k in sorted(earlier)][-inputs.config.edge.memory_rounds :]
    kept, certain = _kept(earlier, base, inputs.config.end.models_bytes)
    answer = Answers(inputs, store, inputs.config.seeds[0]).answer(
        job.device_id,
        job.round_index,
        job.batch,
        job.budget_bytes,
        base=base,
        certain=certain,
        past=past,
        kept=kept,
    )
    for node in answers.values():  # forgotten, or of a device that had this name before
        if node not in (*past, *kept, base, answer):
            store.remove(node.key)
    if not answer.record["sent"]:
        judged = "loss_before" in answer.record  # else there was nothing to judge
        raise BadInput((HELD_BACK if judged else "") + answer.record["reason"])
    return (answer.folder / "update.eeu").read_bytes()


def _kept(
    earlier: Mapping[int, Node], base: Node | None, room_bytes: int
) -> tuple[list[Node], bool]:
    """The answers whose models the device still has beside that of ``base``, and whether it can be
    trusted to have what this says.

    What was sent is in use if the next answer's base is its model. A package upon a kept model
    that was not applied shows that the device has lost it: then it is not named again, and what
    comes next is a full package.
    """
    if not room_bytes:
        return [], True
    kept: list[Node] = []
    running: Node | None = None
    sent: list[Node] = []
    refused: list[Node] = []
    then = "" if base is None else base.record["model"]  # what ran after it
    for k in sorted(earlier, reverse=True):
        if earlier[k].record["sent"]:
            sent.insert(0, earlier[k])
            if earlier[k].record["model"] != then:
                refused.append(earlier[k])
        then = earlier[k].record.get("base", then)
    gone = {n.record["recalled"] for n in refused if n.record.get("recalled")}
    for node in sent:
        if node in refused:
            continue
        kept, running = keeping(kept, running, node, room_bytes), node
    trusted = not sent or sent[-1] not in refused or not sent[-1].record.get("recalled")
    return [n for n in kept if n.record["model"] not in gone], trusted
