"""The picture of the table `examples`, a column for each image and a row for each method, and those of the gallery.

H×W pixels of a tile.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from explainer.files import whole
from explainer.report.columns import groups
from explainer.report.gallery import Column, Floats, Row, caption_of, draw_gallery, label_of
from explainer.report.tiles import GROUND_TRUTH, PHOTOGRAPH, by_method, read_tiles

OWN = (PHOTOGRAPH, GROUND_TRUTH)
BLANK = np.ones((1, 1, 3))
"""In the place of a photograph that is missing."""


def plot_examples(csv_file: Path, picture_file: Path) -> None:
    """Photographs, the ground truth where there is one, and each method's maps; a method without a map leaves a gap.

    Args:
        csv_file: columns method (`photograph` and `ground_truth` are none), image, class, probability in [0, 1] and
            tile (a PNG in base64, RGB of the photograph and grey of all others; empty where there is none). An image
            has one class.
        picture_file: its suffix says what is written (png, jpg).

    Raises:
        ValueError: If a column, all rows or a photograph are missing, or a tile is not readable.
    """
    with whole(picture_file) as temporary:
        Image.fromarray(draw_gallery(*read_examples(csv_file))).save(temporary)


def read_examples(csv_file: Path) -> tuple[list[Column], list[Row]]:
    """What the gallery shows of the file, a column an image and a row a method; arguments and errors as above."""
    rows = read_tiles(csv_file, ["class", "probability"])
    tiles = by_method(rows)
    captions = {row["image"]: caption_of(str(row["class"]), row["probability"]) for row in rows}
    photographs, truths = tiles.pop(PHOTOGRAPH, {}), tiles.pop(GROUND_TRUTH, {})
    if captions.keys() != photographs.keys():
        raise ValueError(f"{csv_file} lacks photographs: it has {len(photographs)} of {len(captions)} images.")
    columns = [Column(photographs[image], caption, truths.get(image)) for image, caption in captions.items()]
    return columns, [Row(*label_of(method), [maps.get(image) for image in captions]) for method, maps in tiles.items()]


def read_gallery_pictures(csv_file: Path, most: int) -> dict[str, tuple[list[Column], list[Row]]]:
    """What the gallery shows of each image, a column a class and a row a method, by the image's name.

    Args:
        csv_file: as for `plot_examples`, but an image has as many classes as there are, and its photograph none.
        most: images, the first ones.

    Raises:
        ValueError: As for `plot_examples`.
    """
    rows = read_tiles(csv_file, ["class", "probability"], most)
    methods = [name for name in dict.fromkeys(str(row["method"]) for row in rows) if name not in OWN]
    found = {}
    for (image,), of_image in groups(rows, "image").items():
        photograph = next((row["tile"] for row in of_image if row["method"] == PHOTOGRAPH), None)
        asked = [row for row in of_image if row["class"] is not None]
        probability = {str(row["class"]): row["probability"] for row in asked}
        maps = {(str(row["method"]), str(row["class"])): _grey(row["tile"]) for row in asked}
        columns = [
            Column(BLANK if photograph is None else photograph, caption_of(name, value), maps.get((GROUND_TRUTH, name)))
            for name, value in probability.items()
        ]
        of_methods = [Row(*label_of(name), [maps.get((name, label)) for label in probability]) for name in methods]
        found[image] = columns, of_methods
    return found


def _grey(tile: Floats | None) -> Floats | None:
    """A map [H,W]: a WebP has three channels whatever it shows."""
    return tile if tile is None or tile.ndim == 2 else tile.mean(axis=2)
