"""A read-only page of what runs: a sweep by its folder, an edge server by its metrics."""
