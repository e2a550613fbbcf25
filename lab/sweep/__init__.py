"""Cells of the surface: what a cell is, in which order and where they run."""
