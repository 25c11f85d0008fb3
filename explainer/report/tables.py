"""A table as CSV (the truth), JSON and Markdown."""

import csv
import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def write_table(rows: list[Row], file: Path) -> None:
    """Write `file`.csv, .json and .md.

    Args:
        rows: equal keys, in the order of the columns.
        file: path without suffix; its folder is created.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".csv").open("w", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows([{name: _shown(value, 4) for name, value in row.items()} for row in rows])
    file.with_suffix(".json").write_text(json.dumps(rows, indent=1))
    file.with_suffix(".md").write_text(markdown(rows))


def markdown(rows: list[Row]) -> str:
    """A GitHub table, numbers with two decimals and right-aligned."""
    columns = list(rows[0])
    lines = [columns, ["---" if isinstance(rows[0][name], str) else "---:" for name in columns]]
    lines += [[_shown(row[name], 2) for name in columns] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _shown(value: Any, decimals: int) -> str:
    return f"{value:.{decimals}f}" if isinstance(value, float) else str(value)
