"""The files of an evaluation: tables as CSV, Markdown and LaTeX, and figures made from the CSV files."""

from collections.abc import Callable, Mapping
from pathlib import Path

from explainer.report.examples import plot_examples
from explainer.report.plots import plot_ablation, plot_curves, plot_masking, plot_sanity
from explainer.report.tables import Row, write_csv, write_table

FIGURES: dict[str, Callable[[Path, Path], None]] = {
    "insertion_deletion_curves": plot_curves,
    "masking": plot_masking,
    "sanity": plot_sanity,
    "ablation": plot_ablation,
    "examples_tiles": plot_examples,
}
"""By the CSV file that they are made from."""

ONLY_CSV = (
    "examples_tiles",
    "gallery_tiles",
    "top_classes_tiles",
    "curve_examples_tiles",
    "curve_examples_curves",
    "sanity_examples_tiles",
)
"""Files that are too long, or whose cells nobody can read."""


def write_files(files: Mapping[str, list[Row]], folder: Path) -> None:
    """Write tables by their names without suffix; one without rows is removed, with its figure, if it was there."""
    for name, rows in files.items():
        if not rows:
            for suffix in ("csv", "md", "tex", "png"):
                (folder / f"{name}.{suffix}").unlink(missing_ok=True)
        elif name in ONLY_CSV:
            write_csv(rows, folder / name)
        else:
            write_table(rows, folder / name)


def write_plots(folder: Path) -> None:
    """Draw what there are CSV files for, and say which can't be drawn: an older version may have left them there."""
    for name, draw in FIGURES.items():
        table = folder / f"{name}.csv"
        if table.is_file():
            try:
                draw(table, folder / f"{name}.png")
            except Exception as error:  # a table that can't be drawn must not cost those that come after it
                print(f"No figure of {name}: {error if isinstance(error, ValueError) else repr(error)}")
