"""One policy in the closed loop: its devices, its edge, its clock, and what a round notes down."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from endedge.configs import file_of
from endedge.data.errors import BadInput
from endedge.distill.model import DetectionModel, model_hash
from endedge.edge.places import recognise
from endedge.end.selection import BY_FEATURES
from endedge.lab.config import Config, loop_of, named
from endedge.lab.inputs import Inputs
from endedge.lab.loop.answers import Answers, keeping
from endedge.lab.loop.day import Day
from endedge.lab.loop.policies import Air, MeasuredPrior, check_policy, source_of, watches
from endedge.lab.store import Node, Store
from endedge.link.channel import Bottleneck, Capacity, Channel

__all__ = ["Clock", "DeviceState", "PolicyRun", "Row", "air_of", "levels_of"]

VERSION = 1  # of what a round computes; raise it when that changes
DECIDING = 2  # of what is told to policies that watch
SEEING = 2  # of the features that some selection rules look at

Row = dict[str, Any]


@dataclass(frozen=True)
class DeviceState:
    """Where a device stands between two rounds: the answer that it ``holds`` (its node's key;
    None: the model it came with), the last one that it ``acknowledged``, whether the edge is
    ``certain`` that these are the same, the answers so far, oldest first, and those whose models
    the device has ``kept``; what its uploads ``heard`` under the remembered models (nodes, too),
    and uploads ``waiting`` in the pipeline, the next one first (an empty key: nothing was sent)."""

    holds: str | None = None
    acknowledged: str | None = None
    certain: bool = True
    past: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    heard: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()

    @classmethod
    def read(cls, noted: Mapping[str, Any]) -> DeviceState:
        """From the record of a round."""
        return cls(
            noted["holds"],
            noted["acknowledged"],
            noted["certain"],
            tuple(noted["past"]),
            tuple(noted.get("kept", ())),
            tuple(noted.get("heard", ())),
            tuple(noted.get("waiting", ())),
        )

    def with_answer(self, key: str, memory_rounds: int) -> DeviceState:
        """The edge remembers one answer more, and the last ``memory_rounds``."""
        return replace(self, past=(*self.past, key)[-memory_rounds:])

    @property
    def keys(self) -> set[str]:
        """Keys of the answers that somebody still needs."""
        some = (*self.past, *self.kept, *self.waiting, self.holds, self.acknowledged)
        return {key for key in some if key}


class Clock:
    """The band and the edge that all devices of a round share, in virtual seconds. What is
    ``broadcast`` and the same for several is on the air once. ``level``: the bandwidth of the
    period, over that of the configuration."""

    def __init__(
        self, config: Config, start_s: float, broadcast: bool = False, level: float = 1.0
    ) -> None:
        self._heard_s: dict[bytes, float] | None = {} if broadcast else None
        loop, link = loop_of(config), config.link
        hz = loop.bandwidth_hz * level
        self.up, self.down = (
            Bottleneck(Channel(Capacity.constant(hz * rate), loop.latency_s))
            for rate in (link.up_bit_per_s_per_hz, link.down_bit_per_s_per_hz)
        )
        self._edge_s, self._edge_free_s = loop.edge_s, start_s

    def answered_s(self, arrived_s: float) -> float:
        """When the answer to an upload is ready: the edge makes one at a time."""
        self._edge_free_s = max(arrived_s, self._edge_free_s) + self._edge_s
        return self._edge_free_s

    def arrives_s(self, package: bytes, ready_s: float) -> float:
        """When these bytes have arrived."""
        if self._heard_s is None:
            return self.delivered_s(len(package), ready_s)
        if package not in self._heard_s:
            self._heard_s[package] = self.delivered_s(len(package), ready_s)
        return self._heard_s[package]

    def delivered_s(self, n_bytes: int, ready_s: float) -> float:
        """When a package has arrived: after all uploads, for there is one band."""
        return self.down.reserve(n_bytes, max(ready_s, self.up.busy_until_s))


def levels_of(trace: str | None, period_s: float) -> tuple[float, ...]:
    """The bandwidth of each whole period of a Mahimahi trace over its mean; 1 without a trace."""
    if trace is None:
        return (1.0,)
    return Capacity.mahimahi(file_of(trace)).levels(period_s, str(trace))


def air_of(devices: Sequence[Day]) -> Air:
    """What ``devices``, all that there are, share in a period."""
    sizes = [d.frame_bytes for d in devices]
    mean = sum(m for m, _ in sizes) / len(sizes)
    return Air.of(devices[0].inputs.config, (mean, max(largest for _, largest in sizes)))


class PolicyRun:
    """``name``: a policy, perhaps ``…+redacted``. Raises :class:`BadInput` for one there is not."""

    def __init__(
        self, inputs: Inputs, store: Store, name: str, seed: int, prior: MeasuredPrior | None
    ) -> None:
        check_policy(name)
        self.inputs, self.store, self.name, self.seed = inputs, store, name, seed
        self.policy, _, privacy = name.partition("+")
        self.redacted = privacy == "redacted"
        self.watches = watches(self.policy)
        self.prior = prior if self.watches else None
        self.loop = loop_of(inputs.config)
        self.devices = [Day(inputs, i, seed) for i in range(len(self.loop.days))]
        self.edge = Answers(inputs, store, seed)
        self.air = air_of(self.devices)
        self.levels = levels_of(self.loop.trace, inputs.config.link.period_s)

    def level(self, k: int) -> float:
        """The bandwidth of round ``k`` over the mean; a trace that ends begins again."""
        return self.levels[(k - 1) % len(self.levels)]

    def away(self, device: int, k: int) -> bool:
        """Whether a device is switched off in round ``k``."""
        return any(a.device == device and a.first <= k <= a.last for a in self.loop.away)

    def place(self, heard: Sequence[str]) -> int:
        """Where a device is, by what its uploads ``heard`` so far, the last one last."""
        nodes = self.answers(heard)
        return recognise([node.record["losses"] for node in nodes])[-1]

    @cached_property
    def determinants(self) -> dict[str, Any]:
        """All that every round of this policy depends on."""
        around = {"name", "workers", "seeds", "device", "precision", "cuda_graphs"}
        settings = {k: v for k, v in named(self.inputs.config).items() if k not in around}
        settings["loop"] = {
            k: v for k, v in settings["loop"].items() if k not in ("policies", "prior")
        }
        settings["loop"]["half_life_rounds"] = 4.0  # a key that was: older rounds keep their names
        code = source_of(self.policy)
        return {
            **({"code": code} if code else {}),
            **({"deciding": DECIDING} if self.watches else {}),
            **({"seeing": SEEING} if self.loop.select in BY_FEATURES else {}),
            **({"broadcast": 1} if self.policy.startswith("federated") else {}),
            "version": VERSION,
            "policy": self.name,
            "seed": self.seed,
            "config": settings,
            **self.inputs.arithmetic,
            "weights": self.inputs.hashes,
            **({} if not self.inputs.others else {"starts": self.inputs.start_hashes}),
            "device": self.inputs.kind,
            "prior": self.prior.surface.sha256() if self.prior else None,
        }

    def answer(self, key: str | None) -> Node | None:
        """The answer behind a key. Raises :class:`BadInput` if its files are gone."""
        if key is None:
            return None
        if (node := self.store.open(key)) is None:
            raise BadInput(f"{self.store.folder}/nodes/{key} is damaged; use a fresh --out")
        return node

    def model(self, key: str | None) -> DetectionModel:
        """What a device that holds the answer of ``key`` runs."""
        return self.edge.student_of(self.answer(key))

    def answers(self, keys: Sequence[str]) -> list[Node]:
        return [node for key in keys if (node := self.answer(key)) is not None]

    def upload(self, key: str) -> bytes:
        """What a device sent in an earlier round."""
        node = self.answer(key)
        assert node is not None
        return (node.folder / "upload.batch").read_bytes()

    # What a round notes down -----------------------------------------------------------------

    def opened(self, device: Day, k: int, running: DetectionModel) -> Row:
        """The row of a device before anything happened in round ``k``. Names that end in ``_s``
        are virtual seconds, in ``_seconds`` measured ones."""
        period, last, digest = device.periods[k], device.periods[k - 1], model_hash(running)
        stale = device.score(running, period.domain)
        monitored = device.score(running, period.domain, monitor=True) if self.watches else ""
        return {
            "policy": self.name,
            "seed": self.seed,
            "device": device.number,
            "round": k,
            "time_s": period.start_s,
            "domain": period.domain.name,
            "returned": int(period.returning and period.segment != last.segment),
            "frames": 0,
            "upload_bytes": 0,
            "budget_bytes": 0,
            "update_bytes": 0,
            "mode": "",
            "sent": 0,
            "lost": 0,
            "refused": 0,
            "applied": 0,
            "upload_s": 0.0,
            "applied_s": "",
            "model_before": digest,
            "model_after": digest,
            "edge_model": "",
            "map_before": stale,
            "map_after": stale,
            "map": stale,
            "monitor_before": monitored,
            "monitor_after": monitored,
            "identifiable": 0,
            "exposed": 0,
            "edge_seconds": 0.0,
            "device_seconds": 0.0,
            "curve": "",
            "reason": "",
            "bandwidth_hz": self.loop.bandwidth_hz * self.level(k),
            "place": "",
        }

    def delivered(
        self,
        device: Day,
        k: int,
        row: Row,
        state: DeviceState,
        answer: Node,
        clock: Clock,
        ready_s: float,
    ) -> DeviceState:
        """Send a package down and let the device decode it on top of what it really holds. One
        that it cannot use is refused and its model stays; it says so, so that the edge knows
        again what it holds. After one that is lost nobody says anything."""
        package = (answer.folder / "update.eeu").read_bytes()
        arrived_s = clock.arrives_s(package, ready_s)
        row |= {
            "update_bytes": len(package),
            "mode": answer.record["mode"],
            "sent": 1,
            "edge_model": answer.record["model"],
            "lost": int(k in self.loop.lost),
        }
        if row["lost"]:
            return replace(state, certain=False)
        began = time.perf_counter()
        try:
            decoded = device.end.apply(
                package, self.model(state.holds), lambda needed: self._kept(state, needed)
            )
        except BadInput as error:
            row |= {"refused": 1, "reason": str(error)}
            return replace(state, acknowledged=state.holds, certain=True, kept=())
        period, period_s = device.periods[k], self.inputs.config.link.period_s
        after = device.score(decoded, period.domain)
        fresh = min(max(0.0, 1 - (arrived_s - period.start_s) / period_s), 1.0)
        row |= {
            "applied": 1,
            "applied_s": arrived_s - period.start_s,
            "model_after": model_hash(decoded),
            "map_after": after,
            "map": row["map_before"] * (1 - fresh) + after * fresh,
            "device_seconds": row["device_seconds"] + time.perf_counter() - began,
        }
        if row["model_after"] != row["edge_model"]:
            raise AssertionError(f"device {row['model_after']}, edge {row['edge_model']}")
        if self.watches:
            row["monitor_after"] = device.score(decoded, period.domain, monitor=True)
        room = self.inputs.config.end.models_bytes
        kept: tuple[str, ...] = ()
        if room:
            before = self.answers(state.kept), self.answer(state.holds)
            kept = tuple(node.key for node in keeping(*before, answer, room))
        return replace(state, holds=answer.key, acknowledged=answer.key, certain=True, kept=kept)

    def _kept(self, state: DeviceState, needed: str) -> DetectionModel | None:
        """The model of that hash, if the device has it beside the one it runs."""
        nodes = [None, *self.answers(state.kept)] if self.inputs.config.end.models_bytes else []
        models = (self.edge.student_of(node) for node in nodes)
        return next((model for model in models if model_hash(model)[:32] == needed), None)
