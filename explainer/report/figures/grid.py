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


Note = str | tuple[str, str]
"""A line, or its beginning, which may be shortened, and its end, which stays whole."""


@dataclass(frozen=True)
class Cell:
    """A tile.

    Args:
        picture: that it shows; None for a cross.
        notes: lines below it.
    """

    picture: Picture | None
    notes: Sequence[Note] = ()


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
    def notes(self) -> list[Sequence[Note]]:
        """What is written below each tile."""
        return [cell.notes for row in self.rows for cell in row if cell is not None]

    @property
    def below(self) -> float:
        """Height of what is written below the tiles, with a gap that parts it from the next ones."""
        lines = max(map(len, self.notes))
        return lines * LINE + GAP if lines else 0.0

    @property
    def left(self) -> float:
        """Width of the rows' names."""
        return max((text_width(line) for label in self.labels for line in lines_of(label)), default=-GAP) + 2 * GAP

    def side(self, width: float, above: float) -> float:
        """Of a tile, so that the grid fits a width and a page."""
        across = (width - self.left) / len(self.columns) - GAP
        spare = TALLEST - above - BAR - len(self.gaps) * LINE
        return min(LARGEST, across, spare / len(self.rows) - GAP - self.below)

    def pitch(self, width: float, side: float) -> float:
        """From one column to the next: where a page's height makes tiles small, notes may be wider than these."""
        notes = max((text_width("".join(note)) for of_cell in self.notes for note in of_cell), default=0)
        names = max(map(text_width, self.columns)) if notes else 0
        return min((width - self.left) / len(self.columns), max(side, notes + GAP, names + GAP) + GAP)


def map_cell(values: Floats | None, photograph: Floats, notes: Sequence[Note] = ()) -> Cell:
    """A map over its photograph; a cross where there is none."""
    return Cell(None if values is None else overlay(values, photograph), notes)


def photograph_cell(photograph: Floats, notes: Sequence[Note] = ()) -> Cell:
    """A photograph."""
    return Cell(to_tile(photograph), notes)


def draw_grid(grid: Grid, width: float) -> "Figure":
    """The grid, no wider than asked for, and no higher than a page.

    Raises:
        ValueError: If that leaves too little for each tile.
    """
    with styled():
        side = grid.side(width, above=LINE)
        headers = _headers(grid.columns, grid.pitch(width, side))
        side = grid.side(width, headers.height)
        pitch = grid.pitch(width, side)
        if side < SMALLEST:
            raise ValueError(
                f"{len(grid.rows)} rows of {len(grid.columns)} tiles don't fit a page {width} inches wide; "
                "choose fewer methods or images, or a larger width."
            )
        step = side + GAP + grid.below
        bottom = headers.height + len(grid.rows) * step + len(grid.gaps) * LINE
        least = scale_width(grid.scale) + 2 * GAP  # which may be wider than a few tiles
        sheet = Sheet(max(grid.left + len(grid.columns) * pitch, least), bottom + BAR)
        middles = [grid.left + (across + 0.5) * pitch for across in range(len(grid.columns))]
        headers.write(sheet, middles)
        for down, row in enumerate(grid.rows):
            top = headers.height + down * step + sum(down >= gap for gap in grid.gaps) * LINE
            if grid.labels:
                _write_label(sheet, grid.labels[down], grid.left, top + side / 2)
            for middle, cell in zip(middles, row, strict=True):
                if cell is not None:
                    draw_cell(sheet, cell, middle, top, side, pitch)
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

    def write(self, sheet: Sheet, middles: Sequence[float]) -> None:
        """Above the middles of the columns."""
        way = {"rotation": 90, "va": "bottom"} if self.upright else {}
        for middle, text in zip(middles, self.texts, strict=True):
            sheet.write(middle, self.height - GAP, text, ha="center", **way)


def _headers(columns: Sequence[str], pitch: float) -> _Headers:
    """On lines as wide as a column, or upright if a word is too wide for that."""
    lines = [wrapped(name, pitch - GAP, text_width) for name in columns]
    if all(text_width(line) <= pitch for of_one in lines for line in of_one):
        return _Headers(["\n".join(of_one) for of_one in lines], LINE * max(map(len, lines)) + GAP)
    texts = [shortened(name, UPRIGHT, text_width) for name in columns]
    return _Headers(texts, max(map(text_width, texts)) + 2 * GAP, upright=True)


def lines_of(label: str) -> list[str]:
    """What is written beside a row."""
    return [line for part in label.split("\n") for line in wrapped(part, LABEL, text_width)]


def _write_label(sheet: Sheet, label: str, left: float, middle: float) -> None:
    sheet.write(left - GAP, middle, "\n".join(lines_of(label)), ha="right", va="center", multialignment="right")


def draw_cell(sheet: Sheet, cell: Cell, middle: float, top: float, side: float, pitch: float) -> None:
    """A tile with its notes, which may be as wide as a column.

    Args:
        sheet: to draw on.
        cell: what is drawn.
        middle: of the tile, across.
        top: of the tile.
        side: of the tile.
        pitch: width of the column.
    """
    sheet.tile(middle - side / 2, top, side, cell.picture)
    for number, note in enumerate(cell.notes, start=1):
        sheet.write(middle, top + side + number * LINE - 0.01, fitted(note, pitch - GAP), ha="center")


def fitted(note: Note, width: float) -> str:
    """The note, shortened if need be."""
    beginning, end = (note, "") if isinstance(note, str) else note
    return shortened(beginning, width - text_width(f"x{end}") + text_width("x"), text_width) + end
