"""The sheet that a figure is drawn on: its size in print, its fonts, where things stand, how it is written.

Lengths are in inches, counted from the top left, text in points, at the size in which the figure stands in a paper: it
is to be included without scaling. matplotlib is imported where it is used.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explainer.files import whole
from explainer.report.columns import plain
from explainer.report.gallery import Picture, colour_ramp

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN = 3.3
"""Width of a column of a paper with two of them."""
PAGE = 6.9
"""Width of both."""
TALLEST = 9.0
"""Height of a page."""
POINTS = 8
LINE = 0.135
"""Height of a line of text of that size."""
GAP = 0.04
BAR = 0.36
"""Height of a scale of colours with what is written at it."""
RAMP = 1.0
"""Width of its colours."""
DPI = 300
FORMATS = ("pdf", "png")

STYLE = {
    "font.size": POINTS,
    "axes.titlesize": POINTS + 1,
    "axes.labelsize": POINTS,
    "xtick.labelsize": POINTS,
    "ytick.labelsize": POINTS,
    "legend.fontsize": POINTS,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.pad": 2,
    "ytick.major.pad": 2,
    "text.hinting": "none",  # else letters are as wide as pixels allow: at 100 dpi names outgrow their places
    "pdf.fonttype": 42,  # whole fonts, which publishers ask for, rather than matplotlib's outlines (type 3)
    "ps.fonttype": 42,
}


@dataclass(frozen=True)
class Choice:
    """What is drawn, and how wide.

    Args:
        width: of the figure; it may be narrower where its tiles would be too large.
        methods: shown, in this order, as the tables name them; all if empty.
        images: shown: their names, or how many, the first ones then; all if empty.
        beside: folders of further evaluations, for figures that compare several.
    """

    width: float = PAGE
    methods: Sequence[str] = ()
    images: Sequence[str] | int = ()
    beside: Sequence[Path] = ()

    def of_methods(self, known: Iterable[str]) -> list[str]:
        """The methods to show, of those there are.

        Raises:
            ValueError: If one is not there.
        """
        return _chosen(self.methods, list(known), "method")

    def of_images(self, known: Iterable[str]) -> list[str]:
        """The images to show, of those there are.

        Raises:
            ValueError: If one is not there.
        """
        everything = list(known)
        if isinstance(self.images, int):
            return everything[: self.images]
        return _chosen(self.images, everything, "image")


def _chosen(wanted: Sequence[str], known: list[str], what: str) -> list[str]:
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ValueError(f"There is no {what} '{unknown[0]}' in the results; choose some of: {', '.join(known)}.")
    return list(wanted) or known


def styled() -> "AbstractContextManager[None]":
    """Within it figures get the fonts and lines of print."""
    from matplotlib import rc_context

    return rc_context(STYLE)  # type: ignore[arg-type]  # it wants every key to be a literal


def new_figure(width: float, height: float, **keywords: Any) -> "Figure":
    """An empty figure; call it within `styled`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), **keywords)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: "Figure", stem: Path, formats: Iterable[str] = FORMATS, dpi: int = DPI) -> list[Path]:
    """Write `stem`.pdf and `stem`.png, or other formats; each is written whole or not at all.

    Args:
        figure: drawn.
        stem: path without suffix; its folder is made.
        formats: suffixes that matplotlib knows.
        dpi: pixels an inch, also of the photographs within a PDF.
    """
    files = [stem.with_name(f"{stem.name}.{suffix}") for suffix in formats]
    for file in files:
        # Without a date, so that the same results give the same file.
        metadata = {"CreationDate": None} if file.suffix == ".pdf" else {}
        with styled(), whole(file) as temporary:
            figure.savefig(temporary, dpi=dpi, metadata=metadata)
    return files


class Sheet:
    """A figure on which things are placed by hand, so that tiles are square and stand in line.

    Args:
        width: of the figure.
        height: of the figure.
    """

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = new_figure(width, height)

    def panel(self, left: float, top: float, width: float, height: float) -> "Axes":
        """Axes without the space of their labels."""
        place = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(place)

    def tile(self, left: float, top: float, side: float, picture: Picture | None) -> "Axes":
        """A picture in a thin frame; a cross where there is none."""
        axes = self.panel(left, top, side, side)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set(linewidth=0.4, color="dimgrey")
        if picture is None:
            axes.plot([0.3, 0.7], [0.3, 0.7], [0.3, 0.7], [0.7, 0.3], color="dimgrey", linewidth=1.2)
            axes.set(xlim=(0, 1), ylim=(0, 1))
        else:
            axes.imshow(picture, aspect="auto")
        return axes

    def write(self, left: float, top: float, text: str, **keywords: Any) -> None:
        """Text that begins here, unless `ha` says otherwise, and stands (its last line) on this height."""
        place = {"ha": "left", "va": "baseline", "linespacing": 1.1, **keywords}
        self.figure.text(left / self.width, 1 - top / self.height, plain(text), **place)

    def scale(self, left: float, top: float, label: str) -> None:
        """The colours of the maps, from 0 to 1."""
        self.write(left, top + 0.05, label, va="center")
        axes = self.panel(left + text_width(label) + 3 * GAP, top, RAMP, 0.1)
        axes.imshow(colour_ramp(256), aspect="auto", extent=(0, 1, 0, 1))
        axes.set_yticks([])
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])


def scale_width(label: str) -> float:
    """Of a scale of colours with its label and the last number."""
    return text_width(label) + RAMP + 5 * GAP


@cache
def text_width(text: str, points: float = POINTS) -> float:
    """Of a line of text."""
    from matplotlib.textpath import TextPath

    with styled():
        return float(TextPath((0, 0), plain(text), size=points).get_extents().width) / 72 if text.strip() else 0.0
