"""A grid of small pictures with names at its top and left: what most of the papers' figures are.

Lengths are in inches.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from explainer.report.figures.sheet import BAR, GAP, LINE, TALLEST, Sheet, scale_width, styled, text_width
from explainer.report.gallery import Floats, Picture, overlay, shortened, to_tile, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST = 1.1
"""Side of a tile: larger ones show no more."""
SMALLEST = 0.3
LABEL = 1.15
"""Width after which the name of a row goes on in the next line."""
UPRIGHT = 1.4
"""Longest name above a column."""
SCALE = "saliency, each map scaled to [0, 1]"
MASK_SCALE = "mask value"


@dataclass(frozen=True)
class Cell:
    """A tile.

    Args:
        picture: that it shows; None for a cross.
        notes: lines below it.
    """

    picture: Picture | None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Grid:
    """Tiles in rows and columns.

    Args:
        rows: of cells; None is an empty place.
        columns: names above.
        labels: names of the rows, on the left.
        scale: what the colours mean.
        gaps: rows before which there is some space.
    """

    rows: Sequence[Sequence[Cell | None]]
    columns: Sequence[str]
    labels: Sequence[str] = ()
    scale: str = SCALE
    gaps: Sequence[int] = field(default_factory=tuple)

    @property
    def below(self) -> float:
        """Height of what is written below the tiles, with a gap that parts it from the next ones."""
        lines = max(len(cell.notes) for row in self.rows for cell in row if cell is not None)
        return lines * LINE + GAP if lines else 0.0

    @property
    def left(self) -> float:
        """Width of the rows' names."""
        lines = [line for label in self.labels for line in wrapped(label, LABEL, text_width)]
        return max(map(text_width, lines)) + 2 * GAP if lines else GAP

    def side(self, width: float, above: float) -> float:
        """Of a tile, so that the grid fits a width and a page."""
        across = (width - self.left) / len(self.columns) - GAP
        spare = TALLEST - above - BAR - len(self.gaps) * LINE
        return min(LARGEST, across, spare / len(self.rows) - GAP - self.below)


def map_cell(values: Floats | None, photograph: Floats, notes: Sequence[str] = ()) -> Cell:
    """A map over its photograph; a cross where there is none."""
    return Cell(None if values is None else overlay(values, photograph), notes)


def photograph_cell(photograph: Floats, notes: Sequence[str] = ()) -> Cell:
    """A photograph."""
    return Cell(to_tile(photograph), notes)


def draw_grid(grid: Grid, width: float) -> "Figure":
    """The grid, no wider than asked for, and no higher than a page.

    Raises:
        ValueError: If that leaves too little for each tile.
    """
    with styled():
        headers = _headers(grid.columns, grid.side(width, above=LINE))
        side = grid.side(width, headers.height)
        if side < SMALLEST:
            raise ValueError(
                f"{len(grid.rows)} rows of {len(grid.columns)} tiles don't fit a page {width} inches wide; "
                "choose fewer methods or images, or a larger width."
            )
        step = side + GAP + grid.below
        bottom = headers.height + len(grid.rows) * step + len(grid.gaps) * LINE
        least = scale_width(grid.scale) + 2 * GAP  # which may be wider than a few tiles
        sheet = Sheet(max(grid.left + len(grid.columns) * (side + GAP), least), bottom + BAR)
        for across, text in enumerate(headers.texts):
            middle = grid.left + across * (side + GAP) + side / 2
            way = {"rotation": 90, "va": "bottom"} if headers.upright else {}
            sheet.write(middle, headers.height - GAP, text, ha="center", **way)
        for down, row in enumerate(grid.rows):
            top = headers.height + down * step + sum(down >= gap for gap in grid.gaps) * LINE
            if grid.labels:
                _write_label(sheet, grid.labels[down], grid.left, top + side / 2)
            for across, cell in enumerate(row):
                if cell is not None:
                    draw_cell(sheet, cell, grid.left + across * (side + GAP), top, side)
        sheet.scale(GAP, bottom + 0.06, grid.scale)
        return sheet.figure


@dataclass(frozen=True)
class _Headers:
    """What is written above the columns.

    Args:
        texts: of one or more lines.
        height: of all.
        upright: whether they are to be read from below.
    """

    texts: list[str]
    height: float
    upright: bool = False


def _headers(columns: Sequence[str], side: float) -> _Headers:
    """On lines as wide as a tile, or upright if a word is too wide for that."""
    lines = [wrapped(name, side, text_width) for name in columns]
    if all(text_width(line) <= side + GAP for of_one in lines for line in of_one):
        return _Headers(["\n".join(of_one) for of_one in lines], LINE * max(map(len, lines)) + GAP)
    texts = [shortened(name, UPRIGHT, text_width) for name in columns]
    return _Headers(texts, max(map(text_width, texts)) + 2 * GAP, upright=True)


def _write_label(sheet: Sheet, label: str, left: float, middle: float) -> None:
    text = "\n".join(wrapped(label, LABEL, text_width))
    sheet.write(left - GAP, middle, text, ha="right", va="center", multialignment="right")


def draw_cell(sheet: Sheet, cell: Cell, left: float, top: float, side: float) -> None:
    """A tile with its notes."""
    sheet.tile(left, top, side, cell.picture)
    for number, note in enumerate(cell.notes):
        text = shortened(note, side, text_width)
        sheet.write(left + side / 2, top + side + (number + 1) * LINE - 0.01, text, ha="center")
