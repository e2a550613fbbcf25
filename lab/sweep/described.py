"""Which student a package is of, and how that one came about: columns of ``surface.csv``, names of
nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from endedge.edge import choosing
from endedge.edge.plan import Student
from endedge.lab.inputs import Inputs
from endedge.lab.store import Node

__all__ = ["chosen_by", "described", "whole_of"]


def described(inputs: Inputs, package: Node, students: Sequence[Node]) -> dict[str, Any]:
    """Which of ``students``, one a line of the menu, the ``package`` is of, as columns."""
    menu, said = inputs.plan.menu, package.record
    kept = said.get("keep", 1 - said["prune"])  # older ones do not say which line they are of
    name = _architecture_of(inputs, package)
    keeps = [line.keep for line in menu if line.architecture == name]
    keep = min(keeps, key=lambda keep: abs(keep - kept))
    learned = whole_of(inputs, package, students).record
    return {
        "student": name,
        "keep": keep,
        "latency_s": inputs.menu.latency_s.get(Student(name, keep), ""),
        "labels": inputs.plan.labels,
        "precision": inputs.precision,
        "candidate": learned.get("candidate", ""),
        "share": learned["share"],
    }


def _architecture_of(inputs: Inputs, package: Node) -> str:
    """The architecture of the student in ``package``. Older ones, of a menu of one, do not say it,
    and a file may have another name by now."""
    names = [line.architecture for line in inputs.plan.menu]
    said = package.record.get("student")
    return said if said in names else names[0]


def whole_of(inputs: Inputs, package: Node, students: Sequence[Node]) -> Node:
    """The unpruned one of ``students`` that ``package`` is of, or was cut from."""
    name = _architecture_of(inputs, package)
    menu = zip(inputs.plan.menu, students, strict=True)
    return next(node for line, node in menu if line.architecture == name)


def chosen_by(inputs: Inputs) -> dict[str, str]:
    """The policy of adaptation and whose labels, for the names of nodes; nothing for the fixed one
    and for true labels, as nodes were named before there were others."""
    policy, labels = inputs.config.adaptation.policy, inputs.plan.labels
    return ({} if policy == "fixed" else {"adaptation": f"{policy}-{choosing.VERSION}"}) | (
        {} if labels == "truth" else {"labels": labels}
    )
