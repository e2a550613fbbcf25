"""Update packages: a detector in a byte budget, and back (docs/eeu.md)."""

from endedge.distill.package.format import PARAMETERS_PER_BYTE, inspect, unpack
from endedge.distill.package.packing import Packed, Prepared, Report, Watch, pack, prepare

__all__ = [
    "PARAMETERS_PER_BYTE",
    "Packed",
    "Prepared",
    "Report",
    "Watch",
    "inspect",
    "pack",
    "prepare",
    "unpack",
]
