"""Statistics of drawn images: what a number over images would have been, had others of their kind been there.

Every statistic is computed from sums over images, so that a resample is a row of counts (how often each image was
drawn) and all of them together are a matrix product: with one seed the draws are those of `scipy.stats.bootstrap`, in
a tenth of its time and memory. Columns are resampled together, and equal seeds draw equal images: the intervals of
two methods over the same images belong to the same resamples.

Without PyTorch, which reports do not need. N images, V values, K sums an image, M statistics, D draws.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float64]
Values: TypeAlias = "ArrayLike | Tensor"
Sums: TypeAlias = "Values | SparseSums"
Statistic = Callable[[Array], Array]
"""From totals over images [D,K] to statistics [D] or [D,M]; NaN where a resample holds nothing to compute them from."""

DRAWS = 2000
"""The bounds then scatter by 3 % of the interval's half width."""
CHUNK_BYTES = 64 * 2**20
BYTES_A_DRAW = 24
"""For each image: its index, its count, and the count as a float."""


class SparseSums(NamedTuple):
    """Sums [N,K] of which most are zero, entry by entry: of 1000 classes an image has two or three.

    Attributes:
        images: N.
        width: K.
        image: of each entry, long [E]; an image without an entry contributes zeros, and counts.
        column: likewise; entries of the same image and column add up.
        value: float64 [E].
    """

    images: int
    width: int
    image: NDArray[np.int64]
    column: NDArray[np.int64]
    value: Array


class Resamples(NamedTuple):
    """A statistic, and what became of it in each draw.

    Those of two statistics over the same images, with the same draws and seed, may be subtracted: the draws are paired.

    Attributes:
        value: of all images, float64 [] or [M].
        drawn: [D] or [D,M]; NaN where a draw holds nothing to compute it from. Of fewer than two images D is 1: there
            is nothing to draw.
    """

    value: Array
    drawn: Array

    def minus(self, other: "Resamples") -> "Resamples":
        """The difference, draw by draw."""
        return Resamples(self.value - other.value, self.drawn - other.drawn)


def resampled(statistic: Statistic, sums: Sums, draws: int = DRAWS, seed: int = 0) -> Resamples:
    """A statistic of sums over images, and of the sums over drawn images.

    Args:
        statistic: from totals [D,K] to [D] or [D,M], such as `ratios` or `mean_ratio`.
        sums: [N,K], finite.
        draws: D.
        seed: of the draws; N and the seed alone decide which images are drawn.

    Raises:
        ValueError: If `sums` is no finite table, or there is no draw.
    """
    return resampled_alike(statistic, [sums], draws, seed)[0]


def resampled_alike(statistic: Statistic, tables: Sequence[Sums], draws: int = DRAWS, seed: int = 0) -> list[Resamples]:
    """`resampled` for several tables of as many images, which share their draws: to draw takes longer than to add up.

    Args:
        statistic: of each table.
        tables: each [N,K], finite; K may differ.
        draws: D.
        seed: of the draws.

    Raises:
        ValueError: If one is no finite table, they are not of as many images, or there is no draw.
    """
    every = [sums if isinstance(sums, SparseSums) else as_float64(sums) for sums in tables]
    for sums in every:
        _check(sums, draws)
    counts = {_count(sums) for sums in every}
    if len(counts) > 1:
        raise ValueError(f"Only tables of as many images share their draws; these have {sorted(counts)}.")
    values = [statistic(_total(sums))[0] for sums in every]
    if not every or min(counts) < 2:
        return [Resamples(value, value[None]) for value in values]
    drawn: list[list[Array]] = [[] for _ in every]
    for chosen in _draws(min(counts), draws, seed):
        for sums, of_table in zip(every, drawn, strict=True):
            of_table.append(statistic(_drawn_totals(sums, chosen)))
    return [Resamples(value, np.concatenate(of_table)) for value, of_table in zip(values, drawn, strict=True)]


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


def sums_per_image(values: Values, image_ids: Sequence[Any] | NDArray[Any]) -> Array:
    """Add up the rows [V,K] that belong to the same image -> [N,K], the images in sorted order."""
    table = as_float64(values)
    images, index = np.unique(np.array(image_ids), return_inverse=True)
    sums = np.zeros((len(images), table.shape[1]))
    np.add.at(sums, index, table)
    return sums


def as_float64(values: Values) -> Array:
    """An array, or a tensor on any device."""
    detached = values.detach().double().cpu() if hasattr(values, "detach") else values  # no import of PyTorch for it
    return np.asarray(detached, dtype=np.float64)


def _check(sums: Array | SparseSums, draws: int) -> None:
    values, shape = (sums.value, (sums.images, sums.width)) if isinstance(sums, SparseSums) else (sums, sums.shape)
    if len(shape) != 2 or not np.isfinite(values).all():
        raise ValueError(f"Expected finite sums [images, sums], got shape {shape}; leave out what is not finite.")
    if draws < 1:
        raise ValueError(f"Expected draws >= 1, got {draws}.")


def _count(sums: Array | SparseSums) -> int:
    return sums.images if isinstance(sums, SparseSums) else len(sums)


def _total(sums: Array | SparseSums) -> Array:
    """Over all images, [1,K]."""
    if isinstance(sums, SparseSums):
        return _by_column(sums, sums.value)[None]
    return sums.sum(axis=0, keepdims=True)


def _by_column(sums: SparseSums, values: Array) -> Array:
    """Values [E] of the entries, added up for each column, [K]."""
    return np.bincount(sums.column, values, sums.width).astype(np.float64, copy=False)


def _draws(images: int, draws: int, seed: int) -> Iterator[Array]:
    """How often each image was drawn, [d,N]; so many draws at once that memory stays bounded."""
    random = np.random.default_rng(seed)
    chunk = max(1, CHUNK_BYTES // (BYTES_A_DRAW * images))
    for start in range(0, draws, chunk):
        rows = min(chunk, draws - start)
        chosen = random.integers(0, images, (rows, images))
        chosen += images * np.arange(rows)[:, None]
        yield np.bincount(chosen.ravel(), minlength=rows * images).reshape(rows, images).astype(np.float64)


def _drawn_totals(sums: Array | SparseSums, counts: Array) -> Array:
    """Totals [d,K] over images that were drawn as often as [d,N] says."""
    if isinstance(sums, SparseSums):
        return np.stack([_by_column(sums, count[sums.image] * sums.value) for count in counts])
    return counts @ sums
