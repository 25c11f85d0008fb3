"""Pictures from the cells of a CSV file."""

import base64
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from explainer.report.columns import read_rows
from explainer.report.gallery import Floats
from explainer.report.tables import Row

PHOTOGRAPH = "photograph"
GROUND_TRUTH = "ground_truth"
"""Rows that are no method's."""

Pictures = dict[str, dict[str, Floats]]
"""[H,W] or [H,W,3] in [0, 1], by method and image."""


def read_tiles(csv_file: Path, needed: Iterable[str] = (), most: int | None = None) -> list[Row]:
    """The rows of a file of small pictures, each `tile` decoded: [H,W] or [H,W,3] in [0, 1], None for an empty cell.

    Args:
        csv_file: columns method, image, tile (a picture in base64) and those needed besides.
        needed: further columns.
        most: images, the first ones; all if None.

    Raises:
        ValueError: If a column is missing, there are no rows, or a tile is not readable.
    """
    rows = read_rows(csv_file, ["method", "image", *needed, "tile"])
    for row in rows:
        row["image"] = str(row["image"])  # some names look like numbers
    if most is not None:
        images = list(dict.fromkeys(row["image"] for row in rows))[:most]
        rows = [row for row in rows if row["image"] in images]
    for row in rows:
        row["tile"] = None if row["tile"] is None else _decoded(str(row["tile"]), csv_file)
    return rows


def by_method(rows: Iterable[Row]) -> Pictures:
    """The pictures there are; a method without any has an empty entry."""
    found: Pictures = {}
    for row in rows:
        of_method = found.setdefault(str(row["method"]), {})
        if row["tile"] is not None:
            of_method[row["image"]] = row["tile"]
    return found


def _decoded(text: str, csv_file: Path) -> Floats:
    try:
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(text, validate=True)))) / 255
    except (ValueError, OSError, SyntaxError) as error:  # Pillow says of a broken PNG that its syntax is wrong
        raise ValueError(f"{csv_file} has a tile that is no picture in base64; make the table anew.") from error
