"""Rows of a result file by column and group, for whatever draws them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explainer.report.tables import Row, read_table

Numbers = NDArray[np.float64]


def read_rows(csv_file: Path, needed: list[str]) -> list[Row]:
    """The rows of a file that has these columns.

    Raises:
        ValueError: If a column is missing, or there are no rows.
    """
    rows = read_table(csv_file)
    if not rows:
        raise ValueError(f"{csv_file} has no rows; there is nothing to draw.")
    lacking = [name for name in needed if name not in rows[0]]
    if lacking:
        raise ValueError(f"{csv_file} lacks the columns {', '.join(lacking)}; it has {', '.join(rows[0])}.")
    return rows


def with_bounds(names: Iterable[str]) -> list[str]:
    """Each name, and those of its bounds."""
    return [column for name in names for column in (name, f"{name}_low", f"{name}_high")]


def measured(rows: list[Row]) -> list[str]:
    """The columns that have their bounds beside them."""
    return [name for name in rows[0] if {*with_bounds([name])} <= {*rows[0]}]


def groups(rows: list[Row], *names: str) -> dict[tuple[str, ...], list[Row]]:
    """The rows by what they have in these columns, in order of appearance."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(str(row[name]) for name in names), []).append(row)
    return found


def numbers(rows: list[Row], name: str) -> Numbers:
    """A column, NaN where a cell is empty."""
    return np.array([np.nan if row[name] is None else row[name] for row in rows], dtype=np.float64)


def top_of_scale(rows: list[Row], names: Iterable[str]) -> int:
    """What these columns may reach: 1, or 100 for percentages."""
    return 100 if any(np.nan_to_num(numbers(rows, name)).max() > 1 for name in names) else 1


def shown(value: Any, spec: str) -> str:
    """A number as `spec` has it, e.g. `.2f`; an empty cell as a dash, and a text as it is."""
    return "–" if value is None else format(value, spec) if isinstance(value, int | float) else str(value)


def plain(value: Any) -> str:
    """As it stands in the CSV; matplotlib would take what is between dollars for a formula."""
    return "–" if value is None else str(value).replace("$", r"\$")
