"""Formulas as MathML, made when the site is built: browsers draw it, nothing is fetched.

In the pages they are ``$…$`` (GitHub draws those, too); arithmatex finds them.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_FOUND = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(html_: str, /, **_: Any) -> str:
    """MkDocs calls this with the HTML of each page."""

    def drawn(found: re.Match[str]) -> str:
        display = "block" if found[1] == "div" else "inline"
        return str(convert(html.unescape(found[2]), display=display))

    return _FOUND.sub(drawn, html_)
