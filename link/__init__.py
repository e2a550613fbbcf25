"""The thin link: channel on a virtual clock, shaper, messages, connection."""
