"""The Explainer's largest class masks on the report page (NN-Explainer, Fig. 4 and 5)."""

from collections.abc import Sequence
from dataclasses import dataclass

from explainer.report.names import names_in
from explainer.report.page_data import TILES, Result
from explainer.report.page_gallery import BETWEEN, read_texts
from explainer.report.tiles import PHOTOGRAPH

TABLE = "top_classes"
NEEDED = ("method", "image", "rank", "class", "present", "cls", "ama", "tile")
MOST = 24
"""Images on the page; the CSV file has them all."""


@dataclass(frozen=True)
class TopMasks:
    """A row of NN-Explainer's Fig. 4: one image, one trained Explainer.

    Args:
        image: its name.
        method: what it is called, with its run where there are several.
        labels: classes in the image.
        photograph: data URI; empty if there is none.
        merged: the mask of all classes in the image, with its `ama`; None if there is none.
        classes: rows with `class`, `present`, `cls`, `ama` (texts as in the CSV file) and `uri` (empty if there is
            none), largest first.
    """

    image: str
    method: str
    labels: str
    photograph: str
    merged: dict[str, str] | None
    classes: list[dict[str, str]]


def read_top_classes(results: Sequence[Result]) -> list[TopMasks]:
    """The largest class masks of the first images.

    Raises:
        ValueError: If a file lacks a column, or a picture is none.
    """
    found: list[TopMasks] = []
    for one in results:
        file = one.folder / f"{TABLE}{TILES}.csv"
        if file.is_file():
            rows = read_texts(file, NEEDED)
            prefix = f"{one.name}{BETWEEN}" if len(results) > 1 else ""
            found += _top_masks(rows, prefix)
    images = list(dict.fromkeys(row.image for row in found))[:MOST]
    return sorted((row for row in found if row.image in images), key=lambda row: images.index(row.image))


def _top_masks(rows: Sequence[dict[str, str]], prefix: str) -> list[TopMasks]:
    photographs = {row["image"]: row for row in rows if row["method"] == PHOTOGRAPH}
    groups: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows:
        if row["method"] != PHOTOGRAPH:
            groups.setdefault((row["image"], row["method"]), []).append(row | {"uri": row["tile"]})
    found, names = [], names_in(rows)
    for (image, method), ranked in groups.items():
        photograph = photographs.get(image, {"class": "", "tile": ""})
        merged = next((row for row in ranked if row["rank"] == "0"), None)
        classes = [row for row in ranked if row["rank"] != "0"]
        found.append(
            TopMasks(image, f"{prefix}{names[method]}", photograph["class"], photograph["tile"], merged, classes)
        )
    return found
