"""``python -m endedge.edge.keys``: kept for scripts; see :mod:`endedge.edge.server.keys`."""

import sys

from endedge.edge.server.keys import create_keys, issue_bundle, load_keys, main

__all__ = ["create_keys", "issue_bundle", "load_keys", "main"]

if __name__ == "__main__":
    sys.exit(main())
