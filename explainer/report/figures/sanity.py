"""Maps of a classifier whose layers are given random weights (Group-CAM, Fig. 6)."""

from pathlib import Path
from typing import TYPE_CHECKING

from explainer.report.columns import groups, shown
from explainer.report.figures.grid import Cell, Grid, draw_grid, map_cell, photograph_cell
from explainer.report.figures.results import result_file
from explainer.report.figures.sheet import Choice
from explainer.report.gallery import Floats
from explainer.report.names import method_names
from explainer.report.tables import Row
from explainer.report.tiles import PHOTOGRAPH, by_method, read_tiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LAYERS = 8
"""Of more, so many are shown, evenly spaced, the first and the last among them."""


def sanity_strip(folder: Path, choice: Choice | None = None) -> "Figure":
    """Each method's map layer by layer: a row a method and mode, a column a layer, from the output to the input.

    In the mode `cascading` all layers from the output to that one are random, in `independent` that one alone. Below a
    map stands its rank correlation with the map of the classifier as it is.

    Args:
        folder: of an evaluation with the table `sanity_examples`.
        choice: what is drawn; of several images the first.

    Raises:
        ValueError: If the table is not there, or what is chosen is not in it.
    """
    choice = choice or Choice()
    needed = ["mode", "depth", "layer", "rank_correlation"]
    rows = read_tiles(result_file(folder, "sanity_examples_tiles", "sanity_examples"), needed)
    photographs = by_method(rows).get(PHOTOGRAPH, {})
    (image, *_) = choice.of_images(photographs) or [""]
    of_image = [row for row in rows if row["image"] == image and row["method"] != PHOTOGRAPH]
    methods = choice.of_methods(dict.fromkeys(str(row["method"]) for row in of_image))
    if not methods:
        raise ValueError(f"{folder} has no maps in its table sanity_examples; every method has failed.")
    names = method_names(methods)
    lines = {
        (method, mode): members
        for (method, mode), members in groups(of_image, "method", "mode").items()
        if method in methods
    }
    ordered = sorted(lines, key=lambda line: methods.index(line[0]))
    layers = {row["depth"]: str(row["layer"]) for members in lines.values() for row in members if row["depth"]}
    depths = [0, *_spread(sorted(layers))]
    grid = [_line(lines[line], depths, photographs[image], first=line == ordered[0]) for line in ordered]
    columns = ["photograph", "none random", *(layers[depth] for depth in depths[1:])]
    labels = [f"{names[method]}, {mode}" for method, mode in ordered]
    gaps = [down for down in range(1, len(ordered)) if ordered[down][0] != ordered[down - 1][0]]
    return draw_grid(Grid(grid, columns, labels, gaps=gaps), choice.width)


def _spread(depths: list[int]) -> list[int]:
    """So many layers that they fit."""
    shown_layers = min(len(depths), MOST_LAYERS)
    return [depths[round(place * (len(depths) - 1) / max(1, shown_layers - 1))] for place in range(shown_layers)]


def _line(rows: list[Row], depths: list[int], photograph: Floats, *, first: bool) -> list[Cell | None]:
    """The cells of a method; a cross where it has no map of a layer."""
    by_depth = {row["depth"]: row for row in rows}
    cells: list[Cell | None] = [photograph_cell(photograph) if first else None]
    for depth in depths:
        row = by_depth.get(depth, {"rank_correlation": None, "tile": None})
        note = shown(row["rank_correlation"], ".2f").replace("-", "−") if depth else ""
        cells.append(map_cell(row["tile"], photograph, [note]))
    return cells
