"""Insertion and deletion: mean curves, and maps with the curves of single images (Group-CAM, Fig. 4).

Lengths are in inches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explainer.report.columns import groups, numbers, read_rows, shown, top_of_scale, with_bounds
from explainer.report.figures.grid import SCALE, Cell, Note, draw_cell, fitted, map_cell, photograph_cell
from explainer.report.figures.results import result_file
from explainer.report.figures.sheet import BAR, GAP, LINE, TALLEST, Choice, Sheet, new_figure, styled, text_width
from explainer.report.names import method_names
from explainer.report.plots import CURVES, Styles, draw_line, line_styles, probability_label
from explainer.report.tables import Row
from explainer.report.tiles import PHOTOGRAPH, by_method, read_tiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT = 2.1
"""Of a panel of mean curves, without the legend."""
PANEL = 0.95
"""Side of a panel beside maps."""
AXIS = 0.5
"""Width of the numbers and the label at an axis."""
BETWEEN = 0.16
"""From one panel to the next."""
TILE = 0.55
"""Least side of a tile beside the curves."""


def mean_curves(folder: Path, choice: Choice | None = None) -> "Figure":
    """The target's mean probability while pixels are inserted, and deleted, with 95 % intervals as bands.

    Args:
        folder: of an evaluation with the table `insertion_deletion`.
        choice: what is drawn; its images don't count.

    Raises:
        ValueError: If the table is not there, or what is chosen is not in it.
    """
    choice = choice or Choice()
    file = result_file(folder, "insertion_deletion_curves", "insertion_deletion")
    lines = groups(read_rows(file, ["method", "fraction", *with_bounds(CURVES)]), "method")
    methods = choice.of_methods(method for (method,) in lines)
    styles = line_styles((method,) for method in methods)
    most = top_of_scale([row for method in methods for row in lines[method,]], CURVES)
    with styled():
        columns = _legend_columns(methods, choice.width)
        figure = new_figure(choice.width, HEIGHT + LINE * -(-len(methods) // columns), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (name, label) in zip(panels, CURVES.items(), strict=True):
            for method in methods:
                ordered = sorted(lines[method,], key=lambda row: row["fraction"])
                draw_line(axes, numbers(ordered, "fraction"), ordered, name, styles[method,])
            axes.set(title=name, xlabel=label, xlim=(0, 1), ylim=(0, most))
        panels[0].set_ylabel(probability_label(most))
        _legend(figure, methods, styles, columns)
        return figure


def curve_strip(folder: Path, choice: Choice | None = None) -> "Figure":
    """Photograph, maps and both curves of single images (Group-CAM, Fig. 4): a block an image.

    Below a map stand the areas under its curves in percent: insertion (the more the better) and deletion (the less).

    Args:
        folder: of an evaluation with the table `curve_examples`.
        choice: what is drawn.

    Raises:
        ValueError: If the table is not there, what is chosen is not in it, or it does not fit a page.
    """
    choice = choice or Choice()
    tiles, areas, points = _read_examples(folder)
    pictures = by_method(tiles)
    photographs = pictures.pop(PHOTOGRAPH, {})
    methods = choice.of_methods(pictures)
    captions = {row["image"]: (str(row["class"]), f" {shown(row['probability'], '.2f')}") for row in tiles}
    blocks = []
    for image in choice.of_images(photographs):
        cells = [photograph_cell(photographs[image])]
        for method in methods:
            notes = _notes(areas.get((method, image), []))
            cells.append(map_cell(pictures[method].get(image), photographs[image], notes))
        curves = {method: points.get((method, image), []) for method in methods}
        blocks.append(_Block(captions[image], cells, curves))
    return _draw_blocks(blocks, line_styles((method,) for method in methods), choice.width)


_Rows = dict[tuple[str, ...], list[Row]]
"""By method and image."""


def _read_examples(folder: Path) -> tuple[list[Row], _Rows, _Rows]:
    """Tiles, areas and points of the curves."""
    table = "curve_examples"
    tiles = read_tiles(result_file(folder, f"{table}_tiles", table), ["class", "probability"])
    areas = read_rows(result_file(folder, table, table), ["method", "image", "insertion", "deletion"])
    points = read_rows(result_file(folder, f"{table}_curves", table), ["method", "image", "fraction", *CURVES])
    return tiles, groups(areas, "method", "image"), groups(points, "method", "image")


def _notes(rows: Sequence[Row]) -> list[str]:
    return [f"{name[:3]}. {shown(row[name], '.1f')}" for row in rows for name in CURVES]


@dataclass(frozen=True)
class _Block:
    """What is drawn of an image.

    Args:
        caption: of the photograph.
        cells: the photograph, and a map for each method.
        curves: points by method.
    """

    caption: Note
    cells: list[Cell]
    curves: dict[str, list[Row]]


def _draw_blocks(blocks: Sequence[_Block], styles: Styles, width: float) -> "Figure":
    """Tiles on the left, both curves on the right, the legend and the scale below."""
    methods = [method for (method,) in styles]
    left = width - 2 * (PANEL + BETWEEN) - AXIS
    down = -(-(len(methods) + 1) // max(1, int(left / (TILE + GAP))))
    across = -(-(len(methods) + 1) // down)
    pitch = min(left / across, PANEL + GAP)
    step = pitch + 3.3 * LINE
    height = max(down * step, PANEL + 2 * LINE) + GAP
    columns = _legend_columns(methods, width)
    total = len(blocks) * height + LINE * (2 + 1.15 * -(-len(methods) // columns)) + BAR
    if total > TALLEST or pitch < TILE:
        raise ValueError(
            f"{len(blocks)} images with {len(methods)} maps don't fit a page {width} inches wide; choose fewer methods "
            "or images, or a larger width."
        )
    with styled():
        sheet = Sheet(width, total)
        names = list(method_names(methods).values())
        for number, block in enumerate(blocks):
            top = number * height
            for place, (name, cell) in enumerate(zip([block.caption, *names], block.cells, strict=True)):
                middle, y = GAP / 2 + (place % across + 0.5) * pitch, top + place // across * step
                if place == 0 or number == 0 or down > 1:  # else the names stand above the first block
                    sheet.write(middle, y + LINE - 0.03, fitted(name, pitch), ha="center")
                draw_cell(sheet, cell, middle, y + LINE, pitch - GAP, pitch)
            _draw_panels(sheet, block.curves, styles, top + LINE, is_last=number == len(blocks) - 1)
        for back, name in zip((2, 1), CURVES, strict=True):
            sheet.write(width - back * (PANEL + BETWEEN) + PANEL / 2, LINE - 0.03, name, ha="center")
        _legend(sheet.figure, methods, styles, columns, loc="lower center", bbox_to_anchor=(0.5, BAR / total))
        sheet.scale(GAP, total - BAR + 0.06, SCALE)
        return sheet.figure


def _draw_panels(sheet: Sheet, curves: dict[str, list[Row]], styles: Styles, top: float, *, is_last: bool) -> None:
    """Insertion and deletion at the right border; what the axes mean stands below the last ones."""
    for back, (name, label) in zip((2, 1), CURVES.items(), strict=True):
        axes = sheet.panel(sheet.width - back * (PANEL + BETWEEN), top, PANEL, PANEL)
        for method, rows in curves.items():
            if rows:
                _curve(axes, rows, name, styles[method,])
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"] if back == 2 else [])
        if is_last:
            axes.set_xlabel(label.replace("fraction of ", ""), labelpad=1)
        if back == 2:
            axes.set_ylabel("probability", labelpad=1)


def _curve(axes: "Axes", rows: Sequence[Row], name: str, style: dict[str, Any]) -> None:
    ordered = sorted(rows, key=lambda row: row["fraction"])
    axes.plot([row["fraction"] for row in ordered], [row[name] for row in ordered], **style, clip_on=False)


def _legend_columns(methods: Sequence[str], width: float) -> int:
    """As many as fit beside each other."""
    longest = max(text_width(name) for name in method_names(list(methods)).values())
    return max(1, min(len(methods), int(width / (longest + 0.6))))


def _legend(figure: "Figure", methods: Sequence[str], styles: Styles, columns: int, **place: Any) -> None:
    """The methods' lines, below the panels unless a place is given."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **styles[method,]) for method in methods]
    tight = {"frameon": False, "handlelength": 2.6, "columnspacing": 1.2, "borderpad": 0.1, "borderaxespad": 0.2}
    keywords: dict[str, Any] = {"loc": "outside lower center", "ncols": columns, **tight, **place}
    figure.legend(handles, list(method_names(list(methods)).values()), **keywords)
