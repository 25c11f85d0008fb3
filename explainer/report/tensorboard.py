"""The results of an evaluation in TensorBoard, beside the training run: tables, curves, figures and the gallery.

TensorBoard and matplotlib are imported where they are used: training must run without them.
"""

import io
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from explainer.report.columns import read_rows
from explainer.report.examples import read_examples, read_gallery_pictures
from explainer.report.figures import FIGURES, Choice
from explainer.report.figures.sheet import styled
from explainer.report.gallery import Picture, Row, draw_gallery
from explainer.report.plots import CURVES, SIMILARITIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch.utils.tensorboard import SummaryWriter

SUFFIX = ".evaluation"
"""Ending of our event files, by which they are told from a training's."""
NO_TEXT = ("insertion_deletion_curves",)
"""Tables that are too long to be read."""
STRIPS = {"top_classes": "top_classes", "curve_strip": "curve_examples", "sanity_strip": "sanity_examples"}
"""Figures for papers that have no picture beside the tables, and the tables that they are drawn from."""
DPI = 100
PERMILLE = 1000
MOST = 24
"""Images of the gallery, the first ones; the report page has them all."""


def log_evaluation(folder: Path, log_folder: Path) -> Path:
    """Write what an evaluation found where TensorBoard reads it; what was written for it before is replaced.

    The run is named after the evaluation's folder: `tables/` holds text, `figures/` and `gallery/` pictures. Each
    method is a run of its own below it, so that their curves share a chart: `curves/` over the changed pixels in per
    mille, `sanity/` over the number of the layer, counted from the output.

    Args:
        folder: of the evaluation.
        log_folder: that TensorBoard is pointed at, e.g. RUN/tensorboard.

    Returns:
        The folder of the run.

    Raises:
        ValueError: If the folder holds no table.
    """
    folder = Path(folder)
    tables = sorted(file for file in folder.glob("*.md") if file.stem not in NO_TEXT)
    if not tables:
        raise ValueError(f"{folder} has no tables; evaluate with --output {folder} first.")
    run = Path(log_folder) / (folder.resolve().name or "evaluation")
    for old in run.rglob(f"events.out.tfevents.*{SUFFIX}"):
        old.unlink()
    with ExitStack() as stack:
        writers: dict[Path, Any] = {}

        def writer(name: str = "") -> "SummaryWriter":
            """Of the run, or of a method below it."""
            place = run / re.sub(r"[^\w.,=+()\[\]-]", "_", name) if name else run
            if place not in writers:
                writers[place] = stack.enter_context(_open(place))
            return writers[place]

        for file in tables:
            writer().add_text(f"tables/{file.stem}", file.read_text(encoding="utf-8"))
        for name, picture in {**_pictures(folder), **_gallery(folder)}.items():
            writer().add_image(name, picture, dataformats="HWC")
        _log_curves(folder, writer)
        _log_sanity(folder, writer)
    return run


def _open(place: Path) -> "SummaryWriter":
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(place), filename_suffix=SUFFIX)


def _pictures(folder: Path) -> dict[str, Picture]:
    """The pictures beside the tables, and the strips that can be drawn."""
    found = {}
    for file in sorted(folder.glob("*.png")):
        with Image.open(file) as picture:
            found[f"figures/{file.stem}"] = np.asarray(picture.convert("RGB"))
    for name, table in STRIPS.items():
        if (folder / f"{table}_tiles.csv").is_file():
            found[f"figures/{name}"] = _drawn(FIGURES[name](folder, Choice()))
    return found


def _drawn(figure: "Figure") -> Picture:
    written = io.BytesIO()
    with styled():
        figure.savefig(written, dpi=DPI, format="png")
    return np.asarray(Image.open(written).convert("RGB"))


def _gallery(folder: Path) -> dict[str, Picture]:
    """Images with all their maps: of the table `gallery`, a picture an image, or else of `examples`."""
    file = folder / "gallery_tiles.csv"
    if file.is_file():
        pictures = read_gallery_pictures(file, MOST)
        return {f"gallery/{image}": draw_gallery(*of_image) for image, of_image in pictures.items() if of_image[0]}
    file = folder / "examples_tiles.csv"
    if not file.is_file():
        return {}
    columns, rows = read_examples(file)
    return {
        f"gallery/{number}_{column.caption}": draw_gallery(
            [column], [Row(row.name, row.details, [row.maps[number]]) for row in rows]
        )
        for number, column in enumerate(columns)
    }


def _log_curves(folder: Path, writer: "Callable[[str], SummaryWriter]") -> None:
    file = folder / "insertion_deletion_curves.csv"
    if not file.is_file():
        return
    for row in read_rows(file, ["method", "fraction", *CURVES]):
        for name in CURVES:
            if row[name] is not None:
                writer(str(row["method"])).add_scalar(f"curves/{name}", row[name], round(PERMILLE * row["fraction"]))


def _log_sanity(folder: Path, writer: "Callable[[str], SummaryWriter]") -> None:
    file = folder / "sanity.csv"
    if not file.is_file():
        return
    for row in read_rows(file, ["method", "mode", "depth", *SIMILARITIES]):
        for name in SIMILARITIES:
            if row[name] is not None:
                writer(str(row["method"])).add_scalar(f"sanity/{row['mode']}/{name}", row[name], row["depth"])
