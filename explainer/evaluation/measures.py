"""From scores per image to numbers with 95 % bootstrap intervals, and to paired differences of methods.

Every measure is a function of sums over images, so that a method's number, its interval and the difference of two
methods on the same images all come from the same resampling of images. N images, K sums, D draws, M measures.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from explainer.evaluation.records import MethodScores, Row
from explainer.metrics.bootstrap import Array, Interval, Statistic, bootstrap, ratios

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Measure:
    """A number about a method.

    Args:
        name: of its column.
        width: K.
        sums: an image's rows -> its contribution [K] to the totals; zeros if it has none.
        statistic: totals [D,K] -> [D].
        may_lack: whether an image whose sums are all zero has no value, rather than one that adds nothing (as an
            image without a true or false decision). It then has no part in a difference of two methods, and a number
            that rests on fewer than two images has no interval.
    """

    name: str
    width: int
    sums: Callable[[list[Row]], Sequence[float]]
    statistic: Statistic
    may_lack: bool = False


def mean_of(column: str, scale: float = 1.0, of: Callable[[Row], bool] = lambda row: True, name: str = "") -> Measure:
    """The mean of a column over rows.

    Args:
        column: of the rows; missing values (None) don't count.
        scale: 100 for percent.
        of: which rows count.
        name: the column's if not given.
    """

    def sums(rows: list[Row]) -> Sequence[float]:
        values = [row[column] for row in rows if of(row) and row.get(column) is not None]
        return (scale * sum(values), len(values))

    return Measure(name or column, 2, sums, lambda totals: ratios(totals)[:, 0], may_lack=True)


def measured(scores: MethodScores, measures: Sequence[Measure]) -> dict[str, float | int | None]:
    """Columns `name`, `name_low` and `name_high` of each measure; None where there is nothing to compute it from."""
    if not scores.rows:
        return {column: None for measure in measures for column in columns_of(measure.name)}
    table = _table(scores.rows.values(), measures)
    return _columns(measures, bootstrap(_joined(measures), table), _has_value(table, measures))


def columns_of(name: str) -> tuple[str, str, str]:
    """Value, lower and upper bound."""
    return name, f"{name}_low", f"{name}_high"


def _columns(measures: Sequence[Measure], interval: Interval, has_value: Flags) -> dict[str, float | int | None]:
    found: dict[str, float | int | None] = {}
    several = has_value.sum(axis=0) > 1
    bounds = [np.where(several, bound, np.nan) for bound in (interval.low, interval.high)]
    for index, measure in enumerate(measures):
        for column, values in zip(columns_of(measure.name), (interval.value, *bounds), strict=True):
            found[column] = None if np.isnan(values[index]) else float(values[index])
    return found


def summary(scores: Sequence[MethodScores], measures: Sequence[Measure]) -> list[Row]:
    """One row a method: its measures, the number of images they rest on, and the number it failed on."""
    return [
        {"method": one.method, **measured(one, measures), "images": len(one.rows), "failed": len(one.failed)}
        for one in scores
    ]


def differences(scores: Sequence[MethodScores], measures: Sequence[Measure]) -> list[Row]:
    """One row for each two methods and measure: first minus second on the images that both have a value for.

    An interval without 0 says that the two differ. Two methods without a common image have no row.
    """
    return [
        row
        for first, second in combinations(scores, 2)
        if first.rows.keys() & second.rows.keys()
        for row in _compared(first, second, measures)
    ]


def _compared(first: MethodScores, second: MethodScores, measures: Sequence[Measure]) -> list[Row]:
    """The rows of two methods that share images."""
    common = [image for image in first.rows if image in second.rows]
    tables = [_table([one.rows[image] for image in common], measures) for one in (first, second)]
    both = _has_value(tables[0], measures) & _has_value(tables[1], measures)
    counts = np.repeat(both, [measure.width for measure in measures], axis=1)
    interval = bootstrap(_difference(_joined(measures)), np.concatenate([table * counts for table in tables], axis=1))
    found = _columns(measures, interval, both)
    return [
        {
            "method": first.method,
            "other": second.method,
            "measure": measure.name,
            **dict(zip(columns_of("difference"), (found[name] for name in columns_of(measure.name)), strict=True)),
            "images": int(images),
        }
        for measure, images in zip(measures, both.sum(axis=0), strict=True)
    ]


def _table(images: Iterable[list[Row]], measures: Sequence[Measure]) -> Array:
    """[N, sum of K]."""
    return np.array([[value for measure in measures for value in measure.sums(rows)] for rows in images], float)


def _has_value(table: Array, measures: Sequence[Measure]) -> Flags:
    """Whether an image has a value of a measure, bool [N,M]."""
    parts = np.split(table, _edges(measures), axis=1)
    found = [part.any(axis=1) | (not one.may_lack) for one, part in zip(measures, parts, strict=True)]
    return np.stack(found, axis=1)


def _edges(measures: Sequence[Measure]) -> NDArray[np.int64]:
    """Where one measure's columns end and the next one's begin."""
    return np.cumsum([measure.width for measure in measures])[:-1]


def _joined(measures: Sequence[Measure]) -> Statistic:
    """All measures at once, [D, sum of K] -> [D,M]."""

    def statistic(totals: Array) -> Array:
        parts = np.split(totals, _edges(measures), axis=1)
        return np.stack([one.statistic(part) for one, part in zip(measures, parts, strict=True)], axis=1)

    return statistic


def _difference(statistic: Statistic) -> Statistic:
    def of_both(totals: Array) -> Array:
        first, second = np.split(totals, 2, axis=1)
        return statistic(first) - statistic(second)

    return of_both
