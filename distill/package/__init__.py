"""Update packages: a detector in a byte budget, and back (docs/eeu.md)."""

from endedge.distill.package.format import (
    PARAMETERS_PER_BYTE,
    Packed,
    Report,
    Watch,
    inspect,
    pack,
    unpack,
)

__all__ = ["PARAMETERS_PER_BYTE", "Packed", "Report", "Watch", "inspect", "pack", "unpack"]
