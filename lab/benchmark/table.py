"""A measured surface as a table: everything that scoring a policy needs, and nothing that trains.

A table is a results folder, or one of those shipped with the package (``tables/NAME/v1``): the
surface, the link that it is judged on, curves that never saw a seed to decide about that seed,
and, where they were measured, bootstrap replicates over the evaluation frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from endedge.allocator import Curves, Points, Rules, Surface, fit
from endedge.data.errors import BadInput
from endedge.lab.benchmark.benchmark import captured, executable, rules_of, sendable
from endedge.lab.config import LinkConfig, load_config
from endedge.lab.sweep.replicates import Replicates

__all__ = ["SHIPPED_TABLES", "VERSION", "Table", "shipped_tables"]

VERSION = "v1"
SHIPPED_TABLES = Path(__file__).parent / "tables"
_KEPT_REPLICATES = 60  # bootstrap curves of a shipped table
_COARSE = 1.15  # packages further apart than this are rounded down a long way


def shipped_tables() -> tuple[str, ...]:
    """Names of the tables that come with the package."""
    return tuple(sorted(p.parent.name for p in SHIPPED_TABLES.glob(f"*/{VERSION}")))


@dataclass(frozen=True)
class Table:
    """``curves`` by the seed that they never saw (by −1 where there is one seed only: they saw it);
    ``link`` without a bandwidth; ``fewest_frames`` of which an update can come; ``about``: licence,
    provenance and what else there is to say."""

    name: str
    surface: Surface
    link: LinkConfig
    fewest_frames: int
    curves: Mapping[int, Curves]
    replicates: Replicates | None
    about: Mapping[str, Any]

    @classmethod
    def load(cls, where: str | Path, changes: Sequence[str] = ()) -> Table:
        """A shipped table by name, or a results folder; ``changes``: ``link.period_s=30``.

        Raises :class:`BadInput` for neither, and for a change that is not one of the link.
        """
        folder = Path(where)
        if not folder.is_dir():
            folder = SHIPPED_TABLES / str(where) / VERSION
            if len(Path(where).parts) != 1 or not folder.is_dir():
                raise BadInput(
                    f"no table {str(where)!r}: give a results folder, or one of "
                    f"{', '.join(shipped_tables())}"
                )
        surface = Surface.read(folder / "surface.csv")
        if (folder / "table.yaml").is_file():
            name, link, fewest, about = _described(folder / "table.yaml", changes)
        else:
            config = load_config(folder / "config.yaml", [*changes])
            name, link, about = config.name, config.link, {}
            fewest = config.fewest_frames
        draws = folder / "replicates.npz"
        replicates = Replicates.read(draws) if draws.is_file() else None
        return cls(
            name,
            surface,
            link,
            fewest,
            _curves(folder, surface, replicates),
            replicates,
            about,
        )

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(sorted({int(s) for s in self.surface.seed}))

    @property
    def cells(self) -> Surface:
        """The cells that the link's device can execute and that can end in an update."""
        return sendable(captured(self.surface, self.link), self.fewest_frames)

    @property
    def rules(self) -> Rules:
        return executable(rules_of(self.link, self.surface), Points.of(self.cells))

    def curves_for(self, seed: int) -> Curves:
        """Those that did not see ``seed``."""
        return self.curves[seed if seed in self.curves else -1]

    def whole(self) -> Curves:
        """Curves that saw all seeds: to plan by, not to be judged by."""
        if -1 in self.curves:
            return self.curves[-1]
        path = SHIPPED_TABLES / self.name / VERSION / _name(-1)
        if path.is_file():
            held = Curves.load(path)
            if held.provenance.get("surface_sha256") == self.surface.sha256():
                return held
        drawn = None if self.replicates is None else self.replicates.of(self.surface)
        return fit(self.surface, replicates=_KEPT_REPLICATES, drawn=drawn)

    def lacks(self) -> list[str]:
        """What the table cannot say, in sentences."""
        points, said = Points.of(self.cells), []
        uploads = len(set(zip(points.frames, points.codec, strict=True)))
        whole = uploads * len(set(points.budget_bytes)) * len(self.seeds)
        if len(self.cells) < whole:
            said.append(
                f"ragged: {whole - len(self.cells)} of {whole} cells were not measured; splits "
                "there are executed as the next smaller measured round"
            )
        budgets = sorted(set(points.budget_bytes))
        gap = max((b / a for a, b in pairwise(budgets)), default=1.0)
        if gap > _COARSE + 1e-9:
            said.append(
                f"coarse: package sizes are up to {gap - 1:.0%} apart (15 % would do), so much of "
                "what a split asks for is rounded away"
            )
        if len(self.seeds) < 2:
            said.append("one seed: no error over seeds, and curves that saw what they decide about")
        if self.replicates is None:
            said.append("no replicates: the errors leave the choice of evaluation frames out")
        elif self.replicates.optimistic:
            said.append(
                f"{self.replicates.groups} groups of evaluation frames: the errors are optimistic"
            )
        return said

    def write(self, folder: Path) -> Path:
        """As package data: ``folder/NAME/v1``. Returns that folder."""
        target = folder / self.name / VERSION
        target.mkdir(parents=True, exist_ok=True)
        self.surface.write(target / "surface.csv")
        link = self.link.model_dump(mode="json", exclude_defaults=True)
        text = {
            "format": f"endedge-table-{VERSION}",
            "name": self.name,
            **self.about,
            "fewest_frames": self.fewest_frames,
            "link": link,
        }
        (target / "table.yaml").write_text(yaml.safe_dump(text, sort_keys=False))
        for seed, curves in {-1: self.whole(), **self.curves}.items():
            kept = replace(
                curves,
                candidates=tuple(c for c in curves.candidates if c.kind == curves.joint.kind),
                replicates=curves.replicates[:: max(1, len(curves.replicates) // _KEPT_REPLICATES)],
            )
            kept.save(target / _name(seed))
        if self.replicates is not None:
            self.replicates.write(target / "replicates.npz")
        return target


def _described(path: Path, changes: Sequence[str]) -> tuple[str, LinkConfig, int, dict[str, Any]]:
    held = yaml.safe_load(path.read_text(encoding="utf-8"))
    if held.pop("format", None) != f"endedge-table-{VERSION}":
        raise BadInput(f"{path} is not a table of version {VERSION}")
    link = held.pop("link")
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or not key.startswith("link."):
            raise BadInput(
                f"{change!r}: of a table only the link can change, e.g. link.period_s=30"
            )
        link[key.removeprefix("link.")] = yaml.safe_load(value)
    try:
        made = LinkConfig.model_validate(link)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise BadInput(f"link.{wrong['loc'][0]}: {wrong['msg']}") from None
    return held.pop("name"), made, int(held.pop("fewest_frames")), held


def _name(seed: int) -> str:
    return "curves-all.json" if seed < 0 else f"curves-without-{seed}.json"


def _curves(folder: Path, surface: Surface, replicates: Replicates | None) -> dict[int, Curves]:
    """Fitted once and kept beside the surface; fitted again where that has changed."""
    seeds = sorted({int(s) for s in surface.seed})
    curves = {}
    for seed in seeds if len(seeds) > 1 else [-1]:
        path, cells = folder / _name(seed), surface.select(surface.seed != seed)
        if path.is_file():
            held = Curves.load(path)
            if held.provenance.get("surface_sha256") == cells.sha256():
                curves[seed] = held
                continue
        drawn = None if replicates is None else replicates.of(cells)
        curves[seed] = fit(cells, replicates=_KEPT_REPLICATES, drawn=drawn)
        if folder.is_dir() and not folder.is_relative_to(SHIPPED_TABLES):
            curves[seed].save(path)
    return curves
