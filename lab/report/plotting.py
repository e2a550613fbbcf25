"""``endedge plot``: figures and tables of a paper as files, by matplotlib.

Vector formats keep text as text (TrueType fonts in PDF and EPS, text elements in SVG, the paper's
own font in PGF). The same results give the same bytes. One column of a two-column paper is 3.5 in
wide; sizes of text are those that print at that width.
"""

from __future__ import annotations

import io
import logging
import math
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from endedge.data.errors import BadInput
from endedge.data.storage import write_atomic
from endedge.lab.report.style import LIGHT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FORMATS", "Look", "drawn", "kind_of", "save", "styled"]

FORMATS = ("pdf", "svg", "png", "eps", "pgf")
_INCHES = {"in": 1.0, "cm": 1 / 2.54, "mm": 1 / 25.4, "pt": 1 / 72.27}
_WIDTHS = {"column": 3.5, "page": 7.16}
_ENGINES = ("xelatex", "lualatex", "pdflatex")
_BASE_PT = 8.0

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.serif": ["DejaVu Serif"],
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.color": LIGHT,
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "endedge",
    "savefig.dpi": 300,
    "figure.constrained_layout.use": True,
    "pgf.rcfonts": False,  # the document's own fonts
}


@dataclass(frozen=True)
class Look:
    """How wide and in which letters; None: as the figure has it.

    ``width``: ``column`` (3.5 in), ``page`` (7.16 in), or a length (``84mm``, ``3.3in``);
    ``font``: ``serif``, ``sans`` or an installed family; ``size_pt`` of labels (default 8).
    Raises :class:`BadInput` for what is none of these.
    """

    width: str | None = None
    font: str = "sans"
    size_pt: float = _BASE_PT

    def __post_init__(self) -> None:
        _ = self.inches
        if not 4 <= self.size_pt <= 30:
            raise BadInput(f"text of {self.size_pt:g} pt; give 4 to 30")

    @property
    def inches(self) -> float | None:
        if self.width is None or self.width in _WIDTHS:
            return None if self.width is None else _WIDTHS[self.width]
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(in|cm|mm|pt)", self.width)
        inches = float(found[1]) * _INCHES[found[2]] if found else math.nan
        if not 1 <= inches <= 40:
            raise BadInput(f"width {self.width!r}; give column, page, or 1 to 40 in, e.g. 84mm")
        return inches

    @property
    def parameters(self) -> dict[Any, Any]:
        """For matplotlib."""
        size = self.size_pt
        sizes = {
            "font.size": size,
            "axes.titlesize": size,
            "axes.labelsize": size,
            "xtick.labelsize": size * 7 / 8,
            "ytick.labelsize": size * 7 / 8,
            "legend.fontsize": size * 6.5 / 8,
        }
        family = {"sans": "sans-serif", "serif": "serif"}.get(self.font)
        return _STYLE | sizes | {"font.family": family or _installed(self.font)}


def _installed(font: str) -> str:
    from matplotlib import font_manager

    try:
        font_manager.findfont(font, fallback_to_default=False)
    except ValueError:
        names = sorted({entry.name for entry in font_manager.fontManager.ttflist})
        raise BadInput(
            f"no font {font!r} on this machine; there are serif, sans, {', '.join(names[:12])}…"
        ) from None
    return font


@contextmanager
def styled(look: Look | None = None) -> Iterator[None]:
    """matplotlib in the style of all our figures."""
    import matplotlib

    with matplotlib.rc_context((look or Look()).parameters):
        yield


def drawn(make: Callable[[], Figure], kind: str, look: Look | None = None) -> bytes:
    """The figure that ``make`` draws, in the style of all our figures, as a file of a ``kind`` in
    :data:`FORMATS`: the same figure gives the same bytes.

    Raises :class:`BadInput` for PGF where there is no LaTeX to measure its text.
    """
    engine = _engine() if kind == "pgf" else ""
    with styled(look):
        stamp = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind, {})
        file, figure = io.BytesIO(), make()
        inches = (look or Look()).inches
        if inches is not None:
            figure.set_size_inches(inches, figure.get_size_inches()[1])
        if kind == "eps":
            _opaque(figure)
        more: dict[str, Any] = {"metadata": stamp}
        if engine:
            import matplotlib

            matplotlib.rcParams["pgf.texsystem"] = engine
            more = {"backend": "pgf"}
            for artist in figure.findobj():
                artist.set_rasterized(False)  # text for LaTeX holds no pictures
        with _quiet():
            figure.savefig(file, format=kind, **more)
    if kind == "eps":
        return re.sub(rb"%%CreationDate: [^\n]*\n", b"", file.getvalue())
    return file.getvalue()


def _engine() -> str:
    for name in _ENGINES:
        if shutil.which(name):
            return name
    raise BadInput(
        f"a .pgf needs LaTeX on this machine to measure its text ({', '.join(_ENGINES)}); a .pdf "
        "or .eps needs none"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """EPS says of each figure that fonts are embedded as they are."""
    log = logging.getLogger("matplotlib.backends.backend_ps")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _opaque(figure: Figure) -> None:
    """PostScript knows no transparency: mix colours with the white behind them."""
    from matplotlib.collections import Collection
    from matplotlib.colors import to_rgba_array

    for artist in figure.findobj():
        alpha = artist.get_alpha()
        if not isinstance(alpha, float) or alpha >= 1:
            continue
        if isinstance(artist, Collection):
            rgb = to_rgba_array(artist.get_facecolor())[:, :3]
            artist.set_alpha(None)
            artist.set_facecolor(alpha * rgb + 1 - alpha)  # type: ignore[arg-type]
        else:
            artist.set_alpha(None)


def save(out: Path, data: bytes | str) -> Path:
    """Write a file whole; returns its path."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, data if isinstance(data, bytes) else data.encode())
    return out


def kind_of(out: Path, kinds: Sequence[str]) -> str:
    """The format that a file's name says. Raises :class:`BadInput` for none of ``kinds``."""
    kind = out.suffix.lower().lstrip(".")
    if kind not in kinds:
        names = ", ".join(f".{k}" for k in kinds[:-1])
        raise BadInput(f"cannot draw into {out.name!r}; name a {names} or .{kinds[-1]} file")
    return kind
