"""The pointing game (Group-CAM, Sec. 4.4; PAMI, Appendix D; TorchRay's tolerance), as plain loops.

A map is a nested list [H][W]; a region, too: 1 on the pixels of all of the class's objects in the image (filled boxes
or segments), 0 elsewhere. A point is (row, column).
"""

import math

from reference.nn_explainer import Mask


def peaks(saliency: Mask) -> list[tuple[int, int]]:
    """The points at which the map is highest; more than one where its maximum is tied."""
    highest = max(value for row in saliency for value in row)
    return [(i, j) for i, row in enumerate(saliency) for j, value in enumerate(row) if value == highest]


def is_hit(point: tuple[int, int], region: Mask, tolerance: float) -> bool:
    """Whether some pixel of the region is less than `tolerance` pixels away; with 0, whether the point is inside."""
    if tolerance == 0:
        return region[point[0]][point[1]] == 1
    inside = [(i, j) for i, row in enumerate(region) for j, value in enumerate(row) if value == 1]
    return any(math.dist(point, pixel) < tolerance for pixel in inside)


def hit(saliency: Mask, region: Mask, tolerance: float) -> float:
    """1 or 0; if the maximum is tied, the share of its points that hit, which is what a fair draw would give."""
    outcomes = [is_hit(point, region, tolerance) for point in peaks(saliency)]
    return sum(outcomes) / len(outcomes)


def class_rates(hits: list[tuple[int, float]]) -> dict[int, float]:
    """#Hits / (#Hits + #Misses) for each class, from one (class, hit) pair for each image and class asked.

    A class that was never asked has no rate.
    """
    rates = {}
    for c in sorted({c for c, _ in hits}):
        of_class = [value for other, value in hits if other == c]
        rates[c] = sum(of_class) / len(of_class)
    return rates


def mean_rate(hits: list[tuple[int, float]]) -> float:
    """Mean over the classes, each with equal weight, of their rates."""
    rates = class_rates(hits)
    return sum(rates.values()) / len(rates)
