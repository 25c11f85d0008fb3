"""The gallery of the report page: all methods' maps of an image and a class, side by side.

Pictures are taken as evaluate.py wrote them (base64 in `*_tiles.csv`), so that 10,000 images need no drawing. A small
gallery is part of the page. Of a large one each image has a script file beside the page, which the browser loads when
the image is picked: a page that was opened from disk must not fetch data, but may load scripts and pictures.
"""

import base64
import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from explainer.files import whole
from explainer.report.gallery import heat
from explainer.report.names import method_names
from explainer.report.page_data import PER_IMAGE, TILES, Result
from explainer.report.page_sections import BETTER
from explainer.report.tables import reading
from explainer.report.tiles import GROUND_TRUTH, PHOTOGRAPH

SOURCES = ("gallery", "examples")
"""Tables with pictures, the one with more of them first."""
NEEDED = ("method", "image", "class", "probability", "tile")
BETWEEN = " · "
"""What stands between a run's name and a method's."""
KINDS = {"iVBOR": "png", "UklGR": "webp", "/9j/": "jpeg"}
"""Pictures by how they begin in base64."""
BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
FOLDER = "gallery"
CHUNK = re.compile(r"\d{6}\.(js|png|webp|jpeg)")
"""Files in it."""

Pictures = dict[str, dict[str, str]]
"""Data URIs by the method and the class."""


@dataclass
class Picked:
    """What the gallery shows of one image.

    Args:
        name: of the image.
        classes: facts by name: the classifier's probability by run (without a name where there is one run), and
            whether it is in the image, where that is known.
        photograph: data URI; empty if there is none.
        maps: by method and class; the ground truth is among them.
        scores: texts by method, class and measure.
        runs: whose galleries have it (one without a name where there is one run).
    """

    name: str
    classes: dict[str, dict[str, Any]] = field(default_factory=dict)
    photograph: str = ""
    maps: Pictures = field(default_factory=dict)
    scores: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    runs: set[str] = field(default_factory=set)


def read_gallery(results: Sequence[Result]) -> list[Picked]:
    """All images with pictures; methods are named after their run where there are several.

    Raises:
        ValueError: If a file lacks a column, or a picture is none.
    """
    images: dict[str, Picked] = {}
    for one in results:
        prefix = f"{one.name}{BETWEEN}" if len(results) > 1 else ""
        file = next((file for name in SOURCES if (file := one.folder / f"{name}{TILES}.csv").is_file()), None)
        for row in read_texts(file, NEEDED) if file else ():
            _take(row, images.setdefault(row["image"], Picked(row["image"])), prefix)
        _take_scores(one, images, prefix)
    return [picked for picked in images.values() if picked.photograph or picked.maps]


def read_texts(file: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a file with pictures, all cells as they are but `tile`, which becomes a data URI.

    Nobody parses or decodes what the browser will show.

    Raises:
        ValueError: If it is damaged, lacks a column, or a picture is none.
    """
    with reading(file) as opened:
        reader = csv.DictReader(opened)
        lacking = [name for name in needed if name not in (reader.fieldnames or ())]
        if lacking:
            raise ValueError(f"{file} lacks the columns {', '.join(lacking)}; make the table anew.")
        rows = list(reader)
    for row in rows:
        try:
            row["tile"] = data_uri(row["tile"] or "")
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
    return rows


def _take(row: Mapping[str, str], picked: Picked, prefix: str) -> None:
    method, label = row["method"], row["class"]
    run = prefix.removesuffix(BETWEEN)
    picked.runs.add(run)
    if method == PHOTOGRAPH:
        picked.photograph = picked.photograph or row["tile"]
    if label:
        facts = picked.classes.setdefault(label, {"probability": {}, "present": row.get("present", "")})
        facts["probability"].setdefault(run, row["probability"])
    if method != PHOTOGRAPH and row["tile"]:
        name = method if method == GROUND_TRUTH else f"{prefix}{method}"
        picked.maps.setdefault(name, {})[label] = row["tile"]


def data_uri(tile: str) -> str:
    """A picture in base64 -> what an `img` takes; empty stays empty.

    Raises:
        ValueError: If it is no picture: what a page shows must not be anything else.
    """
    if not tile:
        return ""
    kind = next((kind for begin, kind in KINDS.items() if tile.startswith(begin)), None)
    if kind is None or not BASE64.fullmatch(tile):
        raise ValueError(f"'{tile[:12]}…' is no PNG, WebP or JPEG in base64; make the table with the pictures anew.")
    return f"data:image/{kind};base64,{tile}"


def _take_scores(result: Result, images: Mapping[str, Picked], prefix: str) -> None:
    """From the scores of every image those of the gallery's; as texts, exactly as they are in the CSV file."""
    for file in sorted(result.folder.glob(f"*{PER_IMAGE}.csv")):
        with reading(file) as opened:
            reader = csv.DictReader(opened)
            names = [name for name in reader.fieldnames or () if name in BETTER]
            for row in reader:
                if names and row.get("image") in images and not row.get("classifier"):
                    found = {name: row[name] for name in names if row[name]}
                    of_method = images[row["image"]].scores.setdefault(f"{prefix}{row['method']}", {})
                    of_method.setdefault(row.get("class") or "", {}).update(found)


def methods_of(gallery: Sequence[Picked]) -> list[str]:
    """Names of the tiles in order of appearance, the ground truth first."""
    names = dict.fromkeys(name for picked in gallery for name in picked.maps)
    return sorted(names, key=lambda name: name != GROUND_TRUTH)


def names_of(methods: Sequence[str]) -> list[tuple[str, str]]:
    """Each method, with its run where there are several, and what it is called."""
    parts = {method: method.rpartition(BETWEEN) for method in methods}
    names = method_names(list(dict.fromkeys(name for _, _, name in parts.values())))
    return [(method, f"{run}{between}{names[name]}") for method, (run, between, name) in parts.items()]


def index_of(gallery: Sequence[Picked], *, beside: bool) -> dict[str, Any]:
    """What the page must know before an image is picked.

    Args:
        gallery: the images.
        beside: whether their pictures lie in files beside the page.
    """
    return {
        "methods": names_of(methods_of(gallery)),
        "images": [
            {
                "name": picked.name,
                "classes": [{"name": name, **facts} for name, facts in picked.classes.items()],
                "thumbnail": f"{FOLDER}/{_photograph_name(number, picked)}" if beside and picked.photograph else "",
            }
            for number, picked in enumerate(gallery)
        ],
    }


def content_of(picked: Picked) -> dict[str, Any]:
    """What the page must know of an image that is picked."""
    return {"photograph": picked.photograph, "maps": picked.maps, "scores": picked.scores}


def heat_table(stops: int = 17) -> dict[str, str]:
    """The colours of heat as a filter of SVG takes them, by channel, and as a gradient of CSS."""
    colours = heat(np.linspace(0, 1, stops))
    channels = dict(zip(("red", "green", "blue"), colours.T, strict=True))
    texts = {name: " ".join(f"{value:.3f}" for value in values) for name, values in channels.items()}
    steps = (f"rgb({', '.join(f'{100 * part:.1f}%' for part in colour)})" for colour in colours)
    return texts | {"gradient": ", ".join(steps)}


def sizes_of(gallery: Sequence[Picked]) -> Iterator[int]:
    """Bytes that each image takes in the page."""
    return (len(json.dumps(content_of(picked))) for picked in gallery)


def write_chunks(gallery: Sequence[Picked], folder: Path) -> None:
    """A script with the maps, and the photograph, of each image; files of an older gallery are removed.

    Args:
        gallery: the images.
        folder: of the page.
    """
    remove_chunks(folder)
    beside = folder / FOLDER
    beside.mkdir(parents=True, exist_ok=True)
    for number, picked in enumerate(gallery):
        text = json.dumps(content_of(picked), ensure_ascii=True)
        with whole(beside / f"{number:06}.js") as aside:  # without waiting for the disk: there are thousands
            aside.write_text(f"explainerGallery.put({number}, {text});\n", encoding="utf-8", newline="")
        if picked.photograph:
            photograph = base64.b64decode(picked.photograph.partition(",")[2])
            (beside / _photograph_name(number, picked)).write_bytes(photograph)


def remove_chunks(folder: Path) -> None:
    """Remove what an earlier gallery of the page left beside it; files that it did not write stay."""
    beside = folder / FOLDER
    for file in beside.glob("*.*"):
        if CHUNK.fullmatch(file.name):
            file.unlink()
    if beside.is_dir() and not any(beside.iterdir()):
        beside.rmdir()


def _photograph_name(number: int, picked: Picked) -> str:
    kind = picked.photograph.partition(";")[0].rpartition("/")[2]
    return f"{number:06}.{kind}"
