"""Experiments: surface measurement, closed loop, benchmark, report, command line."""
