"""The picture of the table `examples`: a column for each image, a row for each method.

H×W pixels of a tile.
"""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from explainer.report.gallery import Column, Floats, Row, caption_of, draw_gallery, label_of
from explainer.report.tables import read_table

NEEDED = ("method", "image", "class", "probability", "tile")
PHOTOGRAPH = "photograph"
GROUND_TRUTH = "ground_truth"


def plot_examples(csv_file: Path, picture_file: Path) -> None:
    """Photographs, the ground truth where there is one, and each method's maps; a method without a map leaves a gap.

    Args:
        csv_file: columns method (`photograph` and `ground_truth` are none), image, class, probability in [0, 1] and
            tile (a PNG in base64, RGB of the photograph and grey of all others; empty where there is none). An image
            has one class.
        picture_file: its suffix says what is written (png, jpg).

    Raises:
        ValueError: If a column or a photograph is missing, or a tile is not readable.
    """
    rows = read_table(csv_file)
    lacking = [name for name in NEEDED if rows and name not in rows[0]]
    if lacking:
        raise ValueError(f"{csv_file} lacks the columns {', '.join(lacking)}; it has {', '.join(rows[0])}.")
    tiles: dict[str, dict[str, Floats]] = {}
    for row in rows:
        of_method = tiles.setdefault(str(row["method"]), {})
        if row["tile"] is not None:
            of_method[str(row["image"])] = _decoded(str(row["tile"]), csv_file)
    captions = {str(row["image"]): caption_of(str(row["class"]), float(row["probability"])) for row in rows}
    photographs, truths = tiles.pop(PHOTOGRAPH, {}), tiles.pop(GROUND_TRUTH, {})
    if not photographs or captions.keys() != photographs.keys():
        raise ValueError(f"{csv_file} lacks photographs: it has {len(photographs)} of {len(captions)} images.")
    columns = [Column(photographs[image], caption, truths.get(image)) for image, caption in captions.items()]
    methods = [Row(*label_of(method), [maps.get(image) for image in captions]) for method, maps in tiles.items()]
    _save(draw_gallery(columns, methods), picture_file)


def _decoded(text: str, csv_file: Path) -> Floats:
    """[H,W] or [H,W,3] in [0, 1]."""
    try:
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(text, validate=True)))) / 255
    except (ValueError, OSError, SyntaxError) as error:  # Pillow says of a broken PNG that its syntax is wrong
        raise ValueError(f"{csv_file} has a tile that is no PNG in base64; make the table anew.") from error


def _save(picture: np.ndarray, file: Path) -> None:
    """Write the picture, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".tmp.{file.name}")  # Pillow reads the format from the suffix
    try:
        Image.fromarray(picture).save(temporary)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
