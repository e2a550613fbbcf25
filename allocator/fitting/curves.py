"""Fitted accuracy curves with their uncertainty, and their file ``curves.json``."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from endedge.allocator import display as show
from endedge.allocator.accuracy.joint import Joint, Kind, joint_value
from endedge.allocator.accuracy.monotone import Monotone
from endedge.allocator.accuracy.width import Width
from endedge.allocator.fitting.surface import Surface
from endedge.allocator.problem import Link, OperatingPoint, Range, Rules
from endedge.allocator.solve.optimum import Allocation, allocate
from endedge.data.errors import BadInput

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["Curves", "TriedKind"]

Floats = NDArray[np.float64]

FORMAT = "endedge-curves-1"
_MAX_FILE_BYTES = 16 * 2**20
_MAX_ITEMS = 100_000
_NOT_CURVES = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True)
class TriedKind:
    """One kind of surface that was tried: held-out and in-sample error in mAP, and AICc."""

    kind: Kind
    held_out: float
    rmse: float
    aicc: float
    joint: Joint


@dataclass(frozen=True, repr=False)
class Curves:
    """What is known of F(U, M): the chosen surface, the rivals, and how sure we are.

    ``candidates`` are sorted by held-out error, best first; ``replicates`` are bootstrap
    surfaces, of every kind that the held-out error cannot tell from the best.
    ``upload_range`` and ``update_range`` are the measured bytes: outside, a prediction
    extrapolates. ``uploads`` and ``updates`` are the measured envelopes, cheapest first.
    ``note`` states a degenerate answer (all accuracies equal), else it is empty. ``width``: how
    wide intervals are, calibrated on sizes left out; ``falls`` says where more frames end lower,
    which no curve that rises can.
    """

    m0: float
    joint: Joint
    candidates: tuple[TriedKind, ...]
    replicates: tuple[Joint, ...]
    upload_range: Range
    update_range: Range
    reference: Monotone
    reference_held_out: float
    uploads: tuple[OperatingPoint, ...]
    updates: tuple[OperatingPoint, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    width: Width = field(default_factory=Width)
    falls: str = ""

    def predict(self, upload_bytes: Floats | float, update_bytes: Floats | float) -> Floats:
        """mAP in [0, 1] after an update of ``update_bytes`` made from ``upload_bytes``."""
        u, m = np.asarray(upload_bytes, float), np.asarray(update_bytes, float)
        return np.asarray(np.clip(self.joint.value(u, m), 0.0, 1.0))

    @property
    def chosen(self) -> TriedKind:
        """The candidate that ``joint`` is of."""
        return next(c for c in self.candidates if c.kind == self.joint.kind)

    @cached_property
    def _groups(self) -> list[tuple[Kind, float, Floats]]:
        """Replicates of one kind together: (kind, m0, theta (r, 7))."""
        groups: dict[tuple[Kind, float], list[Floats]] = {}
        for joint in self.replicates:
            groups.setdefault((joint.kind, joint.m0), []).append(joint.theta)
        return [(kind, m0, np.array(rows)) for (kind, m0), rows in groups.items()]

    def draws(self, upload_bytes: Floats | float, update_bytes: Floats | float) -> Floats:
        """Bootstrap predictions (replicates, n) at n pairs of bytes, clipped to [0, 1]."""
        u, m = np.broadcast_arrays(
            np.atleast_1d(np.asarray(upload_bytes, float)), np.asarray(update_bytes, float)
        )
        parts = [joint_value(kind, theta, m0, u, m) for kind, m0, theta in self._groups]
        return np.clip(np.concatenate(parts), 0.0, 1.0)

    def interval(
        self, upload_bytes: Floats | float, update_bytes: Floats | float, level: float = 0.9
    ) -> tuple[Floats, Floats]:
        """Interval of the expected mAP at ``level`` (0 < level < 1): (low, high), of the bootstrap
        and of what levels left out were off beyond it."""
        if not 0 < level < 1:
            raise BadInput(f"interval level {level} must lie between 0 and 1")
        if not self.replicates:
            nothing = np.full(np.broadcast(upload_bytes, update_bytes).shape or (1,), math.nan)
            return nothing, nothing
        drawn = self.draws(upload_bytes, update_bytes)
        room = self.reference.room(np.atleast_1d(np.asarray(upload_bytes, float)), update_bytes)
        return self.width.interval(drawn, room, level)

    def extrapolates(self, upload_bytes: Floats | float, update_bytes: Floats | float) -> Any:
        """True where a query lies outside the measured bytes (by more than 1e-9 of them)."""
        u, m = np.asarray(upload_bytes, float), np.asarray(update_bytes, float)
        slack = 1e-9
        return (
            (u < self.upload_range.low * (1 - slack))
            | (u > self.upload_range.high * (1 + slack))
            | (m < self.update_range.low * (1 - slack))
            | (m > self.update_range.high * (1 + slack))
        )

    @property
    def forgets(self) -> bool:
        """Whether the smallest measured upload is predicted to end below ``m0``."""
        return bool(self.predict(self.upload_range.low, self.update_range.high) < self.m0)

    def allocate(
        self,
        bandwidth_hz: float,
        period_s: float,
        up_bit_per_s_per_hz: float = 2.55,
        down_bit_per_s_per_hz: float = 5.0,
        rules: Rules | None = None,
    ) -> Allocation:
        """The best split of a link: :func:`endedge.allocator.allocate` with these curves.

        Args:
            bandwidth_hz: of both directions together, >= 0.
            period_s: between two updates, > 0.
            up_bit_per_s_per_hz: spectral efficiency of the uplink, > 0.
            down_bit_per_s_per_hz: of the downlink, > 0.
            rules: schedule, times, limits (None: pipelined, within the bytes that were measured).

        Raises:
            BadInput: for a value outside its range.
        """
        link = Link(bandwidth_hz, period_s, up_bit_per_s_per_hz, down_bit_per_s_per_hz)
        return allocate(self, link, rules or Rules())

    def frame(self) -> DataFrame:
        """What was tried as a pandas table, by held-out error; errors in mAP."""
        return show.data_frame(
            [
                {**asdict(c.kind), "held_out": c.held_out, "rmse": c.rmse, "aicc": c.aicc}
                for c in self.candidates
            ]
        )

    def plot(self, cells: Surface | None = None) -> Figure:
        """A(U) and g(M) with intervals, families compared, and the measured ``cells`` if they
        are given (a matplotlib figure)."""
        figure, panels = show.figure(11.0, 4.0, 2)
        show.curve_axes(panels[0], self, "data", cells)
        show.curve_axes(panels[1], self, "model", cells)
        return figure

    def _summary(self) -> dict[str, object]:
        return {
            "chosen": f"{self.joint.kind}",
            "held-out error": f"{100 * self.chosen.held_out:.2f} points of mAP (monotone "
            f"fit: {100 * self.reference_held_out:.2f})",
            "before any update": f"{100 * self.m0:.1f} % mAP",
            "uploads": f"{self.upload_range.low:,.0f} to {self.upload_range.high:,.0f} B",
            "updates": f"{self.update_range.low:,.0f} to {self.update_range.high:,.0f} B",
            "replicates": len(self.replicates),
        } | {name: said for name in ("note", "falls") if (said := getattr(self, name))}

    def __repr__(self) -> str:
        return show.one_line("Curves", self._summary())

    def _repr_html_(self) -> str:
        return show.html_table("Curves", self._summary())

    def to_json(self) -> str:
        """The text of ``curves.json`` (docs/curves.md describes every key)."""
        document = {
            "format": FORMAT,
            "m0": self.m0,
            "note": self.note,
            "falls": self.falls,
            "width": asdict(self.width),
            "chosen": _joint_out(self.joint),
            "upload_bytes": asdict(self.upload_range),
            "update_bytes": asdict(self.update_range),
            "uploads": [asdict(point) for point in self.uploads],
            "updates": [asdict(point) for point in self.updates],
            "candidates": [
                {"held_out": c.held_out, "rmse": c.rmse, "aicc": c.aicc, **_joint_out(c.joint)}
                for c in self.candidates
            ],
            "reference": {
                "held_out": self.reference_held_out,
                "upload_bytes": self.reference.upload_bytes.tolist(),
                "update_bytes": self.reference.update_bytes.tolist(),
                "map": self.reference.map.tolist(),
            },
            "replicates": [_joint_out(joint) for joint in self.replicates],
            "provenance": dict(self.provenance),
        }
        return _one_item_a_line(_no_nan(document))

    def save(self, path: str | Path) -> None:
        """Write ``curves.json``, atomically."""
        path = Path(path)
        partial = path.with_name(f".{path.name}.partial")
        try:
            partial.write_text(self.to_json(), encoding="utf-8")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)  # of a full disk

    @classmethod
    def load(cls, path: str | Path) -> Curves:
        """Read ``curves.json``. Raises :class:`BadInput` for a missing, oversized, corrupt or
        inconsistent file; it holds numbers only, so reading it runs nothing."""
        path = Path(path)
        if not path.is_file():
            raise BadInput(f"curves not found: {path}; run 'endedge fit' first")
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise BadInput(f"{path} is larger than {_MAX_FILE_BYTES} bytes; not curves")
        try:
            document = json.loads(path.read_bytes(), parse_constant=_refuse)
            return _curves_in(document)
        except BadInput as error:
            raise BadInput(f"{path}: {error}") from None
        except _NOT_CURVES as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise BadInput(f"{path} is not a curves file: {reason.splitlines()[0]}") from None


def _refuse(name: str) -> float:
    raise BadInput(f"{name} is not a number that a curve can have")


def _joint_out(joint: Joint) -> dict[str, Any]:
    kind = joint.kind
    return {
        "composition": kind.composition,
        "data_family": kind.data,
        "model_family": kind.model,
        **({"m0": joint.m0} if joint.kind.composition == "share" else {}),
        "parameters": joint.parameters(),
    }


def _joint_in(item: dict[str, Any], m0: float) -> Joint:
    kind = Kind(item["composition"], item["data_family"], item["model_family"])
    return Joint.from_parameters(kind, _number(item.get("m0", m0), "m0"), item["parameters"])


def _no_nan(item: Any) -> Any:
    """NaN (not measured) becomes null: JSON has no NaN."""
    if isinstance(item, dict):
        return {key: _no_nan(value) for key, value in item.items()}
    if isinstance(item, list | tuple):
        return [_no_nan(value) for value in item]
    return None if isinstance(item, float) and not math.isfinite(item) else item


def _one_item_a_line(document: dict[str, Any]) -> str:
    """JSON with one line an entry of each list, so that a diff shows what changed."""
    lines = []
    for key, value in document.items():
        if isinstance(value, list) and value:
            rows = ",\n".join(f"    {json.dumps(item)}" for item in value)
            lines.append(f"  {json.dumps(key)}: [\n{rows}\n  ]")
        else:
            lines.append(f"  {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _number(value: Any, name: str, *, low: float = 0.0, high: float = math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput(f"{name} = {value!r} is not a number")
    if not (math.isfinite(value) and low <= value <= high):
        raise BadInput(f"{name} = {value!r} must lie in [{low:g}, {high:g}]")
    return float(value)


def _maybe(value: Any, name: str) -> float:
    return math.nan if value is None else _number(value, name, low=-math.inf)


def _items(document: dict[str, Any], key: str) -> list[Any]:
    items = document[key]
    if not isinstance(items, list) or len(items) > _MAX_ITEMS:
        raise BadInput(f"{key} must be a list of at most {_MAX_ITEMS} items")
    return items


def _range_in(item: dict[str, Any], name: str) -> Range:
    return Range(_number(item["low"], f"{name}.low"), _number(item["high"], f"{name}.high"))


def _point_in(item: dict[str, Any]) -> OperatingPoint:
    frames = _number(item["frames"], "frames", high=2**53)
    return OperatingPoint(
        frames=int(frames),
        codec=str(item["codec"]),
        upload_bytes=_number(item["upload_bytes"], "upload_bytes"),
        budget_bytes=_number(item["budget_bytes"], "budget_bytes"),
        update_bytes=_number(item["update_bytes"], "update_bytes"),
        bits=_maybe(item["bits"], "bits"),
        prune=_maybe(item["prune"], "prune"),
        mode=str(item["mode"]),
    )


def _width_in(item: dict[str, Any]) -> Width:
    if not isinstance(item, dict) or item.keys() - asdict(Width()).keys():
        raise BadInput("width must hold upload, update and scale")
    return Width(**{name: _number(v, f"width.{name}", high=100.0) for name, v in item.items()})


def _levels_in(values: Any, name: str) -> Floats:
    levels = np.array([_number(v, name) for v in values])
    if len(levels) == 0 or (np.diff(levels) <= 0).any():
        raise BadInput(f"{name} must be a rising list of bytes")
    return levels


def _curves_in(document: Any) -> Curves:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise BadInput(f"not a curves file (its 'format' is not {FORMAT!r})")
    m0 = _number(document["m0"], "m0", high=1.0)
    reference = document["reference"]
    ups = _levels_in(reference["upload_bytes"], "reference.upload_bytes")
    downs = _levels_in(reference["update_bytes"], "reference.update_bytes")
    table = [[_number(v, "reference.map", high=1.0) for v in row] for row in reference["map"]]
    if [len(row) for row in table] != [len(downs)] * len(ups):
        raise BadInput(f"reference.map must be {len(ups)} rows of {len(downs)} numbers")
    candidates = []
    for item in _items(document, "candidates"):
        joint = _joint_in(item, m0)
        held_out, rmse, aicc = (_maybe(item[name], name) for name in ("held_out", "rmse", "aicc"))
        candidates.append(TriedKind(joint.kind, held_out, rmse, aicc, joint))
    joint = _joint_in(document["chosen"], m0)
    if not any(c.kind == joint.kind for c in candidates):
        raise BadInput("candidates must hold the one that is chosen")
    provenance = document.get("provenance", {})
    if not isinstance(provenance, dict):
        raise BadInput("provenance must be an object")
    return Curves(
        m0=m0,
        joint=joint,
        candidates=tuple(candidates),
        replicates=tuple(_joint_in(item, m0) for item in _items(document, "replicates")),
        upload_range=_range_in(document["upload_bytes"], "upload_bytes"),
        update_range=_range_in(document["update_bytes"], "update_bytes"),
        reference=Monotone(ups, downs, np.array(table)),
        reference_held_out=_maybe(reference["held_out"], "reference.held_out"),
        uploads=tuple(_point_in(item) for item in _items(document, "uploads")),
        updates=tuple(_point_in(item) for item in _items(document, "updates")),
        provenance=provenance,
        note=str(document.get("note", "")),
        width=_width_in(document.get("width", {})),
        falls=str(document.get("falls", "")),
    )
