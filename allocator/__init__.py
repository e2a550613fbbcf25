"""Curves, solver and policies: NumPy and SciPy only."""
