"""Lies about lab/benchmark/: executor, oracle, regret, headroom."""

from __future__ import annotations

from tests.lies.lie import Lie

__all__ = ["LIES"]

LIES = [
    Lie(
        "the final accuracy is judged",
        "lab/benchmark/benchmark.py",
        "average = stale + (reached - stale) * fresh",
        "average = reached",
        "the time with the stale model does not count",
        ("tests/lab/benchmark/test_benchmark.py", "tests/lab/benchmark/test_executor.py"),
    ),
    Lie(
        "nobody has regret",
        "lab/benchmark/benchmark.py",
        "best.get(seed, average) - average",
        "average - average",
        "every policy is as good as the oracle",
        ("tests/lab/benchmark/test_benchmark.py", "tests/lab/benchmark/test_executor.py"),
    ),
    Lie(
        "the oracle of other seeds knows its own",
        "lab/benchmark/benchmark.py",
        "rest = {s: among(surface.select(surface.seed != s)) for s in seeds if len(seeds) > 1}",
        "rest = {s: among(surface.select(surface.seed == s)) for s in seeds if len(seeds) > 1}",
        "a yardstick fixed in advance was fixed in hindsight",
        ("tests/lab/benchmark/test_benchmark.py", "tests/lab/benchmark/test_executor.py"),
    ),
    Lie(
        "any headroom is claimed",
        "lab/benchmark/headroom.py",
        "return self.mean > _TIE and self.mean > max(ENOUGH * self.error, self.half())",
        "return self.mean > _TIE",
        "a difference within its error is claimed",
        ("tests/lab/benchmark/test_headroom.py",),
    ),
    Lie(
        "frames have no error",
        "lab/benchmark/headroom.py",
        "known = [e for e in (self.seed_error, self.frame_error) if not math.isnan(e)]",
        "known = [e for e in (self.seed_error,) if not math.isnan(e)]",
        "error bars leave out the evaluation's own noise",
        ("tests/lab/benchmark/test_headroom.py",),
    ),
    Lie(
        "everything is the same",
        "lab/benchmark/headroom.py",
        "if low >= -SAME and high <= SAME:",
        "if low >= -SAME or high <= SAME:",
        "what was not told apart is said to be equivalent",
        ("tests/lab/benchmark/test_headroom.py",),
    ),
]
