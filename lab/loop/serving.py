"""`endedge serve`: the server, and what its processes for jobs do."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from endedge.edge.server.main import serve_main
from endedge.edge.server.service import Limits, ServeConfig
from endedge.edge.server.workers import Job, JobLimits, JobProcess
from endedge.lab.config import Config

__all__ = ["AdaptationWork", "serve"]


def serve(config: Config, service: ServeConfig) -> None:
    """Run the edge until it is stopped. Labels come from the pool's annotations, by image id.

    Adaptations run in processes of their own, within ``serve.job_memory`` and ``serve.job_s``.
    """
    asked = config.serve.model_dump()
    asked["upload_bytes_per_s"] = asked["upload_bytes_per_s"] or math.inf
    job = JobLimits(asked.pop("job_memory"), asked.pop("job_s"))
    service = replace(service, limits=replace(Limits(), **asked))
    work = AdaptationWork(config, service.folder)
    serve_main(service, [JobProcess(work, job) for _ in range(service.workers)])


@dataclass(frozen=True)
class AdaptationWork:
    """What a process for jobs loads once: ``()`` gives the function that answers them.

    PyTorch is imported there and not here: the server itself needs 140 MB, not 780.
    """

    config: Config
    folder: Path

    def __call__(self) -> Callable[[Job], bytes]:
        from endedge.lab.loop.adaptation import adaptation

        return adaptation(self.config, self.folder)
