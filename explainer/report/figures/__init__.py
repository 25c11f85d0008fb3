"""Figures for papers, drawn from the result files of an evaluation: one call each.

`methods_strip("runs/demo/evaluation")` gives a matplotlib figure, `save_figure` writes it as PDF and PNG, and
`python -m explainer.report.figures runs/demo/evaluation` writes all that the folder has tables for. Colours are those
of the gallery: as light as a map is large, so that they read in grey and with any colour vision; lines differ in colour
and in dashes.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from explainer.report.figures.ablation import ablation_curves
from explainer.report.figures.curves import curve_strip, mean_curves
from explainer.report.figures.maps import backbone_grid, methods_strip, superpixel_strip
from explainer.report.figures.results import NoTable
from explainer.report.figures.sanity import sanity_strip
from explainer.report.figures.sheet import COLUMN, DPI, FORMATS, PAGE, Choice, save_figure
from explainer.report.figures.top_classes import top_classes_strip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "COLUMN", "FIGURES", "PAGE", "Choice", "ablation_curves", "backbone_grid", "curve_strip", "mean_curves",
    "methods_strip", "sanity_strip", "save_figure", "superpixel_strip", "top_classes_strip", "write_figures",
]  # fmt: skip

FIGURES: dict[str, "Callable[[Path, Choice], Figure]"] = {
    "methods": methods_strip,
    "top_classes": top_classes_strip,
    "curves": mean_curves,
    "curve_strip": curve_strip,
    "ablation": ablation_curves,
    "sanity_strip": sanity_strip,
    "backbones": backbone_grid,
    "superpixels": superpixel_strip,
}
"""By their names on the command line and of their files."""


def write_figures(
    folder: Path,
    choice: Choice | None = None,
    only: Iterable[str] = (),
    output: Path | None = None,
    formats: Iterable[str] = FORMATS,
    dpi: int = DPI,
) -> list[Path]:
    """Draw the figures of an evaluation; returns the files.

    Args:
        folder: of the evaluation.
        choice: what is drawn, and how wide.
        only: names of figures; else all that can be drawn, with a line for each that is broken, and one for those
            whose tables nobody asked for.
        output: folder of the figures; FOLDER/figures if not given.
        formats: their suffixes.
        dpi: pixels an inch of what is no vector.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If a figure of `only` is unknown or can't be drawn; the message names the table that it needs.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder} is not there; name a folder that evaluate.py wrote (its --output).")
    wanted = list(only)
    unknown = [name for name in wanted if name not in FIGURES]
    if unknown:
        raise ValueError(f"Unknown figure '{unknown[0]}'; choose some of: {', '.join(FIGURES)}.")
    files: list[Path] = []
    not_asked_for = []
    for name in wanted or FIGURES:
        try:
            figure = FIGURES[name](Path(folder), choice or Choice())
        except Exception as error:  # whatever is wrong with one table, the others' figures are to be drawn
            if wanted:
                raise
            if isinstance(error, NoTable):
                not_asked_for.append(name)
            else:
                print(f"No figure {name}: {error if isinstance(error, ValueError) else repr(error)}")
            continue
        files += save_figure(figure, (output or Path(folder) / "figures") / name, formats, dpi)
    if not_asked_for:
        print(f"No figures of what was not evaluated: {', '.join(not_asked_for)} (docs/figures.md names their tables).")
    return files
