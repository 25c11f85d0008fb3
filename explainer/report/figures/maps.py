"""Maps side by side: of methods, of the superpixels of PAMI, of classifiers.

All are drawn from `examples_tiles.csv`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from explainer.report.columns import shown
from explainer.report.figures.grid import Cell, Grid, draw_grid, map_cell, photograph_cell
from explainer.report.figures.results import NoTable, classifier_of, result_file
from explainer.report.figures.sheet import Choice
from explainer.report.gallery import Column, Floats, draw_truth
from explainer.report.names import method_names
from explainer.report.tiles import GROUND_TRUTH, PHOTOGRAPH, Pictures, by_method, read_tiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACROSS = 10
"""Most columns in which methods stand; of more, each has a row."""
ALGORITHMS = {"felzenszwalb": "Felzenszwalb", "slic": "SLIC", "seeds": "SEEDS", "watershed": "watershed"}
SUPERPIXELS = {
    **{f"pami:segmentation={option},second_run=false": name for option, name in ALGORITHMS.items()},
    "pami:second_run=false": "all, first run",
    "pami": "all, second run",
}
"""Columns of PAMI's Fig. 5, by the methods that make them."""


@dataclass(frozen=True)
class _Examples:
    """What `examples_tiles.csv` holds.

    Args:
        classes: of the images, by their names.
        captions: class and the classifier's probability.
        tiles: pictures by method and image.
    """

    classes: dict[str, str]
    captions: dict[str, str]
    tiles: Pictures

    @property
    def methods(self) -> list[str]:
        """All that are some."""
        return [name for name in self.tiles if name not in (PHOTOGRAPH, GROUND_TRUTH)]

    def photograph(self, image: str) -> Floats:
        """[H,W,3] in [0, 1]."""
        return self.tiles[PHOTOGRAPH][image]

    def map(self, method: str, image: str) -> Cell:
        """A method's map; a cross where there is none."""
        return map_cell(self.tiles.get(method, {}).get(image), self.photograph(image))

    def truth(self, image: str) -> Cell | None:
        """The ground truth, if it is known."""
        shades = self.tiles.get(GROUND_TRUTH, {}).get(image)
        return None if shades is None else Cell(draw_truth(Column(self.photograph(image), "", shades)))


def _read(folder: Path) -> _Examples:
    file = result_file(folder, "examples_tiles", "examples")
    rows = read_tiles(file, ["class", "probability"])
    tiles = by_method(rows)
    classes = {row["image"]: str(row["class"]) for row in rows}
    captions = {row["image"]: f"{row['class']} {shown(row['probability'], '.2f')}" for row in rows}
    lacking = [image for image in classes if image not in tiles.get(PHOTOGRAPH, {})]
    if lacking:
        raise ValueError(f"{file} lacks the photograph of {lacking[0]}; make the table anew.")
    return _Examples(classes, captions, tiles)


def methods_strip(folder: Path, choice: Choice | None = None) -> "Figure":
    """Photograph, ground truth and the map of each method (NN-Explainer, Fig. 3; Group-CAM, Fig. 2; PAMI, Fig. 2).

    A row an image, a column a method; of many methods, each has a row. Beside the image stand the class and the
    classifier's probability for it. A cross stands where a method has no map.

    Args:
        folder: of an evaluation with the table `examples`.
        choice: what is drawn.

    Raises:
        ValueError: If the table is not there, or what is chosen is not in it.
    """
    choice = choice or Choice()
    found = _read(folder)
    methods, images = choice.of_methods(found.methods), choice.of_images(found.captions)
    lines: dict[str, list[Cell | None]] = {"photograph": [photograph_cell(found.photograph(image)) for image in images]}
    truths = [found.truth(image) for image in images]
    if any(truth is not None for truth in truths):
        lines["ground truth"] = truths
    names = method_names(methods)
    lines |= {names[method]: [found.map(method, image) for image in images] for method in methods}
    captions = [found.captions[image] for image in images]
    if len(lines) > ACROSS:
        return draw_grid(Grid(list(lines.values()), captions, list(lines)), choice.width)
    return draw_grid(Grid(list(zip(*lines.values(), strict=True)), list(lines), captions), choice.width)


def superpixel_strip(folder: Path, choice: Choice | None = None) -> "Figure":
    """What several segmentations and a second run do for PAMI (PAMI, Fig. 5): a row an image.

    Args:
        folder: of an evaluation with the table `examples`, in which are PAMI with each algorithm alone, PAMI's first
            run and PAMI: the methods of `SUPERPIXELS`.
        choice: what is drawn; its methods don't count.

    Raises:
        ValueError: If the table or a method is not there, with the methods that it takes.
    """
    choice = choice or Choice()
    found = _read(folder)
    lacking = [method for method in SUPERPIXELS if method not in found.methods]
    if lacking:
        raise NoTable(
            f"The table examples of {folder} lacks {', '.join(lacking)}; evaluate with --tables examples --methods "
            f"{' '.join(SUPERPIXELS)}."
        )
    images = choice.of_images(found.captions)
    rows = [
        [photograph_cell(found.photograph(image)), *(found.map(name, image) for name in SUPERPIXELS)]
        for image in images
    ]
    return draw_grid(
        Grid(rows, ["photograph", *SUPERPIXELS.values()], [found.captions[image] for image in images]), choice.width
    )


def backbone_grid(folder: Path, choice: Choice | None = None) -> "Figure":
    """The same methods for several classifiers (PAMI, Fig. 3): a row a classifier, a block an image.

    A cross stands where a method does not work on a classifier, or was not asked.

    Args:
        folder: of an evaluation with the table `examples`.
        choice: what is drawn; `beside` names the folders of the other classifiers' evaluations, on the same images.

    Raises:
        ValueError: If there is no other folder, a table is not there, or the classifiers have no image in common for
            which they were asked for the same class.
    """
    choice = choice or Choice()
    folders = [Path(folder), *map(Path, choice.beside)]
    if len(folders) == 1:
        raise NoTable(
            "The figure backbones compares classifiers; evaluate another one on the same images with --tables "
            "examples, and name its folder too (--beside)."
        )
    every = [_read(one) for one in folders]
    first = every[0]
    images = choice.of_images(_common(every))
    known = dict.fromkeys(name for found in every for name in found.methods)
    methods = choice.of_methods(known)
    rows: list[Sequence[Cell | None]] = []
    for image in images:
        for found in every:
            once = photograph_cell(first.photograph(image)) if found is first else None
            rows.append([once, *(found.map(method, image) for method in methods)])
    names = [classifier_of(one, "examples") for one in folders]
    labels = [f"{name}\n{found.captions[image]}" for image in images for name, found in zip(names, every, strict=True)]
    gaps = [len(every) * number for number in range(1, len(images))]
    names_of_methods = method_names(methods)
    columns = ["photograph", *(names_of_methods[method] for method in methods)]
    return draw_grid(Grid(rows, columns, labels, gaps=gaps), choice.width)


def _common(every: Sequence[_Examples]) -> list[str]:
    """Images that all have, asked about the same class."""
    first, *others = every
    images = [
        image for image, name in first.classes.items() if all(found.classes.get(image) == name for found in others)
    ]
    if not images:
        raise ValueError(
            "The evaluations have no image in common for which the classifiers were asked for the same class; evaluate "
            "them on the same split with the same --limit and --examples.images."
        )
    return images
