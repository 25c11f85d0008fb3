"""Spearman's rank correlation of two maps, as plain loops.

The sanity checks of Adebayo et al. compare the maps of a trained and of a randomised model with it.
"""

import math

from reference.nn_explainer import Mask


def ranks(values: list[float]) -> list[float]:
    """1 for the smallest value; equal values share the mean of the places that they take together."""
    return [sum(v < value for v in values) + (sum(v == value for v in values) + 1) / 2 for value in values]


def spearman(first: Mask, second: Mask) -> float:
    """Pearson's correlation of the two maps' ranks.

    A flat map has no order, so nothing correlates with it: 0, also between two flat maps.
    """
    one, other = (ranks([value for row in mask for value in row]) for mask in (first, second))
    middle = (len(one) + 1) / 2  # ranks have this mean, tied or not
    products = sum((a - middle) * (b - middle) for a, b in zip(one, other, strict=True))
    squares = sum((a - middle) ** 2 for a in one) * sum((b - middle) ** 2 for b in other)
    return products / math.sqrt(squares) if squares > 0 else 0.0
