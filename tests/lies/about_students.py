"""Lies about lab/sweep/described.py: which student a package is of, and how it came about."""

from __future__ import annotations

from tests.lies.lie import Lie

__all__ = ["LIES"]

STAGES = ("tests/lab/sweep/test_stages.py",)
ROW = ("tests/lab/sweep/test_row.py",)

LIES = [
    Lie(
        "a cut student is judged",
        "lab/sweep/described.py",
        "return next(node for line, node in menu if line.kin == kin)",
        "return [node for line, node in menu if line.kin == kin][-1]",
        "the verdict is on another student than the one distilled, of the same architecture",
        ROW,
    ),
    Lie(
        "every student is the first of the menu",
        "lab/sweep/described.py",
        '        "student": name,\n',
        '        "student": menu[0].architecture,\n',
        "the row names another student than the one that travelled",
        ROW,
    ),
    Lie(
        "every student is whole",
        "lab/sweep/described.py",
        '        "keep": keep,\n',
        '        "keep": 1.0,\n',
        "a pruned student is said to be whole",
        ROW,
    ),
    Lie(
        "all labels are truth",
        "lab/sweep/described.py",
        '        "labels": inputs.plan.labels,',
        '        "labels": "truth",',
        "pseudo-labels are said to be an annotator's",
        ROW,
    ),
    Lie(
        "no adaptation is named",
        "lab/sweep/described.py",
        '"candidate": whole.get("candidate", ""),',
        '"candidate": "",',
        "how the student was adapted is lost",
        ROW,
    ),
    Lie(
        "the share of another student",
        "lab/sweep/described.py",
        '        "share": whole["share"],',
        '        "share": students[0].record["share"],',
        "how far the student went is another's",
        ROW,
    ),
    Lie(
        "other labels reuse the teacher",
        "lab/sweep/described.py",
        '{} if labels == "truth" else {"labels": labels}',
        "{}",
        "pseudo-labels are given the results of true ones",
        STAGES,
    ),
    Lie(
        "every precision is fp32",
        "lab/sweep/described.py",
        '        "precision": inputs.precision,',
        '        "precision": "fp32",',
        "bf16 is said to be fp32",
        ROW,
    ),
]
