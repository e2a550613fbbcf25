"""Pages from templates. Whatever a template is given is escaped, unless it is HTML of another.

No page needs a network: scripts stand in the page, named by their hashes in a content security
policy that lets nothing else run and nothing be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

__all__ = ["asset", "hash_of", "json_for_script", "part", "render"]


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("endedge.lab.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, **slots: Any) -> str:
    """The page of a template."""
    return _environment().get_template(template).render(slots)


def part(macro: str, *values: Any) -> Markup:
    """HTML of a macro in ``parts.html``."""
    module = _environment().get_template("parts.html").module
    return Markup(getattr(module, macro)(*values))


def asset(name: str) -> Markup:
    """A script or a style of ours, as it stands in a page."""
    folder = importlib.resources.files("endedge.lab.report") / "assets"
    return Markup((folder / name).read_text(encoding="utf-8"))


def hash_of(script: str) -> str:
    """How a content security policy names a script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def json_for_script(content: Any) -> Markup:
    """JSON that no text in it can end the script element with."""
    written = json.dumps(content, allow_nan=False, separators=(",", ":"))
    for sign in "&<>":
        written = written.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(written)
