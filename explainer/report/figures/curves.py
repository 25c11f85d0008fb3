"""Insertion and deletion: mean curves, and maps with the curves of single images (Group-CAM, Fig. 4).

Lengths are in inches.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explainer.report.columns import groups, numbers, read_rows, top_of_scale, with_bounds
from explainer.report.figures.grid import Cell, draw_cell, map_cell, photograph_cell
from explainer.report.figures.results import result_file
from explainer.report.figures.sheet import BAR, GAP, LINE, TALLEST, Choice, Sheet, new_figure, styled, text_width
from explainer.report.gallery import shortened
from explainer.report.names import method_names
from explainer.report.plots import CURVES, Styles, draw_line, line_styles, probability_label
from explainer.report.tables import Row
from explainer.report.tiles import PHOTOGRAPH, by_method, read_tiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT = 2.1
"""Of a panel of mean curves, without the legend."""
PANEL = 1.2
"""Side of a panel beside maps."""
AXIS = 0.36
"""Width of the numbers and the label at an axis."""
MOST_TILES = 4
"""On a line beside the curves."""
SCALE = "saliency, each map scaled to [0, 1]"


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
    tiles = read_tiles(result_file(folder, "curve_examples_tiles", "curve_examples"), ["class", "probability"])
    areas = read_rows(
        result_file(folder, "curve_examples", "curve_examples"), ["method", "image", "insertion", "deletion"]
    )
    points = read_rows(
        result_file(folder, "curve_examples_curves", "curve_examples"), ["method", "image", "fraction", *CURVES]
    )
    pictures = by_method(tiles)
    photographs = pictures.pop(PHOTOGRAPH, {})
    methods = choice.of_methods(pictures)
    images = choice.of_images(photographs)
    captions = {row["image"]: f"{row['class']} {row['probability']:.2f}" for row in tiles}
    of_areas, of_points = groups(areas, "method", "image"), groups(points, "method", "image")
    names = method_names(methods)
    blocks = {}
    for image in images:
        notes = {method: _notes(of_areas.get((method, image), [])) for method in methods}
        cells = {captions[image]: photograph_cell(photographs[image])} | {
            names[method]: map_cell(pictures[method].get(image), photographs[image], notes[method])
            for method in methods
        }
        blocks[image] = cells, {method: of_points.get((method, image), []) for method in methods}
    return _draw_blocks(list(blocks.values()), line_styles((method,) for method in methods), choice.width)


def _notes(rows: Sequence[Row]) -> list[str]:
    return [f"ins. {row['insertion']:.1f}" for row in rows] + [f"del. {row['deletion']:.1f}" for row in rows]


def _draw_blocks(
    blocks: Sequence[tuple[dict[str, Cell], dict[str, list[Row]]]], styles: Styles, width: float
) -> "Figure":
    """Tiles on the left, both curves on the right, the legend and the scale below."""
    methods = [method for (method,) in styles]
    tiles = len(blocks[0][0])
    across = min(tiles, MOST_TILES)
    down = -(-tiles // across)
    left = width - 2 * (PANEL + GAP) - AXIS - 2 * LINE
    side = min(left / across - GAP, PANEL)
    step = side + 4 * LINE
    height = max(down * step, PANEL + 3.5 * LINE) + LINE
    columns = _legend_columns(methods, width)
    legend = LINE * 1.15 * -(-len(methods) // columns)
    total = len(blocks) * height + legend + BAR + LINE
    if total > TALLEST or side < PANEL / 3:
        raise ValueError(
            f"{len(blocks)} images with {len(methods)} maps don't fit a page {width} inches wide; choose fewer methods "
            "or images, or a larger width."
        )
    with styled():
        sheet = Sheet(width, total)
        for number, (cells, curves) in enumerate(blocks):
            top = number * height
            for place, (name, cell) in enumerate(cells.items()):
                x, y = place % across * (side + GAP) + GAP, top + place // across * step
                sheet.write(x + side / 2, y + LINE - 0.02, shortened(name, side + GAP, text_width), ha="center")
                draw_cell(sheet, cell, x, y + LINE + 0.01, side)
            _draw_panels(sheet, curves, styles, width, top + LINE + 0.01)
        _legend(sheet.figure, methods, styles, columns, loc="lower center", bbox_to_anchor=(0.5, BAR / total))
        sheet.scale(GAP, total - BAR + 0.06, SCALE)
        return sheet.figure


def _draw_panels(sheet: Sheet, curves: dict[str, list[Row]], styles: Styles, width: float, top: float) -> None:
    """Insertion and deletion at the right border."""
    for back, (name, label) in zip((2, 1), CURVES.items(), strict=True):
        axes = sheet.panel(width - back * (PANEL + 2 * GAP), top, PANEL, PANEL)
        for method, rows in curves.items():
            if rows:
                _curve(axes, rows, name, styles[method,])
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel=label.replace("fraction of ", ""))
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"] if back == 2 else [])
        axes.set_title(name, pad=2, fontsize="medium")
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
