"""From scores per image to numbers with 95 % bootstrap intervals, and to paired differences of methods.

Every measure is a function of sums over images, so that a method's number, its interval and the difference of two
methods on the same images all come from the same resampling of images. N images, K sums, D draws, M measures, B blocks
of sums.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from explainer.bootstrap import Interval, interval_of
from explainer.evaluation.records import MethodScores, Row
from explainer.resampling import Array, Resamples, SparseSums, Statistic, ratios, resampled

Flags = NDArray[np.bool_]
Sums = Callable[[list[Row]], Sequence[float] | Mapping[int, float]]


@dataclass(frozen=True)
class Measure:
    """A number about a method.

    Args:
        name: of its column.
        width: K.
        sums: an image's rows -> its contribution [K] to the totals, or, where few are not zero, those by their place;
            zeros if it has none. Measures with one and the same function share their sums.
        statistic: totals [D,K] -> [D].
        may_lack: whether an image whose sums are all zero has no value, rather than one that adds nothing (as an
            image without a true or false decision). It then has no part in a difference of two methods, and a number
            that rests on fewer than two images has no interval.
    """

    name: str
    width: int
    sums: Sums
    statistic: Statistic
    may_lack: bool = False


def mean_of(column: str, scale: float = 1.0, of: Callable[[Row], bool] = lambda row: True, name: str = "") -> Measure:
    """The mean of a column over rows.

    Args:
        column: of the rows; missing values (None or NaN) don't count.
        scale: 100 for percent.
        of: which rows count.
        name: the column's if not given.

    Raises:
        ValueError: by its sums, for an infinite value, of which there is no mean.
    """

    def sums(rows: list[Row]) -> Sequence[float]:
        found = [row[column] for row in rows if of(row) and row.get(column) is not None]
        values = [value for value in found if not math.isnan(value)]
        if any(math.isinf(value) for value in values):
            raise ValueError(f"The column '{column}' holds an infinite value; give None where there is no score.")
        return (scale * sum(values), len(values))

    return Measure(name or column, 2, sums, lambda totals: ratios(totals)[:, 0], may_lack=True)


def measured(scores: MethodScores, measures: Sequence[Measure]) -> dict[str, float | int | None]:
    """Columns `name`, `name_low` and `name_high` of each measure; None where there is nothing to compute it from."""
    if not scores.rows:
        return {column: None for measure in measures for column in columns_of(measure.name)}
    blocks = _Blocks(measures)
    one = _Contributions(scores, blocks)
    counted = one.has_value(scores.rows)
    return _columns(measures, blocks.interval(one.resampled(tuple(scores.rows), counted), counted))


def columns_of(name: str) -> tuple[str, str, str]:
    """Value, lower and upper bound."""
    return name, f"{name}_low", f"{name}_high"


def _columns(measures: Sequence[Measure], interval: Interval) -> dict[str, float | int | None]:
    return {
        column: None if np.isnan(values[index]) else float(values[index])
        for index, measure in enumerate(measures)
        for column, values in zip(columns_of(measure.name), interval[:3], strict=True)
    }


def summary(scores: Sequence[MethodScores], measures: Sequence[Measure]) -> list[Row]:
    """One row a method: its measures, the number of images they rest on, and the number it failed on."""
    return [
        {"method": one.method, **measured(one, measures), "images": len(one.rows), "failed": len(one.failed)}
        for one in scores
    ]


def differences(scores: Sequence[MethodScores], measures: Sequence[Measure]) -> list[Row]:
    """One row for each two methods and measure: first minus second on the images that both have a value for.

    An interval without 0 says that the two differ. Nothing is corrected for the number of pairs: of the 66 of 12
    methods about three lack the 0 in each measure though the methods do not differ (at 95 %, one in twenty). Two
    methods without a common image have no row.
    """
    blocks = _Blocks(measures)
    every = [_Contributions(one, blocks) for one in scores]
    return [row for first, second in combinations(every, 2) for row in _compared(first, second)]


class _Blocks:
    """Where the sums of several measures stand side by side, those with the same function once.

    Args:
        measures: M.

    Attributes:
        first: a measure of each block.
        of: block of each measure, long [M].
        ends: the column behind each block, long [B].
    """

    def __init__(self, measures: Sequence[Measure]) -> None:
        self.measures = measures
        blocks: dict[tuple[Sums, bool], Measure] = {}
        for one in measures:
            blocks.setdefault((one.sums, one.may_lack), one)
        places = {key: place for place, key in enumerate(blocks)}
        self.first = list(blocks.values())
        self.of = np.array([places[one.sums, one.may_lack] for one in measures], np.int64)
        self.ends = np.cumsum([one.width for one in self.first])

    def sums(self, images: Collection[list[Row]]) -> SparseSums:
        """What each image contributes, without zeros."""
        starts = [end - one.width for end, one in zip(self.ends.tolist(), self.first, strict=True)]
        entries: list[tuple[int, int, float]] = []
        for image, rows in enumerate(images):
            for start, one in zip(starts, self.first, strict=True):
                found = one.sums(rows)
                pairs = found.items() if isinstance(found, Mapping) else enumerate(found)
                entries += [(image, start + place, value) for place, value in pairs if value]
        table = np.array(entries, np.float64).reshape(-1, 3)
        places = table[:, :2].astype(np.int64)
        return SparseSums(len(images), int(self.ends[-1]), places[:, 0], places[:, 1], table[:, 2])

    def statistic(self, totals: Array) -> Array:
        """All measures at once, [D, sum of K] -> [D,M]."""
        parts = np.split(totals, self.ends[:-1], axis=1)
        return np.stack(
            [one.statistic(parts[block]) for one, block in zip(self.measures, self.of, strict=True)], axis=1
        )

    def interval(self, resamples: Resamples, counted: Flags) -> Interval:
        """Of all measures, each from the images that count in it: bool [N,B]."""
        return interval_of(resamples, counted.sum(axis=0)[self.of])


class _Contributions:
    """What a method's images contribute, and what was drawn of them so far.

    With 12 methods on the same images each is drawn once, not in each of its 11 pairs.

    Args:
        scores: of the method.
        blocks: of the measures.
    """

    def __init__(self, scores: MethodScores, blocks: _Blocks) -> None:
        self.method = scores.method
        self.blocks = blocks
        self.place = {image: place for place, image in enumerate(scores.rows)}
        self.sums = blocks.sums(scores.rows.values())
        self.block = np.searchsorted(blocks.ends, self.sums.column, side="right")
        self._has_value = np.tile([not one.may_lack for one in blocks.first], (len(self.place), 1))
        self._has_value[self.sums.image, self.block] = True
        self._known: dict[tuple[tuple[str, ...], bytes], Resamples] = {}

    def has_value(self, images: Iterable[str]) -> Flags:
        """Whether images have a value, bool [N,B]."""
        return self._has_value[[self.place[image] for image in images]]

    def resampled(self, images: tuple[str, ...], counted: Flags) -> Resamples:
        """All measures, with their draws.

        Args:
            images: that are drawn.
            counted: bool [N,B], whether an image's sums count.
        """
        key = images, counted.tobytes()
        if key not in self._known:
            self._known[key] = resampled(self.blocks.statistic, self._part(images, counted))
        return self._known[key]

    def _part(self, images: tuple[str, ...], counted: Flags) -> SparseSums:
        new_place = np.full(len(self.place), -1)
        new_place[[self.place[image] for image in images]] = np.arange(len(images))
        image = new_place[self.sums.image]
        kept = (image >= 0) & counted[image, self.block]
        return SparseSums(len(images), self.sums.width, image[kept], self.sums.column[kept], self.sums.value[kept])


def _compared(first: _Contributions, second: _Contributions) -> list[Row]:
    """The rows of two methods; none if they share no image."""
    images = tuple(image for image in first.place if image in second.place)
    if not images:
        return []
    counted = first.has_value(images) & second.has_value(images)
    difference = first.resampled(images, counted).minus(second.resampled(images, counted))
    interval = first.blocks.interval(difference, counted)
    measures = first.blocks.measures
    found = _columns(measures, interval)
    return [
        {
            "method": first.method,
            "other": second.method,
            "measure": measure.name,
            **dict(zip(columns_of("difference"), (found[name] for name in columns_of(measure.name)), strict=True)),
            "images": int(used),
        }
        for measure, used in zip(measures, interval.used, strict=True)
    ]
