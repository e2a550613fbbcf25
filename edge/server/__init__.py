"""The edge's side of the socket: sessions, journal, keys, jobs, what the operator sees."""
