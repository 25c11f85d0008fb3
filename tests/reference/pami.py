"""PAMI (Sec. 3.2) for one input, as plain loops: keep one part, ask the model, spread the answers over the parts.

Masks are nested lists [H][W] of 0 and 1; a part may be anything that the keep-only operator understands.
"""

from collections.abc import Callable
from typing import Any

from reference.nn_explainer import Mask
from reference.pixels import added, filled, scaled


def contributions(parts: list[Any], keep_only: Callable[[Any], Any], score: Callable[[Any], float]) -> list[float]:
    """f_k(x_j): the model's score when only the j-th part of the input is preserved (Sec. 3.2)."""
    return [score(keep_only(part)) for part in parts]


def importance(scores: list[float], masks: list[Mask]) -> Mask:
    """Each pixel's mean score over the parts that cover it (Sec. 3.2.1); 0 where no part does."""
    height, width = len(masks[0]), len(masks[0][0])
    result = filled(0.0, height, width)
    for i in range(height):
        for j in range(width):
            covered = sum(mask[i][j] for mask in masks)
            total = sum(score * mask[i][j] for score, mask in zip(scores, masks, strict=True))
            result[i][j] = total / covered if covered > 0 else 0.0
    return result


def mean_importance(
    partitions: list[list[Mask]], keep_only: Callable[[Mask], Any], score: Callable[[Any], float]
) -> Mask:
    """Mean of the importance maps of several partitions (Sec. 3.2.2)."""
    total = filled(0.0, len(partitions[0][0]), len(partitions[0][0][0]))
    for masks in partitions:
        total = added(total, importance(contributions(masks, keep_only, score), masks))
    return scaled(total, 1 / len(partitions))


def circle(height: int, width: int, centre: tuple[int, int], radius: float) -> Mask:
    """Ones within `radius` of (y, x), that distance included; what lies outside of the image is cut off."""
    y, x = centre
    return [[1.0 if (i - y) ** 2 + (j - x) ** 2 <= radius**2 else 0.0 for j in range(width)] for i in range(height)]


def circular_windows(height: int, width: int, radius: float, step: int) -> list[Mask]:
    """Strategy I: a circle around every `step`-th row and column, from the first ones on (Sec. 3.2.1, 4.1)."""
    return [circle(height, width, (y, x), radius) for y in range(0, height, step) for x in range(0, width, step)]


def segments(labels: list[list[int]]) -> list[Mask]:
    """One mask for each label of a segmentation."""
    found = sorted({label for row in labels for label in row})
    return [[[1.0 if label == one else 0.0 for label in row] for row in labels] for one in found]


def pre_segmentation(
    candidate: Any,
    segment: Callable[[Any], list[list[list[int]]]],
    keep_only: Callable[[Mask], Any],
    score: Callable[[Any], float],
    second_candidate: Callable[[Mask], Any] | None = None,
) -> Mask:
    """Strategy II: average over all segmentations of the candidate; what is kept and blurred stays the input's.

    Args:
        candidate: what the first run segments, i.e. the input image.
        segment: candidate -> segmentations, each a label [H][W].
        keep_only: part -> the input with everything else masked.
        score: masked input -> score of the class.
        second_candidate: first map -> what the second run segments; its map replaces the first. None for one run only.
    """

    def run(of: Any) -> Mask:
        return mean_importance([segments(labels) for labels in segment(of)], keep_only, score)

    first = run(candidate)
    return first if second_candidate is None else run(second_candidate(first))
