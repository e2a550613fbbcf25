"""The closed loop over a stream that changes."""
