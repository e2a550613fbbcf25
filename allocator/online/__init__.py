"""Deciding period after period, while the world changes: what is believed, and what it is worth."""
