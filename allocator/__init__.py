"""Curves, solver and policies: NumPy and SciPy only."""

from endedge.allocator.accuracy.joint import Joint, Kind
from endedge.allocator.fitting.curves import Curves, TriedKind
from endedge.allocator.fitting.fit import fit
from endedge.allocator.fitting.grid import checkerboard
from endedge.allocator.fitting.surface import Points, Surface
from endedge.allocator.online.adaptive import adaptive
from endedge.allocator.policies import Known, Observed, Policy, decide, register, registry
from endedge.allocator.problem import Budget, Link, OperatingPoint, Range, Rules, Split
from endedge.allocator.published import ams_rate, bandit, exhaustive
from endedge.allocator.solve.economics import Ledger, Prices, ledger, worthwhile
from endedge.allocator.solve.fleet import FleetAllocation, FleetDevice, allocate_fleet
from endedge.allocator.solve.knapsack import MenuAllocation, allocate_menus
from endedge.allocator.solve.optimum import Allocation, allocate, best_point
from endedge.allocator.solve.regimes import Span, regime_spans, regime_table
from endedge.allocator.solve.search import best_split

__all__ = [
    "Allocation",
    "Budget",
    "Curves",
    "FleetAllocation",
    "FleetDevice",
    "Joint",
    "Kind",
    "Known",
    "Ledger",
    "Link",
    "MenuAllocation",
    "Observed",
    "OperatingPoint",
    "Points",
    "Policy",
    "Prices",
    "Range",
    "Rules",
    "Span",
    "Split",
    "Surface",
    "TriedKind",
    "adaptive",
    "allocate",
    "allocate_fleet",
    "allocate_menus",
    "ams_rate",
    "bandit",
    "best_point",
    "best_split",
    "checkerboard",
    "decide",
    "exhaustive",
    "fit",
    "ledger",
    "regime_spans",
    "regime_table",
    "register",
    "registry",
    "worthwhile",
]
