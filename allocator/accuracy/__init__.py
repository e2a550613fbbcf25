"""Accuracy as a function of bytes: shapes, their compositions, the monotone reference."""
