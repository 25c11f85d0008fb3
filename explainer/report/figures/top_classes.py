"""The classes with the largest masks (NN-Explainer, Sup. Mat. Sec. C, Fig. 4 and 5)."""

from pathlib import Path
from typing import TYPE_CHECKING

from explainer.report.columns import groups, shown
from explainer.report.figures.grid import MASK_SCALE, Cell, Grid, draw_grid, map_cell, photograph_cell
from explainer.report.figures.results import result_file
from explainer.report.figures.sheet import Choice
from explainer.report.gallery import Floats
from explainer.report.tables import Row
from explainer.report.tiles import PHOTOGRAPH, by_method, read_tiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEGEND = ("TAC", "CLS", "AMA")
"""Class of the mask, two asterisks if it is in the image; classifier's probability; mean mask; both times 100."""


def top_classes_strip(folder: Path, choice: Choice | None = None) -> "Figure":
    """Photograph, merged mask and the largest class masks of each image: a row an image, a column a rank.

    Below a mask stand its class (TAC; ** if it is in the image), the classifier's probability for it in the photograph
    (CLS) and the mean of the mask (AMA), both times 100. The merged mask is the pixelwise maximum over the classes that
    are in the image.

    Args:
        folder: of an evaluation with the table `top_classes`.
        choice: what is drawn; of several methods the first.

    Raises:
        ValueError: If the table is not there, or what is chosen is not in it.
    """
    choice = choice or Choice()
    rows = read_tiles(
        result_file(folder, "top_classes_tiles", "top_classes"), ["rank", "class", "present", "cls", "ama"]
    )
    photographs = by_method(rows).get(PHOTOGRAPH, {})
    methods = dict.fromkeys(str(row["method"]) for row in rows if row["method"] != PHOTOGRAPH)
    (method, *_) = choice.of_methods(methods) or [""]
    masks = groups([row for row in rows if row["method"] == method], "image")
    images = choice.of_images([image for (image,) in masks if image in photographs])
    if not images:
        raise ValueError(f"{folder} has no masks in its table top_classes; every image has failed.")
    grid = [_row(masks[image,], photographs[image]) for image in images]
    ranks = max(map(len, grid)) - 2
    padded = [[*row, *[None] * (ranks + 2 - len(row))] for row in grid]
    return draw_grid(
        Grid(padded, ["photograph", "merged mask", *map(str, range(1, ranks + 1))], scale=MASK_SCALE), choice.width
    )


def _row(masks: list[Row], photograph: Floats) -> list[Cell | None]:
    """The cells of one image; the names of the lines stand below its merged mask, beside the first class."""
    merged = next((row["tile"] for row in masks if row["rank"] == 0), None)
    ranked = sorted((row for row in masks if row["rank"]), key=lambda row: int(row["rank"]))
    cells: list[Cell | None] = [photograph_cell(photograph), map_cell(merged, photograph, LEGEND)]
    for row in ranked:
        name = shown(row["class"], ""), " **" if row["present"] else ""
        cells.append(map_cell(row["tile"], photograph, (name, shown(row["cls"], ".2f"), shown(row["ama"], ".2f"))))
    return cells
