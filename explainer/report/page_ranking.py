"""Which row of a table is the best by a measure, which can't be told from it, and which nobody has compared with it.

Rows compete only within a group: a run, a class, an image. Whether two runs differ is another question, which
page_compare.py answers from the scores of single images.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from explainer.report.page_data import RUN, Result, merged
from explainer.report.page_sections import BETTER, REFERENCES
from explainer.report.tables import Row

GROUPS = (RUN, "classifier", "option", "mode", "class", "target", "image")
"""Columns that part rows which do not compete with each other."""
DIFFERENCES = "_differences"

_Key = tuple[tuple[str, ...], str, frozenset[str]]
"""What two rows have in common, the measure, and their names."""


class Tested:
    """What is known of pairs of rows: whether their paired difference has an interval with 0 in it.

    Args:
        rows: of a table's differences: `other`, `measure`, `difference_low` and `difference_high`, and `method`, or
            `value` in an ablation, where the values of an option compete.
    """

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._tied: dict[_Key, bool] = {}
        for row in rows:
            low, high = row["difference_low"], row["difference_high"]
            if low is not None and high is not None:
                self._tied[_key(row, row["other"], row["measure"])] = low <= 0 <= high

    def __len__(self) -> int:
        """How many pairs were tested."""
        return len(self._tied)

    def tied(self, first: Row, second: Row, measure: str) -> bool | None:
        """Whether two rows of a table can't be told apart; None if nobody has tested it."""
        return self._tied.get(_key(first, second[_rival(second)], measure))


def tested(results: Sequence[Result], stem: str) -> Tested:
    """The pairs of a main table, or of the masking table's summary, which its differences are of."""
    rows = merged(results, f"{stem.removesuffix('_specificity')}{DIFFERENCES}")
    needed = {"method", "other", "measure", "difference_low", "difference_high"}
    return Tested(rows if rows and needed <= rows[0].keys() else ())


@dataclass(frozen=True)
class Ranking:
    """A measure's rows of one group, by their places in the table.

    Args:
        best: those with the best number.
        tied: those that can't be told from it.
        apart: those that can.
        untested: those that nobody has compared with it.
    """

    best: list[int]
    tied: list[int]
    apart: list[int]
    untested: list[int]


def rankings(rows: Sequence[Row], measure: str, pairs: Tested) -> Iterator[Ranking]:
    """One for each group with at least two numbers; none for a measure of which nobody knows which way is better."""
    direction = BETTER.get(measure, 0)
    for places in _groups(rows).values() if direction else ():
        values = {place: rows[place][measure] for place in places if rows[place][measure] is not None}
        if len(values) < 2:
            continue
        most = max(direction * value for value in values.values())
        best = [place for place, value in values.items() if direction * value == most]
        found = {
            place: _verdict([pairs.tied(rows[place], rows[winner], measure) for winner in best])
            for place in values
            if place not in best
        }
        yield Ranking(best, *([place for place in found if found[place] is one] for one in (True, False, None)))


def _verdict(against: list[bool | None]) -> bool | None:
    """Whether a row is tied with any of the best; None if it was compared with none of them."""
    return True if any(against) else False if False in against else None


def _groups(rows: Sequence[Row]) -> dict[tuple[str, ...], list[int]]:
    """The rows that compete with each other, by what they have in common; references compete with none."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, row in enumerate(rows):
        if str(row.get("method")) not in REFERENCES:
            groups.setdefault(_common(row), []).append(place)
    return groups


def _common(row: Row) -> tuple[str, ...]:
    """In an ablation (column `value`) the values of an option compete, methods don't."""
    names = (*GROUPS, *(["method"] if _rival(row) == "value" else []))
    return tuple("" if row.get(name) is None else str(row[name]) for name in names)


def _rival(row: Row) -> str:
    """The column by which rows are told apart."""
    return "value" if "value" in row else "method"


def _key(row: Row, other: object, measure: object) -> _Key:
    return _common(row), str(measure), frozenset((str(row.get(_rival(row))), str(other)))
