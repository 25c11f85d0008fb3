"""What figures read of the folder of an evaluation, and what they say where it is not there."""

import json
from pathlib import Path


class NoTable(ValueError):
    """A figure's table, or what it would have to hold for this figure, was never asked for."""


def result_file(folder: Path, name: str, table: str) -> Path:
    """The file `name`.csv of an evaluation.

    Args:
        folder: of the evaluation.
        name: of the file, without suffix.
        table: that writes it.

    Raises:
        NoTable: If it is not there; the message says how to make it.
    """
    file = Path(folder) / f"{name}.csv"
    if not file.is_file():
        raise NoTable(
            f"{folder} has no {file.name}; evaluate with --tables {table} and --output {folder} first, then draw again."
        )
    return file


def classifier_of(folder: Path, table: str) -> str:
    """The architecture that a table is about."""
    file = Path(folder) / f"{table}.json"
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["explanandum"])
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{file} does not say what classifier it is about; evaluate with --tables {table}.") from error
