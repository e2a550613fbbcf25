"""Policies against measured accuracy."""
