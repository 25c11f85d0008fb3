"""Reading labels.csv and classes.txt of the `folder` data set, and telling the user which row is wrong."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from datamodules.sample import SPLITS

COLUMNS = ("image", "split", "labels")
EXAMPLE = "image,split,labels\\nphotos/1.jpg,train,cat;dog"


class Row(NamedTuple):
    """One image of labels.csv; `line` is its line in the file, the header being line 1."""

    line: int
    image: str
    split: str
    labels: tuple[str, ...]


def read_table(path: Path) -> tuple[Row, ...]:
    """Read labels.csv; a byte-order mark, Windows line ends and spaces around names do no harm.

    Raises:
        FileNotFoundError: If it or its folder is missing.
        ValueError: If it lacks a column or is not UTF-8, or if a row has too many cells, no image, an unknown split,
            or an image that an earlier row has.
    """
    reader = csv.DictReader(_lines(path), skipinitialspace=True)
    reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
    absent = [column for column in COLUMNS if column not in reader.fieldnames]
    if absent:
        raise ValueError(
            f"{path} lacks the column(s) {', '.join(absent)}; its first line has: {', '.join(reader.fieldnames)}. "
            f"Columns are separated by commas, labels by semicolons, such as: {EXAMPLE}"
        )
    rows = tuple(_row(path, reader.line_num, cells) for cells in reader)
    _check_unique(path, rows)
    return rows


def read_classes(path: Path) -> tuple[str, ...]:
    """Read classes.txt: one name a line, blank lines left out; raises ValueError if a name stands there twice."""
    names = [line.strip() for line in _lines(path) if line.strip()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path} lists {', '.join(twice)} more than once; every class needs one line.")
    return tuple(names)


def check_labels(rows: Sequence[Row], classes: Sequence[str]) -> None:
    """Raise ValueError for the first label that is not a class."""
    valid = set(classes)
    for row in rows:
        for label in row.labels:
            if label not in valid:
                raise ValueError(
                    f"Row {row.line} of labels.csv ({row.image}): unknown class '{label}'; valid are: "
                    f"{', '.join(classes)}. Correct the row or add the class to classes.txt."
                )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        what = "there is no such file" if path.parent.is_dir() else f"the folder {path.parent} does not exist"
        raise FileNotFoundError(
            f"Cannot read {path}: {what}. Set --data_root to the folder that holds labels.csv, such as: {EXAMPLE} "
            "(or a folder for each class, such as train/cat/1.jpg and val/cat/2.jpg)."
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}); save it as CSV in UTF-8.") from error


def _row(path: Path, line: int, cells: dict[str | None, str | None]) -> Row:
    if None in cells:
        raise ValueError(f"Row {line} of {path} has too many cells; several labels are separated by ';', not ','.")
    image, split, labels = ((cells[column] or "").strip() for column in COLUMNS)
    if not image:
        raise ValueError(f"Row {line} of {path} names no image; fill in the column 'image' or remove the row.")
    if split not in SPLITS:
        raise ValueError(f"Row {line} of {path} ({image}): unknown split '{split}'; valid are: {', '.join(SPLITS)}.")
    names = dict.fromkeys(label.strip() for label in labels.split(";") if label.strip())
    return Row(line, image.replace("\\", "/"), split, tuple(names))


def _check_unique(path: Path, rows: Sequence[Row]) -> None:
    first: dict[str, int] = {}
    for row in rows:
        if row.image in first:
            raise ValueError(
                f"{path} lists {row.image} in row {first[row.image]} and again in row {row.line}; "
                "an image needs one row with all its labels."
            )
        first[row.image] = row.line
