"""``endedge VERB CONFIG|DIR [key=value …]``: the command line.

Bad input is one line on stderr and exit status 2; work of which a part failed says which
(status 1); an interrupted job says how to go on (status 130); anything else unexpected is a
bug and keeps its traceback. A disk or a port that fails is one line and status 2, too.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence

from endedge.data.errors import BadInput, Unfinished
from endedge.data.storage import at_home
from endedge.lab.cli import (
    benchmarking,
    exporting,
    frames,
    importing,
    installation,
    package,
    plotting,
    predicting,
    processes,
    replaying,
    sweeping,
    timing,
    watching,
)
from endedge.lab.cli.arguments import Parser, verbs_of
from endedge.link.messages import printable

__all__ = ["build_parser", "main"]

# In the order of --help. Each declares its verbs' arguments beside what they do; heavy imports
# (torch, Ultralytics) live inside the latter, so that --help answers at once.
_VERBS = (
    importing,
    sweeping,
    watching,
    benchmarking,
    replaying,
    plotting,
    package,
    exporting,
    predicting,
    timing,
    processes,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    for stream in (sys.stdout, sys.stderr):  # a terminal of ASCII gets ? and no traceback
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    # argparse cannot take key=value after an option; here they may stand anywhere, and a word
    # that is none is for the verb to refuse: it knows what would be right.
    words = getattr(arguments, vars(arguments).pop("words", "overrides"), None)
    if words is None or any(a.startswith("-") for a in rest):
        if rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
    else:
        words += rest
    for name, value in vars(arguments).items():
        if isinstance(value, str):
            setattr(arguments, name, at_home(value))
        elif isinstance(value, list):
            setattr(arguments, name, [at_home(v) if isinstance(v, str) else v for v in value])
    try:
        arguments.do(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()  # a full disk behind it shows here
    except BadInput as error:
        print(
            f"endedge {arguments.verb}: {printable(' '.join(str(error).split()))}", file=sys.stderr
        )
        return 2
    except Unfinished as error:
        print(f"endedge {arguments.verb}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        out = getattr(arguments, "out", None)
        print(
            f"\nendedge {arguments.verb}: interrupted; what was measured is kept"
            + (f" in {out}, the same command goes on from there" if out else ""),
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        sys.stderr.close()
        return 141
    except OSError as error:  # a disk that is full or read-only, a port that is taken
        where = f"{error.filename}: " if error.filename is not None else ""
        says = " ".join(str(error.strerror or error).split())
        print(f"endedge {arguments.verb}: {where}{says}", file=sys.stderr)
        return 2
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs; what to do with its arguments is their ``do``."""
    parser = Parser(prog="endedge", description="An end-edge testbed over one thin link.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    verb = verbs_of(verbs)
    for module in _VERBS:
        module.declare(verb)
    installation.declare(verb, parser)
    data = verbs.add_parser(
        "data",
        help="make, cut or download frames and weights",
        epilog="example:\n  endedge data generate --out frames",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    jobs = data.add_subparsers(dest="job", required=True, metavar="JOB", parser_class=Parser)
    frames.declare(verbs_of(jobs))
    return parser
