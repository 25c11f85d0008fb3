"""What the report page reads: the CSV and JSON files of one evaluation folder, or of several to be compared.

Of each folder there are tables (`segmentation.csv`), how they were made (`segmentation.json`), scores of every image
(`segmentation_per_image.csv`), pictures (`gallery_tiles.csv`) and `environment.txt`.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from explainer.report.tables import Row, read_table

PER_IMAGE = "_per_image"
TILES = "_tiles"
CURVES = "_curves"
RUN = "run"
"""The column that tells several evaluations apart."""


@dataclass(frozen=True)
class Result:
    """One evaluation folder.

    Args:
        folder: that evaluate.py wrote.
        name: that tells it from the others on the page.
    """

    folder: Path
    name: str
    _read: dict[str, list[Row]] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def stems(self) -> tuple[str, ...]:
        """Of all CSV files, sorted."""
        return tuple(sorted(file.stem for file in self.folder.glob("*.csv")))

    @property
    def shown(self) -> tuple[str, ...]:
        """Of the files that people read: neither scores of single images nor pictures."""
        return tuple(stem for stem in self.stems if not stem.endswith((PER_IMAGE, TILES)))

    def table(self, stem: str) -> list[Row]:
        """The rows of a CSV file, read once; none if there is no such file.

        Raises:
            ValueError: If it is damaged.
        """
        if stem not in self._read:
            file = self.folder / f"{stem}.csv"
            self._read[stem] = _with_numbers(read_table(file), file) if file.is_file() else []
        return self._read[stem]

    def facts(self, table: str) -> dict[str, Any]:
        """How a table was made; empty where nobody wrote it down.

        Raises:
            ValueError: If the file is damaged.
        """
        file = self.folder / f"{table}.json"
        if not file.is_file():
            return {}
        try:
            facts = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{file} is no valid JSON ({error}); make the table anew.") from error
        return facts if isinstance(facts, dict) else {}

    @cached_property
    def common_facts(self) -> dict[str, Any]:
        """What all tables have in common, such as data, split and classifier."""
        every = [facts for stem in self.shown if (facts := self.facts(stem))]
        return {
            name: value
            for name, value in (every[0] if every else {}).items()
            if name not in ("options", "command") and all(facts.get(name) == value for facts in every)
        }

    @cached_property
    def environment(self) -> list[tuple[str, str]]:
        """Versions, commit, command and hardware, by name."""
        file = self.folder / "environment.txt"
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        parts = [line.partition(":") for line in lines if line.strip()]
        return [(name.strip(), value.strip()) for name, _, value in parts]

    @cached_property
    def commands(self) -> dict[str, list[str]]:
        """The command lines that made the tables, each with their names; the last one where a table keeps none."""
        last = dict(self.environment).get("command", "")
        found: dict[str, list[str]] = {}
        for stem in self.shown:
            if facts := self.facts(stem):
                found.setdefault(str(facts.get("command") or last), []).append(stem)
        if not found and last:
            found[last] = [self.name]
        return {command: stems for command, stems in found.items() if command}


def _with_numbers(rows: list[Row], file: Path) -> list[Row]:
    """The rows, of which no bound of an interval may be a text."""
    names = rows[0] if rows else {}
    bounds = [f"{name}{end}" for name in names for end in ("_low", "_high") if f"{name}{end}" in names]
    for row in rows:
        for name in bounds:
            if isinstance(row[name], str):
                raise ValueError(f"{file} has '{row[name]}' in the column {name}, which is for numbers; make it anew.")
    return rows


def flattened(facts: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested facts as pairs of `name.option` and value."""
    if not isinstance(facts, dict):
        return [(name, str(facts))]
    before = f"{name}." if name else ""
    return [pair for key, value in facts.items() for pair in flattened(value, f"{before}{key}")]


def open_results(folders: Sequence[Path]) -> list[Result]:
    """The evaluation folders with names that tell them apart; for a run's folder its `evaluation` is taken.

    Raises:
        FileNotFoundError: If a folder is not there, or holds no table.
        ValueError: If a folder is named twice, or none is.
    """
    if not folders:
        raise ValueError("No folder of results; name at least one that evaluate.py wrote.")
    found = [_evaluation_in(folder).resolve() for folder in folders]
    twice = [str(folder) for folder in dict.fromkeys(found) if found.count(folder) > 1]
    if twice:
        raise ValueError(f"Named twice: {', '.join(twice)}; name each folder once.")
    return [Result(folder, name) for folder, name in zip(found, distinct_names(found), strict=True)]


def _evaluation_in(folder: Path) -> Path:
    for candidate in (folder, folder / "evaluation"):
        if any(candidate.glob("*.csv")) and not (candidate / "config.yaml").is_file():
            return candidate
    state = "holds no table (*.csv)" if folder.is_dir() else "is not there"
    raise FileNotFoundError(f"{folder} {state}; name a folder that evaluate.py wrote (its --output), or a run's.")


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that differ, without an `evaluation` that all of them end with."""
    parts = [folder.parts[:-1] if folder.name == "evaluation" else folder.parts for folder in folders]
    longest = max(map(len, parts))
    for length in range(1, longest + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]  # one is the other's `evaluation`


def merged(results: Sequence[Result], stem: str) -> list[Row]:
    """The rows of a table of all results; of several, the first column says whose they are."""
    if len(results) == 1:
        return results[0].table(stem)
    rows = [{RUN: one.name, **row} for one in results for row in one.table(stem)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name) for name in names} for row in rows]


def all_stems(results: Iterable[Result]) -> list[str]:
    """Of the readable tables of any of the results, sorted."""
    return sorted({stem for one in results for stem in one.shown})
