"""Insertion and deletion curves (RISE's, as in Group-CAM, Sec. 4.3) for one image, as plain loops.

H×W pixels, Z = H·W of them, numbered row by row: pixel k lies in row k // W and column k % W. An image is nested
lists [channels][H][W], a map [H][W]. The baseline image is what stands in for the pixels that are not there:
`pixels.gaussian_blur` of the image, or `black`.
"""

import math
from collections.abc import Callable
from fractions import Fraction

from reference.nn_explainer import Mask
from reference.pixels import Image, filled


def black(image: Image) -> Image:
    """Zero everywhere; for a normalised image that is the mean colour, not black."""
    return [filled(0.0, len(channel), len(channel[0])) for channel in image]


def ranking(saliency: Mask, ties: list[int] | None = None) -> list[int]:
    """Pixel numbers by decreasing value; pixels of equal value as `ties`, a list of all pixels, has them.

    Without `ties` equal pixels come row by row; the papers leave them open.
    """
    values = [value for row in saliency for value in row]
    listed = list(range(len(values))) if ties is None else ties
    assert sorted(listed) == list(range(len(values))), "ties has to name each pixel once"
    return sorted(listed, key=lambda pixel: -values[pixel])  # a stable sort: equals stay as listed


def counts_by_pixels(total: int, step: int) -> list[int]:
    """How many pixels have changed at each point of a curve: 0, step, 2·step, ..., Z; the last step may be shorter."""
    return [*range(0, total, step), total]


def counts_by_fraction(total: int, fraction: float) -> list[int]:
    """The same for steps of a fraction of all pixels: k·fraction·Z rounded to the nearest whole number, then Z.

    Every multiple is rounded anew, so that 1 % gives 101 points however many pixels there are.
    """
    share = Fraction(str(fraction))  # .1 is a tenth here
    multiples = [k * share for k in range(math.ceil(1 / share))]
    return [math.floor(multiple * total + Fraction(1, 2)) for multiple in multiples] + [total]


def changed(start: Image, end: Image, pixels: list[int]) -> Image:
    """The start image, with the named pixels, in all channels, from the end image."""
    width = len(start[0][0])
    mixed = [[list(row) for row in channel] for channel in start]
    for pixel in pixels:
        for channel, source in zip(mixed, end, strict=True):
            channel[pixel // width][pixel % width] = source[pixel // width][pixel % width]
    return mixed


def insertion_curve(
    image: Image, baseline: Image, order: list[int], counts: list[int], score: Callable[[Image], float]
) -> list[float]:
    """Scores while the image's pixels replace those of the baseline image, the first of `order` first."""
    return [score(changed(baseline, image, order[:count])) for count in counts]


def deletion_curve(
    image: Image, baseline: Image, order: list[int], counts: list[int], score: Callable[[Image], float]
) -> list[float]:
    """Scores while the baseline image's pixels replace those of the image, the first of `order` first."""
    return [score(changed(image, baseline, order[:count])) for count in counts]


def auc(scores: list[float], counts: list[int] | None = None) -> float:
    """Area under the curve by trapezoids, over an axis from 0 to 1.

    Without `counts` all steps are equally wide (RISE); with them a step is as wide as its share of the pixels. The
    two differ only where the steps aren't of the same size.
    """
    positions = list(range(len(scores))) if counts is None else counts
    area = 0.0
    for k in range(len(scores) - 1):
        area += (positions[k + 1] - positions[k]) * (scores[k] + scores[k + 1]) / 2
    return area / (positions[-1] - positions[0])


def over_all(insertion: float, deletion: float) -> float:
    """AUC(insertion) - AUC(deletion) (Group-CAM, Sec. 4.3)."""
    return insertion - deletion
