"""Random and mutated input for a bounded time: nothing but BadInput may come out.

    python -m benchmarks.fuzz coco|batch|picture|package|pt|safetensors --inputs 100000

``coco``, ``batch``, ``picture``: what devices upload and sets hold (fuzz_data.py). ``package``:
updates; ``pt``, ``safetensors``: checkpoints (fuzz_models.py). Prints what happened, the slowest
input and the peak memory. Any other outcome, a file or process that a mutant asked for, an input
of over ten seconds of processor time, or one more gigabyte of memory ends the run with its seed.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import fuzz_data, fuzz_models
from endedge.data.errors import BadInput

READERS: dict[str, Callable[[Path], Callable[[np.random.Generator], str]]] = {
    **fuzz_data.READERS,
    **fuzz_models.READERS,
}
_LONGEST_S, _MORE_BYTES = 10.0, 10**9
_WATCHED = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.connect")


def main() -> None:
    """Run one reader for the given number of inputs or time and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("--inputs", type=int, default=10**5)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    outcomes: Counter[str] = Counter()
    asked: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _WATCHED:
            asked.append(f"{event} {arguments!r:.100}")

    with tempfile.TemporaryDirectory() as name:
        attempt = READERS[args.reader](Path(name))
        sys.addaudithook(watch)
        attempt_s, slowest = 0.0, (0.0, 0)
        end, seed = time.monotonic() + args.seconds, args.seed
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        while time.monotonic() < end and outcomes.total() < args.inputs:
            seed += 1
            start = time.process_time()
            try:
                outcomes[attempt(np.random.default_rng(seed))] += 1
            except BadInput as error:
                if "\n" in str(error):
                    raise SystemExit(f"seed {seed}: more than one line: {error}") from None
                outcomes["refused"] += 1
            except Exception as error:
                raise SystemExit(f"seed {seed}: {type(error).__name__}: {error}") from error
            took = time.process_time() - start
            attempt_s, slowest = attempt_s + took, max(slowest, (took, seed))
            grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
            if took > _LONGEST_S or grown > _MORE_BYTES or asked:
                raise SystemExit(f"seed {seed}: {took:.1f} s, {grown / 1e6:.0f} MB more, {asked}")
    print(f"{args.reader}: {outcomes.total():,} inputs in {attempt_s:.0f} s of CPU, 0 crashes")
    print(", ".join(f"{n:,} {what}" for what, n in outcomes.most_common()))
    print(f"slowest {slowest[0]:.2f} s (seed {slowest[1]}); {grown / 1e6:.0f} MB more memory")


if __name__ == "__main__":
    main()
