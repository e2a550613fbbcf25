"""Frames and what is known of them: formats, subsets, shifts, codec, stream; errors and units."""
