"""Curves, solver and policies: NumPy and SciPy only."""

from endedge.allocator.curves import Candidate, Curves, Range
from endedge.allocator.fitting import fit
from endedge.allocator.fleet import Device, FleetAllocation, allocate_fleet
from endedge.allocator.grid import checkerboard
from endedge.allocator.joint import Joint, Kind
from endedge.allocator.link import Budget, Link, Rules, Split
from endedge.allocator.menus import MenuAllocation, allocate_menus
from endedge.allocator.money import Ledger, Prices, ledger, worthwhile
from endedge.allocator.policies import Known, Policy, decide, register, registry
from endedge.allocator.regimes import Span, regime_spans, regime_table, sweep
from endedge.allocator.robust import allocate_robust
from endedge.allocator.solver import Allocation, allocate, best_point, best_split
from endedge.allocator.surface import OperatingPoint, Points, Surface

__all__ = [
    "Allocation",
    "Budget",
    "Candidate",
    "Curves",
    "Device",
    "FleetAllocation",
    "Joint",
    "Kind",
    "Known",
    "Ledger",
    "Link",
    "MenuAllocation",
    "OperatingPoint",
    "Points",
    "Policy",
    "Prices",
    "Range",
    "Rules",
    "Span",
    "Split",
    "Surface",
    "allocate",
    "allocate_fleet",
    "allocate_menus",
    "allocate_robust",
    "best_point",
    "best_split",
    "checkerboard",
    "decide",
    "fit",
    "ledger",
    "regime_spans",
    "regime_table",
    "register",
    "registry",
    "sweep",
    "worthwhile",
]
