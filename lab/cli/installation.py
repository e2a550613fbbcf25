"""``endedge doctor`` and ``completion``: is all there, and a shell that knows the verbs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from endedge.data.errors import BadInput
from endedge.lab.cli.arguments import Verb, add_json

__all__ = ["declare"]


def declare(verb: Verb, parser: argparse.ArgumentParser) -> None:
    """The verbs' arguments."""
    sub = verb(
        "doctor", _doctor, "check the installation with a miniature round", "endedge doctor --json"
    )
    sub.add_argument("--out", default=".", metavar="DIR", help="folder whose disk is checked")
    sub.add_argument("--no-test", action="store_true", help="skip the end-to-end round")
    add_json(sub)

    def complete(a: argparse.Namespace) -> None:
        from endedge.lab.cli.completion import script

        print(script(parser, a.shell))

    sub = verb(
        "completion",
        complete,
        "print a script that completes verbs and options in a shell",
        'eval "$(endedge completion bash)"',
    )
    sub.add_argument(
        "shell", choices=("bash", "zsh", "fish"), metavar="SHELL", help="bash, zsh or fish"
    )


def _doctor(a: argparse.Namespace) -> None:
    from endedge.lab.cli.doctor import checks

    found = checks(Path(a.out), test=not a.no_test)
    if a.json:
        print(json.dumps({c.name: {"state": c.state, "says": c.says} for c in found}, indent=1))
    else:
        for check in found:
            print(f"{check.state:5} {check.name:10} {check.says}")
    if any(check.state == "bad" for check in found):
        raise BadInput("something is missing; see the lines marked bad")
