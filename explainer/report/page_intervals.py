"""How far chance may have moved paired differences: bootstrap intervals over images (Hesterberg, 2015).

They are those of explainer/metrics/bootstrap.py, which needs PyTorch and therefore can't be used here.

N images, G groups, D draws.
"""

from collections.abc import Iterator, Sequence
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
DRAWS = 2000
CHUNK_BYTES = 64 * 2**20
BYTES_A_DRAW = 24
"""For each image: its index, its count, and the count as a float."""

Array = NDArray[np.float64]
Bounds = tuple[float | None, float | None]


def means(sums: Array) -> tuple[Array, Array]:
    """The means over groups of the first ratios, and of the second.

    Args:
        sums: above and below the line of the first, then of the second, [...,4,G]; a group with nothing below the line
            does not count.
    """
    first, second = (_mean_ratio(sums[..., place, :], sums[..., place + 1, :]) for place in (0, 2))
    return first, second


def _mean_ratio(above: Array, below: Array) -> Array:
    exists = below > 0
    ratios = np.divide(above, below, out=np.zeros_like(above), where=exists)
    count = exists.sum(axis=-1)
    total: Array = ratios.sum(axis=-1)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def intervals(every: Sequence[Array]) -> list[Bounds]:
    """Of the second mean less the first, images drawn in pairs; None for fewer than two images.

    Args:
        every: of each measure what each image contributes, [N,4,G]; N and G may differ. Measures of as many images
            share their draws: to draw takes longer than to add up.
    """
    found: list[Bounds] = [(None, None)] * len(every)
    for count in {len(sums) for sums in every} - {0, 1}:
        drawn: dict[int, list[Array]] = {place: [] for place, sums in enumerate(every) if len(sums) == count}
        for counts in _draws(count):
            for place, of_place in drawn.items():
                sums = every[place]
                totals = (counts @ sums.reshape(count, -1)).reshape(-1, *sums.shape[1:])
                first, second = means(totals)
                of_place.append(second - first)
        found = [_bounds(drawn[place], count) if place in drawn else old for place, old in enumerate(found)]
    return found


def _bounds(drawn: Sequence[Array], images: int) -> Bounds:
    """Percentiles of the draws that have a value."""
    differences = np.concatenate(drawn)
    kept = differences[~np.isnan(differences)]
    if not len(kept):
        return None, None
    tail = tail_probability(images)
    low, high = np.quantile(kept, (tail, 1 - tail))
    return float(low), float(high)


def _draws(images: int) -> Iterator[Array]:
    """How often each image was drawn, [d,N]; so many draws at once that memory stays bounded."""
    random = np.random.default_rng(0)
    chunk = max(1, CHUNK_BYTES // (BYTES_A_DRAW * images))
    for start in range(0, DRAWS, chunk):
        rows = min(chunk, DRAWS - start)
        chosen = random.integers(0, images, (rows, images)) + images * np.arange(rows)[:, None]
        yield np.bincount(chosen.ravel(), minlength=rows * images).reshape(rows, images).astype(np.float64)


def tail_probability(images: int) -> float:
    """What lies beyond either of the expanded percentiles."""
    from scipy.stats import t

    return NormalDist().cdf(sqrt(images / (images - 1)) * float(t.ppf((1 - LEVEL) / 2, images - 1)))
