"""Structured pruning: a smaller dense detector, compensated on unlabelled frames.

Channels that must live or die together (residual sums, the two halves of a C2f) are found by
passing channel names through the network; a *group* is one such set. Its importance is the
Fisher information of a gate that replaces its activations by their mean (Theis et al., 2018;
group Fisher pruning: Liu et al., 2021), per parameter it frees. Groups fall in rounds; after
each cut every convolution that lost inputs is re-solved: what the lost inputs contributed is
predicted from the kept ones by least squares (optimal brain surgeon, structured) and added
to their weights and to the batch norm's mean. A ``recover`` hook may then train a little.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from endedge.data.errors import BadInput
from endedge.distill.channels import Channels, trace
from endedge.distill.layers import Layer, layers, set_widths
from endedge.distill.model import DetectionModel, clone, count_parameters
from endedge.distill.package.sensitivity import Sensitivity, gate_scores, measure

__all__ = ["prune"]

Floats = NDArray[np.float64]
_FEWEST = 0.125  # of the channels a convolution has at first: never prune below
_RIDGE = 0.01


def prune(
    model: DetectionModel,
    kept: float,
    frames: Tensor,
    *,
    rounds: int = 4,
    recover: Callable[[DetectionModel], object] | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> DetectionModel:
    """A copy of ``model`` with at most the share ``kept`` (0..1) of its parameters.

    ``frames`` (N, 3, S, S) uint8, unlabelled; networks see them on ``device``. The cut is spread
    over ``rounds``, geometrically; after each, ``recover(model)`` may train in place. Raises
    :class:`BadInput` if so few parameters cannot be reached.

    Args:
        model: to be cut.
        kept: share of the parameters in (0, 1].
        frames: (N, 3, S, S) uint8, unlabelled: what a channel is worth is measured on them.
        rounds: in which the cut is made, >= 1.
        recover: trains the model in place after each round.
        seed: of what a cut draws at random.
        device: ``cpu`` or ``cuda``.
    """
    if not 0 < kept <= 1:
        raise BadInput(f"kept={kept} must be a share of the parameters in (0, 1]")
    small = clone(model).eval()
    full = count_parameters(model)
    fewest = {x.name: max(1, round(_FEWEST * x.conv.out_channels)) for x in layers(model)}
    for i in range(1, rounds + 1):
        goal = round(full * kept ** (i / rounds))
        if count_parameters(small) > goal:
            small = _cut(small, goal, frames, fewest, seed + i, device)
        if recover is not None:
            recover(small)
            small.eval()
    return small


def _cut(
    model: DetectionModel,
    goal: int,
    frames: Tensor,
    fewest: Mapping[str, int],
    seed: int,
    device: str,
) -> DetectionModel:
    measured = measure(model, frames, seed, device=device)
    gates = gate_scores(model, frames, seed, device)  # name -> (frames, C)
    channels = trace(model, {name: (g**2).mean(axis=0) for name, g in gates.items()})
    gone = _choose(model, channels, gates, goal, fewest)
    return _without(model, channels, gone, measured)


@dataclass
class _Size:
    """Present channel counts of a convolution while groups fall."""

    layer: Layer
    rows: int
    columns: int

    def parameters(self) -> int:
        conv = self.layer.conv
        taps = conv.kernel_size[0] * conv.kernel_size[1]
        inputs = 1 if conv.groups > 1 else self.columns
        extra = 2 if self.layer.bn is not None else int(conv.bias is not None)
        return self.rows * (inputs * taps + extra)


def _choose(
    model: DetectionModel,
    channels: Channels,
    gates: Mapping[str, Floats],
    goal: int,
    fewest: Mapping[str, int],
) -> set[int]:
    """Groups to remove: cheapest importance per parameter first, until ``goal`` is met."""
    sizes = {x.name: _Size(x, x.conv.out_channels, x.conv.in_channels) for x in layers(model)}
    members: dict[int, dict[str, int]] = {}  # group -> convolution -> rows it holds there
    users: dict[int, dict[str, int]] = {}
    score: dict[int, Floats] = {}
    for name, ids in channels.outputs.items():
        for row, group in enumerate(ids):
            members.setdefault(group, {}).setdefault(name, 0)
            members[group][name] += 1
            if name in gates:
                score[group] = score.get(group, np.zeros(1)) + gates[name][:, row]
    for name, ids in channels.inputs.items():
        for group in ids:
            users.setdefault(group, {}).setdefault(name, 0)
            users[group][name] += 1
    price: dict[int, float] = {}
    for group in members:
        if group not in channels.pinned and group in score:
            freed = 0
            for name, n in members[group].items():
                freed += n * sizes[name].parameters() // max(1, sizes[name].rows)
            for name, n in users.get(group, {}).items():
                freed += n * sizes[name].parameters() // max(1, sizes[name].columns)
            price[group] = float((score[group] ** 2).mean()) / max(1, freed)
    total = count_parameters(model)
    present = sum(s.parameters() for s in sizes.values())
    fixed = total - present
    gone: set[int] = set()
    for group in sorted(price, key=lambda g: (price[g], g)):
        if fixed + present <= goal:
            return gone
        if any(sizes[name].rows - n < fewest[name] for name, n in members[group].items()):
            continue
        touched = set(members[group]) | set(users.get(group, {}))
        present -= sum(sizes[name].parameters() for name in touched)
        for name, n in members[group].items():
            sizes[name].rows -= n
        for name, n in users.get(group, {}).items():
            sizes[name].columns -= n
        present += sum(sizes[name].parameters() for name in touched)
        gone.add(group)
    if fixed + present > goal:
        raise BadInput(
            f"cannot prune to {goal} parameters in this round; {fixed + present} is the least"
        )
    return gone


def _without(
    model: DetectionModel, channels: Channels, gone: set[int], measured: Mapping[str, Sensitivity]
) -> DetectionModel:
    """``model`` without the channels of ``gone``, its remaining weights making up for them."""
    state = {k: v.clone() for k, v in model.state_dict().items()}
    wanted = {}
    for layer in layers(model):
        name, conv = layer.name, layer.conv
        rows = np.flatnonzero([g not in gone for g in channels.outputs[name]])
        columns = np.flatnonzero([g not in gone for g in channels.inputs[name]])
        wanted[name] = (len(rows), len(columns))
        weight = conv.weight.detach().double().numpy().reshape(*conv.weight.shape[:2], -1)
        shift = np.zeros(conv.out_channels)
        if conv.groups == 1 and len(columns) < conv.in_channels:
            weight, shift = _compensate(weight, columns, measured[name])
        new = weight[rows].reshape(len(rows), weight.shape[1], *conv.kernel_size)
        state[f"{name}.weight"] = torch.from_numpy(new).float()
        if conv.bias is not None:
            state[f"{name}.bias"] = conv.bias.detach()[rows] + torch.from_numpy(shift[rows]).float()
        if layer.bn is not None:
            for key in ("weight", "bias", "running_mean", "running_var"):
                state[f"{layer.bn_name}.{key}"] = state[f"{layer.bn_name}.{key}"][rows]
            state[f"{layer.bn_name}.running_mean"] -= torch.from_numpy(shift[rows]).float()
    small = set_widths(clone(model), wanted)
    small.load_state_dict(state)
    return small.eval()


def _compensate(
    weight: Floats, columns: NDArray[np.intp], sensitivity: Sensitivity
) -> tuple[Floats, Floats]:
    """Weights (C, kept, T) and the mean output change (C,) after inputs are lost."""
    n_out, n_in, taps = weight.shape
    keep = (columns[:, None] * taps + np.arange(taps)).reshape(-1)
    lost = np.setdiff1d(np.arange(n_in * taps), keep)
    flat = weight.reshape(n_out, -1)
    mean = sensitivity.mean
    kept_weight = flat[:, keep]
    if sensitivity.moment is not None:
        moment = sensitivity.moment
        ridge = _RIDGE * np.trace(moment) / len(moment)
        inner = moment[np.ix_(keep, keep)] + ridge * np.eye(len(keep))
        kept_weight = (
            kept_weight + np.linalg.solve(inner, moment[np.ix_(keep, lost)] @ flat[:, lost].T).T
        )
    shift = flat @ mean - kept_weight @ mean[keep]
    return kept_weight.reshape(n_out, len(columns), taps), shift
