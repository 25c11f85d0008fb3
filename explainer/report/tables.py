"""A table as CSV (the truth), and Markdown and LaTeX made from the CSV.

A column `x` with `x_low` and `x_high` beside it is a value with its interval; for readers the three become one.
"""

import csv
import io
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, TextIO

from explainer.files import write_whole

Row = dict[str, Any]

MISSING = "–"
INTEGER = re.compile(r"-?(0|[1-9]\d*)")
NUMBER = re.compile(r"-?((0|[1-9]\d*)(\.\d+)?(e[+-]?\d+)?|inf)")
"""As this file writes them; "007" and "2007_000033" are names."""
TINY = 1e-3
"""A column whose typical number is smaller is shown with exponents: four decimals would leave one digit."""
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # a row that starts with a plain one would be taken for the length after \\
    **{character: f"\\{character}" for character in "_&%#{}$"},
}


def write_table(rows: list[Row], file: Path) -> None:
    """Write `file`.csv, and `file`.md and `file`.tex made from it; each is written whole or not at all.

    In the CSV floats have 6 significant digits, so that a whole one reads as an integer; None and NaN are empty cells.

    Args:
        rows: equal keys; the first row's order is that of the columns.
        file: path without suffix; its folder is created.

    Raises:
        ValueError: If there are no rows, or their keys differ.
    """
    table = write_csv(rows, file)
    write_whole(_beside(file, "md"), markdown(read_table(table)))
    write_whole(_beside(file, "tex"), latex(read_table(table)))


def write_csv(rows: list[Row], file: Path) -> Path:
    """Write `file`.csv alone, for what nobody reads as a table; arguments and errors as for `write_table`."""
    _check(rows)
    table = _beside(file, "csv")
    write_whole(table, _csv(rows))
    return table


@contextmanager
def reading(csv_file: Path) -> Iterator[TextIO]:
    """A CSV file, opened.

    Raises:
        ValueError: If what is in it is no text, or no CSV.
    """
    try:
        with csv_file.open(newline="", encoding="utf-8") as opened:
            yield opened
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{csv_file} is damaged ({error}); make it anew.") from error


def read_table(csv_file: Path) -> list[Row]:
    """The rows of a CSV file: integers and floats as such, empty cells as None, anything else as text.

    Raises:
        ValueError: If the file is damaged, has no header, or a row has more or fewer cells than it.
    """
    with reading(csv_file) as opened:
        header, *lines = list(csv.reader(opened)) or [[]]
    if not header:
        raise ValueError(f"{csv_file} is empty; expected a CSV table with a header line.")
    for number, line in enumerate(lines, start=1):
        if len(line) != len(header):
            raise ValueError(
                f"Row {number} of {csv_file} has {len(line)} cells, its header {len(header)}; the file is damaged, "
                "make it anew."
            )
    return [dict(zip(header, map(_parsed, line), strict=True)) for line in lines]


def markdown(rows: list[Row]) -> str:
    """A GitHub table: text left-aligned, numbers right-aligned, intervals as `61.74 [60.10, 63.20]`.

    Args:
        rows: as for `write_table`; it shows the same, whether they come from there or from the CSV.

    Raises:
        ValueError: If there are no rows, or their keys differ.
    """
    columns = shown_columns(rows)
    lines = [[_markdown_text(column.name) for column in columns]]
    lines.append(["---:" if column.numeric else "---" for column in columns])
    for cells in zip(*(column.cells for column in columns), strict=True):
        lines.append([f"{_markdown_text(cell.text)} {cell.interval}".strip() for cell in cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex(rows: list[Row]) -> str:
    """A whole `tabular` with the rules of the package booktabs, intervals in smaller print.

    Args:
        rows: as for `markdown`.

    Raises:
        ValueError: If there are no rows, or their keys differ.
    """
    columns = shown_columns(rows)
    lines = [" & ".join(_latex_text(column.name) for column in columns), r"\midrule"]
    for cells in zip(*(column.cells for column in columns), strict=True):
        pairs = zip(cells, columns, strict=True)
        lines.append(
            " & ".join(_latex_number(cell) if column.numeric else _latex_text(cell.text) for cell, column in pairs)
        )
    body = "\n".join(line if line.startswith(r"\midrule") else rf"{line} \\" for line in lines)
    alignment = "".join("r" if column.numeric else "l" for column in columns)
    return (
        "% Needs \\usepackage{booktabs} in the preamble.\n"
        f"\\begin{{tabular}}{{{alignment}}}\n\\toprule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"
    )


class Cell(NamedTuple):
    """What is shown: `interval` is empty where there is none."""

    text: str
    interval: str = ""


class Column(NamedTuple):
    """A column as readers see it: numbers if `numeric`, and a cell for each row."""

    name: str
    numeric: bool
    cells: list[Cell]


def shown_columns(rows: list[Row]) -> list[Column]:
    """What is shown of the rows as the CSV would hold them, bounds folded into their values.

    Args:
        rows: as for `markdown`.

    Raises:
        ValueError: If there are no rows, or their keys differ.
    """
    _check(rows)
    rows = [{name: _parsed(_written(value)) for name, value in row.items()} for row in rows]
    names = list(rows[0])
    folded = {name: (f"{name}_low", f"{name}_high") for name in names if {f"{name}_low", f"{name}_high"} <= {*names}}
    bounds = {bound for pair in folded.values() for bound in pair}
    return [_column(name, rows, folded.get(name)) for name in names if name not in bounds]


def _column(name: str, rows: list[Row], bounds: tuple[str, str] | None) -> Column:
    values = [row[name] for row in rows]
    if any(isinstance(value, str) for value in values):
        return Column(name, False, [Cell(MISSING if value is None else _written(value)) for value in values])
    decimals = _decimals([row[part] for row in rows for part in (name, *(bounds or ()))])
    cells = []
    for row, value in zip(rows, values, strict=True):
        low, high = (row[bound] for bound in bounds) if bounds else (None, None)
        if value is None or low is None or high is None:
            cells.append(Cell(_number(value, decimals)))
        else:
            cells.append(Cell(_number(value, decimals), f"[{_bound(low, decimals)}, {_bound(high, decimals)}]"))
    return Column(name, True, cells)


def _decimals(values: list[int | float | None]) -> int | None:
    """So many that the typical number shows three or four digits; None for exponents, 0 for integers."""
    numbers = [abs(value) for value in values if value is not None and math.isfinite(value)]
    if all(isinstance(number, int) for number in numbers):
        return 0
    typical = median(number for number in numbers if number)
    if typical < TINY:
        return None
    magnitude = math.floor(math.log10(typical))
    return min(max((3 if magnitude > 0 else 2) - magnitude, 0), 4)


def _number(value: int | float | None, decimals: int | None) -> str:
    """With so many decimals, but two digits instead of nothing but zeros: what isn't zero must not look like it."""
    if value is None:
        return MISSING
    lost = decimals is not None and value and not round(value, decimals)
    return f"{value:.2g}" if lost else _bound(value, decimals)


def _bound(value: float, decimals: int | None) -> str:
    if decimals is None:
        return f"{value:.1e}" if value else "0"
    return f"{value if math.isinf(value) else round(value, decimals) + 0:.{decimals}f}"  # + 0 makes -0.0 positive


def _check(rows: list[Row]) -> None:
    if not rows:
        raise ValueError("The table has no rows; give at least one, its keys are the columns.")
    for number, row in enumerate(rows, start=1):
        lacking, surplus = ([*first.keys() - second.keys()] for first, second in ((rows[0], row), (row, rows[0])))
        if lacking or surplus:
            found = [f"lacks {', '.join(sorted(lacking))}"] if lacking else []
            found += [f"has {', '.join(sorted(surplus))} besides"] if surplus else []
            raise ValueError(
                f"Row {number} {' and '.join(found)}, compared with row 1; give every row the same columns, "
                "None where it has no value."
            )


def _csv(rows: list[Row]) -> str:
    opened = io.StringIO()
    writer = csv.DictWriter(opened, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows([{name: _written(value) for name, value in row.items()} for row in rows])
    return opened.getvalue()


def _written(value: Any) -> str:
    """The value as a cell of the CSV."""
    if value is None:
        return ""
    if isinstance(value, Real) and not isinstance(value, Integral):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)


def _parsed(cell: str) -> str | int | float | None:
    if INTEGER.fullmatch(cell):
        return int(cell)
    return float(cell) if NUMBER.fullmatch(cell) else cell or None


def _markdown_text(text: str) -> str:
    """On one line, with pipes escaped unless they already are."""
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(text.split()))


def _latex_text(text: str) -> str:
    if text == MISSING:
        return "--"
    return "".join(LATEX.get(character, character) for character in " ".join(text.split()))


def _latex_number(cell: Cell) -> str:
    """With minus signs instead of hyphens and exponents as powers of ten."""
    text = f"{cell.text} {{\\scriptsize {cell.interval}}}" if cell.interval else cell.text
    if text == MISSING:
        return "--"
    text = re.sub(r"(-?[\d.]+)e([+-]\d+)", lambda found: f"${found[1]} \\cdot 10^{{{int(found[2])}}}$", text)
    text = re.sub(r"(?<![\w{$])-", "$-$", text)
    return text.replace("inf", r"$\infty$")


def _beside(file: Path, suffix: str) -> Path:
    """Not `with_suffix`, which would cut "vgg16_v1.5" short."""
    return file.with_name(f"{file.name}.{suffix}")
