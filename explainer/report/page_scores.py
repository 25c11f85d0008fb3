"""What single images contribute to a measure, as the files `*_per_image.csv` have it.

Every measure is a mean over groups (classes, where the table takes one; else there is a single group) of a ratio of
sums over images, so that of the same images it is the number in the table.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from explainer.report.page_sections import BETTER, REFERENCES
from explainer.report.tables import Row

HIT = "hit"
OUTCOMES = {
    "tp": {"precision": (1.0, 1.0), "recall": (1.0, 1.0), "f_score": (2.0, 2.0)},
    "fp": {"precision": (0.0, 1.0), "recall": (0.0, 0.0), "f_score": (0.0, 1.0)},
    "fn": {"precision": (0.0, 0.0), "recall": (0.0, 1.0), "f_score": (0.0, 1.0)},
}
"""What a hit, a false alarm and a miss add above and below the line; an image that adds nothing is one nevertheless."""
FACTS = frozenset(("classifier", "method", "image", "target", "none"))
"""Columns of the masking table that are no class."""


class Part(NamedTuple):
    """What is added to a measure: `above` and `below` the line of the group's ratio."""

    group: str
    above: float
    below: float


Parts = dict[tuple[str, str], Part]
"""By image and class; the class is empty for what concerns the whole image."""


def scores_of(rows: Sequence[Row]) -> dict[tuple[str, str], Parts]:
    """The contributions by method and measure; rows that are no method's don't count.

    Where methods have rows for whole images, those for single classes don't count.
    """
    own = [row for row in rows if str(row["method"]) not in REFERENCES and not row.get("classifier")]
    whole = any("class" in row and row["class"] is None for row in own)
    found: dict[tuple[str, str], Parts] = {}
    for row in own:
        if whole and row["class"] is not None:
            continue
        label = "" if "outcome" in row else str(row.get("class") or row.get("target") or "")
        key = str(row["image"]), label
        for measure, part in _parts(row):
            of_measure = found.setdefault((str(row["method"]), measure), {})
            of_measure[key] = _added(of_measure[key], part) if key in of_measure else part
    return found


def _added(first: Part, second: Part) -> Part:
    return Part(first.group, first.above + second.above, first.below + second.below)


def _parts(row: Row) -> Iterator[tuple[str, Part]]:
    """What a row adds to which measures."""
    if "outcome" in row:
        yield from ((name, Part("", *sums)) for name, sums in OUTCOMES.get(str(row["outcome"]), {}).items())
    elif "target" in row:
        yield from _specificity(row)
    else:
        for name in BETTER.keys() & row.keys():
            if row[name] is None:
                continue
            if name == HIT:
                yield "hit_rate", Part(str(row.get("class")), float(row[name]), 1)
            yield "over_maps" if name == HIT else name, Part("", float(row[name]), 1)


def _specificity(row: Row) -> Iterator[tuple[str, Part]]:
    """The target's probability under its own mask, less the mean of those under other classes' masks."""
    target = str(row["target"])
    others = [value for name, value in row.items() if name not in FACTS and name != target]
    if others and None not in (row.get(target), *others):
        yield "specificity", Part(target, row[target] - sum(others) / len(others), 1)
