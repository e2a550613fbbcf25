"""Which student a package is of, and how that one came about: columns of ``surface.csv``, names of
nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from endedge.distill.package.packing import Packed
from endedge.edge import choosing
from endedge.edge.adapt import Adapted
from endedge.edge.choosing import Chosen
from endedge.edge.plan import Student
from endedge.lab.inputs import Inputs
from endedge.lab.store import Node

__all__ = ["chosen_by", "described", "learned", "sent_of", "whole_of"]


def described(inputs: Inputs, package: Node, students: Sequence[Node]) -> dict[str, Any]:
    """Which of ``students``, one a line of the menu, the ``package`` is of, as columns."""
    menu, said = inputs.plan.menu, package.record
    kept = said.get("keep", 1 - said["prune"])  # older ones do not say which line they are of
    name = _architecture_of(inputs, package)
    keeps = [line.keep for line in menu if line.architecture == name]
    keep = min(keeps, key=lambda keep: abs(keep - kept))
    whole = whole_of(inputs, package, students).record
    return {
        "student": name,
        "keep": keep,
        "latency_s": inputs.menu.latency_s.get(Student(name, keep), ""),
        "labels": inputs.plan.labels,
        "precision": inputs.precision,
        "candidate": whole.get("candidate", ""),
        "share": whole["share"],
    }


def _architecture_of(inputs: Inputs, package: Node) -> str:
    """The architecture of the student in ``package``. Older ones, of a menu of one, do not say it,
    and a file may have another name by now."""
    names = [line.architecture for line in inputs.plan.menu]
    said = package.record.get("student")
    return said if said in names else names[0]


def whole_of(inputs: Inputs, package: Node, students: Sequence[Node]) -> Node:
    """The unpruned one of ``students`` that ``package`` is of, or was cut from."""
    name, shallow = _architecture_of(inputs, package), package.record.get("shallow", False)
    kin = Student(name, shallow=shallow).kin
    menu = zip(inputs.plan.menu, students, strict=True)
    return next(node for line, node in menu if line.kin == kin)


def learned(adapted: Adapted) -> dict[str, Any]:
    """How a student came about, for its record."""
    return {
        "share": adapted.share,
        "losses": {str(k): v for k, v in adapted.losses.items()},
        **(adapted.record() if isinstance(adapted, Chosen) else {}),
    }


def sent_of(packed: Packed, line: Student) -> dict[str, Any]:
    """What a package of the menu's ``line`` is, for its record."""
    report = packed.report
    return {
        "student": line.architecture,
        "shallow": line.shallow,
        "keep": line.keep,
        "update_bytes": len(packed.data),
        "params": report.parameters,
        "transmitted": report.transmitted,
        "bits": report.mean_bits,
        "prune": 1 - report.kept,
        "mode": report.mode,
    }


def chosen_by(inputs: Inputs) -> dict[str, str]:
    """The policy of adaptation and whose labels, for the names of nodes; nothing for the fixed one
    and for true labels, as nodes were named before there were others."""
    policy, labels = inputs.config.adaptation.policy, inputs.plan.labels
    return ({} if policy == "fixed" else {"adaptation": f"{policy}-{choosing.VERSION}"}) | (
        {} if labels == "truth" else {"labels": labels}
    )
