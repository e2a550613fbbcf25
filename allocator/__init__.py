"""Curves, solver and policies: NumPy and SciPy only."""

from endedge.allocator.curves import Candidate, Curves, Range
from endedge.allocator.fitting import fit
from endedge.allocator.joint import Joint, Kind
from endedge.allocator.link import Budget, Link, Rules, Split
from endedge.allocator.policies import Known, Policy, decide, register, registry
from endedge.allocator.solver import Allocation, allocate
from endedge.allocator.surface import OperatingPoint, Points, Surface

__all__ = [
    "Allocation",
    "Budget",
    "Candidate",
    "Curves",
    "Joint",
    "Kind",
    "Known",
    "Link",
    "OperatingPoint",
    "Points",
    "Policy",
    "Range",
    "Rules",
    "Split",
    "Surface",
    "allocate",
    "decide",
    "fit",
    "register",
    "registry",
]
