"""Confidence intervals over images by the percentile bootstrap (Efron, 1979): how far chance may have moved a number.

The plain percentiles are too narrow for few images: of 8, an interval of 95 % holds in 87 % of simulations with normal
scores. They are taken farther out instead, the expanded percentile interval of Hesterberg ("What Teachers Should Know
About the Bootstrap", The American Statistician 69(4), 2015; arXiv:1411.5279), which holds in 94 % of them, of 5 images
in 92 %; from some 100 images on there is hardly a difference. It mends neither skewness, nor ratios that rest on far
fewer images than were drawn (a rare class); and no bound lies beyond the draws, which of 2 or 3 images says little.

Without PyTorch, which reports do not need. N images, V values, K sums an image, M statistics, D draws.
"""

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from explainer.resampling import (
    DRAWS,
    Array,
    Resamples,
    Statistic,
    Values,
    as_float64,
    ratios,
    resampled,
    sums_per_image,
)

LEVEL = 0.95


class Interval(NamedTuple):
    """A statistic with its bounds, float64 arrays [] or [M].

    Attributes:
        value: of all images.
        low: lower bound; NaN where fewer than two images have a value.
        high: upper bound, likewise.
        used: number of values (of `bootstrap`: images) that each rests on.
        left_out: number of values that were NaN, hence left out.
    """

    value: Array
    low: Array
    high: Array
    used: NDArray[np.int64]
    left_out: NDArray[np.int64]


def bootstrap_interval(values: Values, level: float = LEVEL, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Mean over images.

    Args:
        values: [N] or [N,M], one row an image; NaN where an image has no value, which is then left out.
        level: probability that the interval is to hold.
        draws: D.
        seed: of the draws.
    """
    return bootstrap_mean(values, range(len(as_float64(values))), level, draws, seed)


def bootstrap_mean(
    values: Values,
    image_ids: Sequence[Any] | NDArray[Any],
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """Mean over values of which several may belong to an image (one for each class in it): images are resampled.

    Args:
        values: [V] or [V,M]; NaN is left out.
        image_ids: the image of each, V numbers or names in any order.
        level: probability that the interval is to hold.
        draws: D.
        seed: of the draws.

    Raises:
        ValueError: If there are not as many images as values.
    """
    table = as_float64(values)
    if len(image_ids) != len(table):
        raise ValueError(f"Got {len(table)} values but {len(image_ids)} image ids; each value needs its image's id.")
    columns = table[:, None] if table.ndim == 1 else table
    present = ~np.isnan(columns)
    sums = sums_per_image(np.concatenate([np.where(present, columns, 0), present], axis=1), image_ids)
    images = (sums[:, columns.shape[1] :] > 0).sum(axis=0)
    interval = interval_of(resampled(ratios, sums[sums.any(axis=1)], draws, seed), images, level)
    value, low, high = (part.reshape(table.shape[1:]) for part in interval[:3])
    used, left_out = (counts.sum(axis=0).reshape(table.shape[1:]) for counts in (present, ~present))
    return Interval(value, low, high, used, left_out)


def paired_difference(
    first: Values, second: Values, level: float = LEVEL, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """Mean of `first` - `second` over the same images; an image counts only if both have a value.

    An interval without 0 says that the two differ; the two intervals by themselves may overlap nevertheless. Of many
    such intervals some lack the 0 by chance: at 95 %, one in twenty of those whose two do not differ.

    Args:
        first: [N] or [N,M].
        second: of the same shape.
        level: probability that the interval is to hold.
        draws: D.
        seed: of the draws.

    Raises:
        ValueError: If the shapes differ.

    Examples:
        >>> found = paired_difference([3.0, 5.0, 4.0, 6.0], [2.0, 3.0, 3.0, 4.0])
        >>> found.value.item(), found.low.item() > 0
        (1.5, True)
    """
    one, other = as_float64(first), as_float64(second)
    if one.shape != other.shape:
        raise ValueError(f"Got values of shapes {one.shape} and {other.shape}; pairs need the same images in both.")
    return bootstrap_interval(one - other, level, draws, seed)


def bootstrap(statistic: Statistic, sums: Values, level: float = LEVEL, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Any statistic that depends on the images through sums over them: rates per class, their mean, F-scores.

    Args:
        statistic: from totals [D,K] to [D] or [D,M], such as `ratios` or `mean_ratio`.
        sums: [N,K], what each image contributes to the totals; finite.
        level: probability that the interval is to hold. A draw whose statistic is NaN is left out.
        draws: D.
        seed: of the draws.

    Raises:
        ValueError: If `sums` is no finite table, or `level` or `draws` is out of range.
    """
    table = as_float64(sums)
    found = resampled(statistic, table, draws, seed)
    return interval_of(found, np.full(found.value.shape, len(table), np.int64), level)


def interval_of(resamples: Resamples, images: NDArray[np.int64], level: float = LEVEL) -> Interval:
    """From draws to bounds (see the top of the file); with fewer than two images there are none.

    Args:
        resamples: of statistics [] or [M].
        images: that each statistic rests on, of the same shape.
        level: probability that the interval is to hold.

    Raises:
        ValueError: If `level` is out of range.
    """
    if not 0 < level < 1:
        raise ValueError(f"Expected 0 < level < 1, got {level}.")
    value = np.asarray(resamples.value)
    columns = resamples.drawn.reshape(len(resamples.drawn), value.size).T
    bounds = [_bounds(column, int(count), level) for column, count in zip(columns, images.ravel(), strict=True)]
    low, high = np.array(bounds).reshape(-1, 2).T.reshape(2, *value.shape)
    return Interval(value, low, high, images, np.zeros_like(images))


def tail_probability(images: int, level: float = LEVEL) -> float:
    """What lies beyond either percentile: a' with z(a') = -sqrt(N / (N - 1)) t(a, N - 1), where 2 a = 1 - level.

    Args:
        images: N, at least 2.
        level: probability that the interval is to hold.
    """
    quantile = sqrt(images / (images - 1)) * _student_quantile((1 + level) / 2, images - 1)
    return NormalDist().cdf(-quantile)


def _student_quantile(probability: float, degrees: int) -> float:
    """Of Student's t, by its expansion around the normal one (Abramowitz and Stegun, 26.7.5).

    At 97.5 % it is .03 % too small with 4 degrees of freedom, less with more, and 11 % with one, where the percentiles
    lie at the outermost draws anyway.
    """
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees**power for power, term in enumerate(terms, start=1))


def _bounds(drawn: Array, images: int, level: float) -> tuple[float, float]:
    """Percentiles of the draws [D] that have a value; NaN where none has, and for fewer than two images."""
    kept = drawn[~np.isnan(drawn)]
    if images < 2 or not len(kept):
        return np.nan, np.nan
    tail = tail_probability(images, level)
    low, high = np.quantile(kept, (tail, 1 - tail))
    return float(low), float(high)
