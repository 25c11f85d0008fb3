"""From scores per image to numbers with 95 % bootstrap intervals, and to paired differences of methods.

Every measure is a function of sums over images, so that a method's number, its interval and the difference of two
methods on the same images all come from the same resampling of images. N images, K sums, D draws, M measures.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from explainer.evaluation.records import MethodScores, Row
from explainer.metrics.bootstrap import Array, Interval, Statistic, bootstrap, ratios


@dataclass(frozen=True)
class Measure:
    """A number about a method.

    Args:
        name: of its column.
        width: K.
        sums: an image's rows -> its contribution [K] to the totals; zeros if it has none.
        statistic: totals [D,K] -> [D].
    """

    name: str
    width: int
    sums: Callable[[list[Row]], Sequence[float]]
    statistic: Statistic


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

    return Measure(name or column, 2, sums, lambda totals: ratios(totals)[:, 0])


def measured(scores: MethodScores, measures: Sequence[Measure]) -> dict[str, float | int | None]:
    """Columns `name`, `name_low` and `name_high` of each measure; None where there is nothing to compute it from."""
    if not scores.rows:
        return {column: None for measure in measures for column in columns_of(measure.name)}
    interval = bootstrap(_joined(measures), _table(scores.rows.values(), measures))
    return _columns([measure.name for measure in measures], interval)


def columns_of(name: str) -> tuple[str, str, str]:
    """Value, lower and upper bound."""
    return name, f"{name}_low", f"{name}_high"


def _columns(names: Sequence[str], interval: Interval) -> dict[str, float | int | None]:
    found: dict[str, float | int | None] = {}
    for index, name in enumerate(names):
        for column, values in zip(columns_of(name), (interval.value, interval.low, interval.high), strict=True):
            found[column] = None if np.isnan(values[index]) else float(values[index])
    return found


def summary(scores: Sequence[MethodScores], measures: Sequence[Measure]) -> list[Row]:
    """One row a method: its measures, the number of images they rest on, and the number it failed on."""
    return [
        {"method": one.method, **measured(one, measures), "images": len(one.rows), "failed": len(one.failed)}
        for one in scores
    ]


def differences(scores: Sequence[MethodScores], measures: Sequence[Measure]) -> list[Row]:
    """One row for each two methods and measure: first minus second on the images that both have scores for.

    An interval without 0 says that the two differ.
    """
    rows: list[Row] = []
    for first, second in combinations(scores, 2):
        common = [image for image in first.rows if image in second.rows]
        if not common:
            continue
        tables = [_table([one.rows[image] for image in common], measures) for one in (first, second)]
        interval = bootstrap(_difference(_joined(measures)), np.concatenate(tables, axis=1))
        found = _columns([measure.name for measure in measures], interval)
        rows += [
            {
                "method": first.method,
                "other": second.method,
                "measure": measure.name,
                **dict(zip(columns_of("difference"), (found[name] for name in columns_of(measure.name)), strict=True)),
                "images": len(common),
            }
            for measure in measures
        ]
    return rows


def _table(images: Iterable[list[Row]], measures: Sequence[Measure]) -> Array:
    """[N, sum of K]."""
    return np.array([[value for measure in measures for value in measure.sums(rows)] for rows in images], float)


def _joined(measures: Sequence[Measure]) -> Statistic:
    """All measures at once, [D, sum of K] -> [D,M]."""
    edges = np.cumsum([measure.width for measure in measures])[:-1]

    def statistic(totals: Array) -> Array:
        parts = np.split(totals, edges, axis=1)
        return np.stack([one.statistic(part) for one, part in zip(measures, parts, strict=True)], axis=1)

    return statistic


def _difference(statistic: Statistic) -> Statistic:
    def of_both(totals: Array) -> Array:
        first, second = np.split(totals, 2, axis=1)
        return statistic(first) - statistic(second)

    return of_both
