"""From a measured surface to curves with intervals."""
