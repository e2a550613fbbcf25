"""The command line: ``endedge VERB …``."""

from endedge.lab.cli.main import main

__all__ = ["main"]
