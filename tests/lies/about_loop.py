"""Lies about lab/loop/: what edge and decisions know, federated rounds."""

from __future__ import annotations

from tests.lies.lie import Lie

__all__ = ["LIES"]

PARTS = ("tests/lab/loop/test_loop.py",)
LOOP = ("tests/lab/loop/test_golden_loop.py",)

LIES = [
    Lie(
        "the loop is scored on its monitor",
        "lab/loop/day.py",
        "truth = (self._monitor if monitor else self.stream).evaluation(domain)",
        "truth = self._monitor.evaluation(domain)",
        "results are measured on the frames that decisions see",
        LOOP,
    ),
    Lie(
        "no replay",
        "lab/loop/answers.py",
        "most = self.world.config.edge.replay_frames",
        "most = 0",
        "earlier frames are never trained on again",
        LOOP,
    ),
    Lie(
        "the teacher starts anew each round",
        "lab/loop/answers.py",
        "                if past\n",
        "                if past and round_index > 99\n",
        "the edge forgets what it learned",
        LOOP,
    ),
    Lie(
        "the loop's start is the teacher",
        "lab/loop/answers.py",
        "        if answer is None:\n            return self.world.student",
        "        if answer is None:\n            return self.world.teacher",
        "the device is said to run the large model",
        LOOP,
    ),
    Lie(
        "policies are told the results",
        "lab/loop/policies.py",
        '            r["monitor_before"],\n            r["monitor_after"],',
        '            r["map_before"],\n            r["map_after"],',
        "decisions see the frames that results are measured on",
        PARTS,
    ),
]
