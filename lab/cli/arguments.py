"""What the verbs' arguments have in common: one line on bad input, and options that many share."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Iterable
from typing import Any

from endedge.lab.cli.numbers import SIDE

__all__ = [
    "Parser",
    "Verb",
    "add_base",
    "add_config",
    "add_device",
    "add_json",
    "add_model",
    "add_overrides",
    "add_policies",
    "add_side",
    "add_verbose",
    "meant",
    "verbs_of",
]

Verb = Callable[..., argparse.ArgumentParser]


class Parser(argparse.ArgumentParser):
    """One line on bad input, with the word that was probably meant."""

    def error(self, message: str) -> Any:
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._subparsers is None:  # of a verb: all options are known here
            for word in args or ():
                name = str(word).partition("=")[0]
                if name == "--":
                    break
                if name[:2] == "--" and not any(o.startswith(name) for o in self.options):
                    self.error(f"unknown option {name}{self._hint(name)}")
        return super().parse_known_args(args, namespace)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            what = action.metavar if isinstance(action.metavar, str) else action.dest
            hint = meant(str(value), known) or f"; there are {', '.join(known)}"
            raise argparse.ArgumentError(None, f"unknown {what.lower()} {value!r}{hint}")

    def _hint(self, name: str) -> str:
        """What was probably meant by an unknown option: another, or a key of the configuration."""
        if any(action.metavar == "key=value" for action in self._actions):
            from endedge.lab.config import all_keys

            if (key := name[2:].replace("-", "_")) in all_keys():
                return f"; {key} is a key of the configuration: write {key}=…"
        return meant(name, self.options)

    @property
    def options(self) -> list[str]:
        return list(self._option_string_actions)


def meant(word: str, known: Iterable[str]) -> str:
    """``; did you mean …?`` when one of ``known`` is close to ``word``, else nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def verbs_of(subparsers: Any) -> Verb:
    """Adds verbs: ``verb(name, do, says, example)``, where ``do`` is called with the arguments."""

    def verb(
        name: str, do: Callable[[argparse.Namespace], None], says: str, example: str
    ) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = subparsers.add_parser(
            name,
            help=says,
            description=says[0].upper() + says[1:] + ".",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(do=do)
        return sub

    return verb


CONFIG = "a YAML file, or the name of a shipped one (demo)"


def add_config(
    sub: argparse.ArgumentParser,
    what: str = CONFIG,
    out: str = "results folder; resumed if unfinished",
) -> None:
    sub.add_argument("config", help=what)
    add_overrides(sub)
    sub.add_argument("--out", required=True, metavar="DIR", help=out)


def add_overrides(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("overrides", nargs="*", metavar="key=value", help="override a key")


def add_policies(sub: argparse.ArgumentParser, what: str = "a file that registers them") -> None:
    sub.add_argument(
        "--policy",
        action="append",
        default=[],
        metavar="FILE.py",
        help=f"your own policies: {what} (it is executed)",
    )


def add_model(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("model", help=".pt, .safetensors, .eeu, or the folder of a device or a run")
    add_base(sub)


def add_base(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--base", help="the base model of a delta package")


def add_side(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--imgsz", type=SIDE, default=320, help="px, a multiple of 32 (default 320)")


def add_device(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, 0 (a GPU by its number) or mps"
    )


def add_json(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--json", action="store_true", help="print JSON")


def add_verbose(sub: argparse.ArgumentParser, what: str) -> None:
    sub.add_argument("-v", "--verbose", action="count", default=0, help=what)
