"""The files of an evaluation: tables as CSV, Markdown and LaTeX, and figures made from the CSV files."""

from collections.abc import Callable, Mapping
from pathlib import Path

from explainer.report.plots import plot_ablation, plot_curves, plot_masking, plot_sanity
from explainer.report.tables import Row, write_table

FIGURES: dict[str, Callable[[Path, Path], None]] = {
    "insertion_deletion_curves": plot_curves,
    "masking": plot_masking,
    "sanity": plot_sanity,
    "ablation": plot_ablation,
}
"""By the CSV file that they are made from."""


def write_files(files: Mapping[str, list[Row]], folder: Path) -> None:
    """Write tables by their names without suffix; one without rows is removed if it was there before."""
    for name, rows in files.items():
        if not rows:
            for suffix in ("csv", "md", "tex"):
                (folder / f"{name}.{suffix}").unlink(missing_ok=True)
        else:
            write_table(rows, folder / name)


def write_figures(folder: Path) -> None:
    """Draw what there are CSV files for."""
    for name, draw in FIGURES.items():
        if (folder / f"{name}.csv").is_file():
            draw(folder / f"{name}.csv", folder / f"{name}.png")
