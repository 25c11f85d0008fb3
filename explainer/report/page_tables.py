"""Tables of the report page: what is shown of a CSV file, with its best numbers, and the summary of the best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from explainer.report.names import METHOD_COLUMNS, names_in
from explainer.report.page_data import RUN, Result, merged
from explainer.report.page_ranking import DIFFERENCES, GROUPS, Ranking, Tested, rankings, tested
from explainer.report.page_sections import BETTER
from explainer.report.tables import MISSING, Column, Row, shown_columns

MOST_ROWS = 2000
"""Of a table on the page; the CSV file, which is linked, has them all."""
BEST, TIED = "best", "tied"
NOT_TESTED = "not tested"
PARTS = {*GROUPS, "value", "rank", "depth", "fraction"} - {RUN}
"""Columns of tables whose rows are of several groups."""


Value = str | int | float | None


@dataclass(frozen=True)
class ShownCell:
    """A cell.

    Args:
        text: what is read; a method's name as the papers write it.
        interval: in brackets; empty where there is none.
        value: as the CSV has it, by which the table is sorted; None if it is empty.
        mark: whether it is the best of its group, or tied with the best.
    """

    text: str
    interval: str
    value: Value
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
        tested: whether paired differences say how sure the best is.
    """

    stem: str
    columns: list[ShownColumn]
    rows: list[list[ShownCell]]
    total: int
    marks: frozenset[str]
    tested: bool

    @property
    def bounded(self) -> bool:
        """Whether any number has its interval beside it."""
        return any(cell.interval for row in self.rows for cell in row)

    @property
    def several(self) -> bool:
        """Whether rows are of several runs."""
        return any(column.name == RUN for column in self.columns)


def shown_table(results: Sequence[Result], stem: str) -> ShownTable | None:
    """A table of one or more results, best numbers marked; None if it has no row."""
    rows = merged(results, stem)
    return table_of_rows(rows, stem, tested(results, stem)) if rows else None


def table_of_rows(rows: list[Row], stem: str, pairs: Tested | None = None) -> ShownTable:
    """Rows as a table; `pairs` are its paired differences."""
    pairs = pairs or Tested()
    better = {} if stem.endswith(DIFFERENCES) else BETTER
    shown = shown_columns(rows)
    marks = {column.name: _marks(rows, column, pairs) if column.name in better else {} for column in shown}
    columns = [ShownColumn(column.name, column.numeric, better.get(column.name, 0)) for column in shown]
    names = names_in(rows)
    cells = [
        [_cell(column, place, row[column.name], marks[column.name].get(place, ""), names) for column in shown]
        for place, row in enumerate(rows[:MOST_ROWS])
    ]
    present = frozenset(cell.mark for row in cells for cell in row if cell.mark)
    return ShownTable(stem, columns, cells, len(rows), present, bool(pairs))


def _cell(column: Column, place: int, value: Value, mark: str, names: Mapping[str, str]) -> ShownCell:
    text, interval = column.cells[place]
    if column.name in METHOD_COLUMNS:
        text = names.get(str(value), text)
    return ShownCell(text, interval, value, mark)


def _marks(rows: list[Row], column: Column, pairs: Tested) -> dict[int, str]:
    """The marks of a column, by row."""
    marks: dict[int, str] = {}
    for ranking in rankings(rows, column.name, pairs) if column.numeric else ():
        marks |= dict.fromkeys(ranking.best, BEST) | dict.fromkeys(ranking.tied, TIED)
    return marks


def leaders(results: Sequence[Result], stem: str) -> list[Row]:
    """For each run and measure of a main table its best row, and those that can't be told from it.

    None for a table whose rows are of several groups, such as classes.
    """
    rows = merged(results, stem)
    if not rows or "method" not in rows[0] or PARTS & rows[0].keys():
        return []
    pairs = tested(results, stem)
    return [
        _leader(rows, stem, column, ranking)
        for column in shown_columns(rows)
        if column.numeric
        for ranking in rankings(rows, column.name, pairs)
    ]


def _leader(rows: list[Row], stem: str, column: Column, ranking: Ranking) -> Row:
    first = ranking.best[0]
    cell = column.cells[first]
    return {
        **({RUN: rows[first][RUN]} if RUN in rows[first] else {}),
        **{"table": stem.replace("_", " "), "measure": column.name, "best": _names(rows, ranking.best)},
        "value": f"{cell.text} {cell.interval}".strip().replace(" ", "\N{NO-BREAK SPACE}"),
        "not told apart from": _doubts(rows, ranking),
    }


def _doubts(rows: list[Row], ranking: Ranking) -> str:
    """The rows that may be as good as the best: those that were tested, and those that were not."""
    tied, untested = _names(rows, ranking.tied), _names(rows, ranking.untested)
    if untested and not (ranking.tied or ranking.apart):
        return NOT_TESTED
    return "; ".join(filter(None, (tied, untested and f"{NOT_TESTED}: {untested}"))) or MISSING


def _names(rows: list[Row], places: list[int]) -> str:
    names = names_in(rows)
    return ", ".join(names.get(str(rows[place]["method"]), MISSING) for place in places)
