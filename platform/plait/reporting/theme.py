"""How reports look: names and colours of methods, number formats, and figures as SVG that follows light and dark."""

from __future__ import annotations

import io
import math
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1c2127", "#59636e", "#d9dee4", "#fdfdfe"
BLUE, GREEN, ORANGE, RED = "#0072b2", "#009e73", "#e69f00", "#d55e00"
PINK, SKY, VIOLET, GREY = "#c2679c", "#3fa3dc", "#6a4fa3", "#808890"

DARK = {
    INK: "#e6e9ed", MUTED: "#a3adb8", GRID: "#363d46", PAPER: "#161a1f",
    BLUE: "#4aa3e0", GREEN: "#2cc295", ORANGE: "#f0b429", RED: "#f07b34",
    PINK: "#de8dbb", SKY: "#85cdf5", VIOLET: "#ad96e6", GREY: "#9aa3ac",
}  # fmt: skip
"""Every colour a figure may use, with its counterpart on a dark page."""

METHODS: dict[str, tuple[str, str, str]] = {
    "offline": ("Offline best", GREY, "o"),
    "prior": ("Prior", SKY, "v"),
    "best_of_n": ("Best-of-N", PINK, "P"),
    "strl": ("STRL", RED, "X"),
    "drakes": ("DRAKES", ORANGE, "^"),
    "braid_boot": ("BRAID-Boot", BLUE, "s"),
    "braid_bonus": ("BRAID-Bonus", GREEN, "D"),
    "exhaustive": ("Exhaustive", VIOLET, "*"),
}
"""Method to its shown name, colour and marker; the same in every figure, in this order in every table."""

MANY_POINTS = 600
"""Above this a cloud of points is drawn as an embedded picture, to keep the file small."""

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "plait",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial", "sans-serif"],
    "font.size": 10.0,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
}
_drawing = threading.Lock()
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


@dataclass(frozen=True)
class Picture:
    """A drawn figure.

    Attributes:
        key: Its anchor, unique in the report.
        title: Its heading.
        caption: One plain sentence or two: what it shows and how to read it.
        alt: The same content for who cannot see it.
        svg: Inline SVG.
    """

    key: str
    title: str
    caption: str
    alt: str
    svg: Markup


@contextmanager
def drawing_style() -> Iterator[None]:
    """The report's matplotlib settings, for the thread that draws; figures are made and saved inside.

    Letters that the measuring font lacks are not warned about: the reader's browser sets the text.
    """
    import matplotlib

    with _drawing, matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure without any global state, width and height in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def grid_figure(count: int, columns: int, height: float, *, share: bool = True) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels in rows of at most `columns`, each row `height` inches.

    Args:
        count: Number of panels, at least 1.
        columns: Panels per row.
        height: Of a row, inches.
        share: All panels have the same vertical scale.
    """
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = new_figure({1: 5.6, 2: 8.4}.get(columns, 10.0), height * rows + 0.3)
    axes = list(figure.subplots(rows, columns, sharey=share, squeeze=False).ravel())
    for extra in axes[count:]:
        extra.remove()
    return figure, axes[:count]


def finish(figure: Figure, key: str, title: str, caption: str, alt: str) -> Picture:
    """The picture of a figure: same figure, same bytes; colours follow the page's CSS variables."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    text = buffer.getvalue()
    text = re.sub(r"<!--.*?-->|<defs>\s*<style.*?</style>\s*</defs>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"<[^>]*>", lambda tag: _page_tag(tag.group(0), key), text)
    label = escape(alt)
    text = text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    return Picture(key, title, caption, alt, Markup(text))  # noqa: S704 (matplotlib escaped its text, we the label)


def _page_tag(tag: str, key: str) -> str:
    """One SVG tag as it stands in the page: no namespaces, ids of its own, variables as colours, two decimals."""
    if tag.startswith("<svg"):
        width = re.search(r'width="([\d.]+)pt"', tag)
        tag = re.sub(r' (xmlns(:\w+)?|version|width|height)="[^"]*"', "", tag)
        return tag[:-1] + f' style="--natural: {float(width.group(1)) if width else 720.0:.0f}pt">'
    tag = tag.replace("xlink:href", "href").replace('href="#', f'href="#{key}-').replace("url(#", f"url(#{key}-")
    tag = re.sub(r'\bid="', f'id="{key}-', tag)
    if "data:image" in tag:
        return tag
    tag = re.sub(r"(\d\.\d\d)\d+", r"\1", tag)
    return re.sub(r"#[0-9a-f]{6}", lambda colour: css_colour(colour.group(0)), tag)


def css_colour(colour: str) -> str:
    """The CSS variable that stands for a colour of the palette; any other colour as it is."""
    return f"var(--c{colour[1:]})" if colour in DARK else colour


def css_palette() -> dict[str, tuple[str, str]]:
    """CSS variable to its light and dark value."""
    return {f"--c{light[1:]}": (light, dark) for light, dark in DARK.items()}


def method_name(method: str) -> str:
    """The shown name of a method."""
    return METHODS[method][0] if method in METHODS else method


def method_colour(method: str) -> str:
    """The colour of a method in every figure."""
    return METHODS[method][1] if method in METHODS else MUTED


def method_marker(method: str) -> str:
    """The marker of a method in every figure."""
    return METHODS[method][2] if method in METHODS else "o"


def decimals_for(spread: float) -> int:
    """Decimals that show two significant digits of `spread`, at most 6; 3 where the spread is 0 or unknown."""
    if not math.isfinite(spread) or spread <= 0:
        return 3
    return min(6, max(0, 1 - math.floor(math.log10(spread))))


def number(value: float | None, decimals: int) -> str:
    """A number as text, an en dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:,.{decimals}f}"
    return text.removeprefix("-") if float(text.replace(",", "")) == 0 else text


def percent(share: float | None) -> str:
    """A share (0 to 1) in per cent, an en dash where there is none."""
    if share is None or not math.isfinite(share):
        return "–"
    if 0 < share < 0.005:
        return "<1%"
    return ">99%" if 0.995 <= share < 1 else f"{share:.0%}"
