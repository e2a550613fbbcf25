"""Lies about lab/loop/: rounds and the columns of rounds.csv."""

from __future__ import annotations

from tests.lies.lie import Lie

__all__ = ["LIES"]

LOOP = ("tests/lab/loop/test_golden_loop.py",)

LIES = [
    Lie(
        "a whole period is fresh",
        "lab/loop/policy_run.py",
        '"map": row["map_before"] * (1 - fresh) + after * fresh,',
        '"map": after,',
        "the time in which the old model serves is not counted",
        LOOP,
    ),
    Lie(
        "the loop is scored on its monitor",
        "lab/loop/day.py",
        "truth = (self._monitor if monitor else self.stream).evaluation(domain)",
        "truth = self._monitor.evaluation(domain)",
        "results are measured on the frames that decisions see",
        LOOP,
    ),
    Lie(
        "frames of the period that is judged",
        "lab/loop/loop.py",
        "sent = device.upload(k - 1, running,",
        "sent = device.upload(k, running,",
        "the edge learns from frames that did not exist yet",
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
        "a lost package arrives",
        "lab/loop/policy_run.py",
        'if row["lost"]:\n            return replace(standing, certain=False)',
        'if row["lost"]:\n            pass',
        "an update that was lost is applied",
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
        "the edge takes no time",
        "lab/loop/policy_run.py",
        "self._edge_free_s = max(arrived_s, self._edge_free_s) + self._edge_s",
        "self._edge_free_s = max(arrived_s, self._edge_free_s)",
        "the new model is applied before it could be made",
        LOOP,
    ),
    Lie(
        "the downlink is as the uplink",
        "lab/loop/policy_run.py",
        "return self.down.reserve(n_bytes, max(ready_s, self.up.busy_until_s))",
        "return self.up.reserve(n_bytes, max(ready_s, self.up.busy_until_s))",
        "packages travel at the uplink's efficiency",
        LOOP,
    ),
    Lie(
        "lost bytes cost nothing",
        "lab/loop/summary.py",
        'sum(r["update_bytes"] * r["sent"] for r in mine)',
        'sum(r["update_bytes"] * r["applied"] for r in mine)',
        "bytes of lost packages are left out of the sum",
        LOOP,
    ),
    Lie(
        "the last mAP is the mean",
        "lab/loop/summary.py",
        'r["map_after"]\n                            for r in mine',
        'r["map"]\n                            for r in mine',
        "the final accuracy is mixed with the period average",
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
]
