"""Tables of the report page: what is shown of a CSV file, which number is the best, and which can't be told from it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from explainer.report.page_data import RUN, Result, merged
from explainer.report.page_sections import BETTER, REFERENCES
from explainer.report.tables import Cell, Column, Row, shown_columns

MOST_ROWS = 2000
"""Of a table on the page; the CSV file, which is linked, has them all."""
GROUPS = ("classifier", "option", "mode", "class", "target", "image")
"""Columns that part rows which do not compete with each other."""
BEST, TIED = "best", "tied"
DIFFERENCES = "_differences"
DIFFERENCE_COLUMNS = {"method", "other", "measure", "difference", "difference_low", "difference_high", "images"}


@dataclass(frozen=True)
class ShownCell:
    """A cell.

    Args:
        text: what is read.
        interval: in brackets; empty where there is none.
        value: as the CSV has it, by which the table is sorted; None if it is empty.
        mark: whether it is the best of its group, or tied with the best.
    """

    text: str
    interval: str
    value: str | int | float | None
    mark: str = ""


@dataclass(frozen=True)
class ShownColumn:
    """A heading: which way is better is 1 (up), -1 (down) or 0 (neither)."""

    name: str
    numeric: bool
    better: int


@dataclass(frozen=True)
class ShownTable:
    """A table of the page.

    Args:
        stem: of its CSV file.
        columns: headings.
        rows: cells, `MOST_ROWS` at most.
        total: rows of the CSV file.
        marks: which marks there are.
    """

    stem: str
    columns: list[ShownColumn]
    rows: list[list[ShownCell]]
    total: int
    marks: frozenset[str]


def shown_table(results: Sequence[Result], stem: str) -> ShownTable | None:
    """A table of one or more results, best numbers marked; None if it has no row."""
    rows = merged(results, stem)
    return table_of_rows(rows, stem, _ties(results, stem)) if rows else None


def table_of_rows(rows: list[Row], stem: str, ties: "Ties | None" = None) -> ShownTable:
    """Rows as a table."""
    better = {} if stem.endswith(DIFFERENCES) else BETTER
    shown = shown_columns(rows)
    marks = {column.name: _marks(rows, column, better, ties or Ties()) for column in shown}
    columns = [ShownColumn(column.name, column.numeric, better.get(column.name, 0)) for column in shown]
    cells = [
        [_cell(column.cells[place], row[column.name], marks[column.name].get(place, "")) for column in shown]
        for place, row in enumerate(rows[:MOST_ROWS])
    ]
    present = frozenset(cell.mark for row in cells for cell in row if cell.mark)
    return ShownTable(stem, columns, cells, len(rows), present)


def _cell(cell: Cell, value: str | int | float | None, mark: str) -> ShownCell:
    return ShownCell(cell.text, cell.interval, value, mark)


def leaders(results: Sequence[Result], stem: str) -> list[Row]:
    """For each measure of a main table its best row, and those that can't be told from it.

    None for a table whose rows are of several groups, such as classes.
    """
    rows = merged(results, stem)
    if not rows or set(rows[0]) & {*GROUPS, "value", "rank", "depth", "fraction"}:
        return []
    found = []
    for column in shown_columns(rows):
        marks = _marks(rows, column, BETTER, _ties(results, stem))
        places = {kind: [place for place in marks if marks[place] == kind] for kind in (BEST, TIED)}
        if places[BEST]:
            first = places[BEST][0]
            found.append(
                {
                    **{"table": stem.replace("_", " "), "measure": column.name},
                    "best": _names(rows, places[BEST]),
                    "value": f"{column.cells[first].text} {column.cells[first].interval}".strip(),
                    "not told apart from": _names(rows, places[TIED]) or None,
                }
            )
    return found


def _names(rows: list[Row], places: list[int]) -> str:
    return ", ".join(
        " · ".join(str(rows[place][name]) for name in (RUN, "method") if name in rows[0]) for place in places
    )


class Ties:
    """Pairs of methods whose paired difference has an interval with 0 in it.

    Args:
        differences: the rows of a table's differences by run; empty where there are none.
    """

    def __init__(self, differences: Mapping[str, Iterable[Row]] | None = None) -> None:
        self._pairs: set[tuple[str, str, frozenset[str]]] = set()
        for run, rows in (differences or {}).items():
            self._pairs |= {_pair(run, row) for row in rows if _holds_zero(row)}

    def __contains__(self, one: tuple[Row, Row, str]) -> bool:
        """Whether two rows are tied in a measure; never if they are of different runs."""
        first, second, measure = one
        if first.get(RUN) != second.get(RUN):
            return False
        names = frozenset((str(first.get("method")), str(second.get("method"))))
        return (str(first.get(RUN, "")), measure, names) in self._pairs


def _pair(run: str, row: Row) -> tuple[str, str, frozenset[str]]:
    return run, str(row["measure"]), frozenset((str(row["method"]), str(row["other"])))


def _holds_zero(row: Row) -> bool:
    low, high = row["difference_low"], row["difference_high"]
    return low is not None and high is not None and low <= 0 <= high


def _ties(results: Sequence[Result], stem: str) -> Ties:
    """Of a main table, or of the masking table's summary, which its differences are of."""
    name = f"{stem.removesuffix('_specificity')}{DIFFERENCES}"
    several = len(results) > 1
    tables = {one.name if several else "": one.table(name) for one in results}
    return Ties({run: rows for run, rows in tables.items() if rows and rows[0].keys() == DIFFERENCE_COLUMNS})


def _marks(rows: list[Row], column: Column, better: Mapping[str, int], ties: Ties) -> dict[int, str]:
    """The marks of a column, by row."""
    direction = better.get(column.name, 0)
    if not direction or not column.numeric:
        return {}
    marks: dict[int, str] = {}
    for places in _groups(rows).values():
        values = {place: rows[place][column.name] for place in places if rows[place][column.name] is not None}
        if len(values) < 2:
            continue
        best = max(values.values(), key=lambda value: direction * value)
        winners = [place for place, value in values.items() if value == best]
        marks |= dict.fromkeys(winners, BEST)
        tied = (
            place
            for place in values.keys() - set(winners)
            if any((rows[place], rows[winner], column.name) in ties for winner in winners)
        )
        marks |= dict.fromkeys(tied, TIED)
    return marks


def _groups(rows: list[Row]) -> dict[tuple[str, ...], list[int]]:
    """The rows that compete with each other, by what they have in common; references compete with none.

    In an ablation (column `value`) the values of an option compete, methods don't.
    """
    names = [name for name in (*GROUPS, *(["method"] if "value" in rows[0] else [])) if name in rows[0]]
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, row in enumerate(rows):
        if str(row.get("method")) not in REFERENCES:
            groups.setdefault(tuple(str(row[name]) for name in names), []).append(place)
    return groups
