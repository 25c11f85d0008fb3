"""Confidence intervals over images by the percentile bootstrap (Efron, 1979): how far chance may have moved a number.

Every statistic is computed from sums over images, so that a resample is a row of counts (how often each image was
drawn) and all of them together are a matrix product: with one seed the draws are those of `scipy.stats.bootstrap`, in
a tenth of its time and memory. Columns are resampled together, and equal seeds draw equal images: the intervals of
two methods over the same images belong to the same resamples. Below some 20 images the intervals are too narrow.

N images, V values, K sums an image, M statistics, D draws.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
"""From totals over images [D,K] to statistics [D] or [D,M]; NaN where a resample holds nothing to compute them from."""

LEVEL = 0.95
DRAWS = 2000
"""The bounds then scatter by 3 % of the interval's half width."""
CHUNK_BYTES = 64 * 2**20
BYTES_A_DRAW = 24
"""For each image: its index, its count, and the count as a float."""


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


def bootstrap_interval(values: ArrayLike | Tensor, level: float = LEVEL, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Mean over images.

    Args:
        values: [N] or [N,M], one row an image; NaN where an image has no value, which is then left out.
        level: probability that the interval is to hold.
        draws: D.
        seed: of the draws.
    """
    return bootstrap_mean(values, range(len(_float64(values))), level, draws, seed)


def bootstrap_mean(
    values: ArrayLike | Tensor,
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
    table = _float64(values)
    if len(image_ids) != len(table):
        raise ValueError(f"Got {len(table)} values but {len(image_ids)} image ids; each value needs its image's id.")
    columns = table[:, None] if table.ndim == 1 else table
    present = ~np.isnan(columns)
    sums = sums_per_image(np.concatenate([np.where(present, columns, 0), present], axis=1), image_ids)
    images = (sums[:, columns.shape[1] :] > 0).sum(axis=0)
    interval = bootstrap(ratios, sums[sums.any(axis=1)], level, draws, seed)
    low, high = (np.where(images > 1, bound, np.nan) for bound in (interval.low, interval.high))
    shape = table.shape[1:]
    used, left_out = present.sum(axis=0).reshape(shape), (~present).sum(axis=0).reshape(shape)
    return Interval(interval.value.reshape(shape), low.reshape(shape), high.reshape(shape), used, left_out)


def paired_difference(
    first: ArrayLike | Tensor, second: ArrayLike | Tensor, level: float = LEVEL, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """Mean of `first` - `second` over the same images; an image counts only if both have a value.

    An interval without 0 says that the two differ; the two intervals by themselves may overlap nevertheless.

    Args:
        first: [N] or [N,M].
        second: of the same shape.
        level: probability that the interval is to hold.
        draws: D.
        seed: of the draws.

    Raises:
        ValueError: If the shapes differ.
    """
    one, other = _float64(first), _float64(second)
    if one.shape != other.shape:
        raise ValueError(f"Got values of shapes {one.shape} and {other.shape}; pairs need the same images in both.")
    return bootstrap_interval(one - other, level, draws, seed)


def bootstrap(
    statistic: Statistic, sums: ArrayLike | Tensor, level: float = LEVEL, draws: int = DRAWS, seed: int = 0
) -> Interval:
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
    table = _float64(sums)
    _check(table, level, draws)
    value = statistic(table.sum(axis=0, keepdims=True))[0]
    if len(table) < 2:
        bounds = np.full((2, *value.shape), np.nan)
    else:
        drawn = np.concatenate([statistic(totals) for totals in _resampled_totals(table, draws, seed)])
        bounds = _quantiles(drawn, ((1 - level) / 2, (1 + level) / 2))
    used = np.full(value.shape, len(table), np.int64)
    return Interval(value, bounds[0], bounds[1], used, np.zeros_like(used))


def ratios(totals: Array) -> Array:
    """First half of the columns over the second half, [D,2M] -> [D,M], e.g. hits and trials per class; x/0 is NaN."""
    above, below = np.split(totals, 2, axis=1)
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below != 0)


def mean_ratio(totals: Array) -> Array:
    """Mean of the `ratios` that exist, [D,2M] -> [D], e.g. hit rate averaged over classes (Group-CAM, Sec. 4.4)."""
    found = ratios(totals)
    exists = ~np.isnan(found)
    return ratios(np.stack([np.where(exists, found, 0).sum(axis=1), exists.sum(axis=1).astype(np.float64)], axis=1))[
        :, 0
    ]


def sums_per_image(values: ArrayLike | Tensor, image_ids: Sequence[Any] | NDArray[Any]) -> Array:
    """Add up the rows [V,K] that belong to the same image -> [N,K], the images in sorted order."""
    table = _float64(values)
    images, index = np.unique(np.array(image_ids), return_inverse=True)
    sums = np.zeros((len(images), table.shape[1]))
    np.add.at(sums, index, table)
    return sums


def _float64(values: ArrayLike | Tensor) -> Array:
    return np.asarray(values.detach().double().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)


def _check(table: Array, level: float, draws: int) -> None:
    if table.ndim != 2 or not np.isfinite(table).all():
        raise ValueError(f"Expected finite sums [images, sums], got shape {table.shape}; leave out what is not finite.")
    if not 0 < level < 1 or draws < 1:
        raise ValueError(f"Expected 0 < level < 1 and draws >= 1, got {level} and {draws}.")


def _resampled_totals(sums: Array, draws: int, seed: int) -> list[Array]:
    """Totals over resampled images, [d,K] each; so many draws at once that memory stays bounded."""
    images, random = len(sums), np.random.default_rng(seed)
    chunk = max(1, CHUNK_BYTES // (BYTES_A_DRAW * images))
    found = []
    for start in range(0, draws, chunk):
        rows = min(chunk, draws - start)
        chosen = random.integers(0, images, (rows, images))
        chosen += images * np.arange(rows)[:, None]
        counts = np.bincount(chosen.ravel(), minlength=rows * images).reshape(rows, images)
        found.append(counts.astype(np.float64) @ sums)
    return found


def _quantiles(drawn: Array, probabilities: tuple[float, float]) -> Array:
    """Quantiles over the draws [D,...] that have a value -> [2,...]; NaN where none has."""
    if not np.isnan(drawn).any():
        return np.quantile(drawn, probabilities, axis=0)
    columns = drawn.reshape(len(drawn), -1).T
    kept = [column[~np.isnan(column)] for column in columns]
    found = [np.quantile(column, probabilities) if len(column) else np.full(2, np.nan) for column in kept]
    return np.stack(found, axis=1).reshape(2, *drawn.shape[1:])
