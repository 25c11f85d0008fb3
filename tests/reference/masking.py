"""NN-Explainer's class-specific masking (Sec. 4.2, Table 1), as plain loops.

C classes, H×W pixels. A sample is a normalised image [channels][H][W], its labels [C] of 0 or 1, and a mask [H][W] in
[0, 1] for each class. The classifier maps an image to logits [C].
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from reference.nn_explainer import Mask, masked_image, softmax
from reference.pixels import Image

Classifier = Callable[[Image], list[float]]
THRESHOLDS = [k / 10 for k in range(1, 10)]  # "nine uniform values in [0.1, 0.9]"


class Sample(NamedTuple):
    """One image with what is known about it."""

    image: Image
    labels: list[int]
    masks: dict[int, Mask]  # by class


def binarised(mask: Mask, threshold: float) -> Mask:
    """1 where the mask is above the threshold, 0 where it is not, also where it is equal."""
    return [[1.0 if value > threshold else 0.0 for value in row] for row in mask]


def confidence(image: Image, target: int, classifier: Classifier) -> float:
    """Softmax probability of the target class."""
    return softmax(classifier(image))[target]


def masked_confidence(
    image: Image, mask: Mask, target: int, classifier: Classifier, thresholds: list[float] | None = None
) -> float:
    """Mean over the thresholds of the target's probability for the image times the binarised mask."""
    values = [
        confidence(masked_image(image, binarised(mask, threshold)), target, classifier)
        for threshold in thresholds or THRESHOLDS
    ]
    return sum(values) / len(values)


def unmasked(samples: list[Sample], classes: list[int], classifier: Classifier) -> list[float]:
    """Table 1's column "none": for each target class, the mean over the images that contain it."""
    return [
        _mean([confidence(sample.image, target, classifier) for sample in samples if sample.labels[target] == 1])
        for target in classes
    ]


def matrix(samples: list[Sample], classes: list[int], classifier: Classifier) -> list[list[float]]:
    """Table 1's other columns: a row for each target class, a column for each class whose mask is laid on the image.

    Each entry is a mean over the images that contain the target class, whether or not they contain the mask's class.
    """
    return [
        [
            _mean(
                [
                    masked_confidence(sample.image, sample.masks[masking], target, classifier)
                    for sample in samples
                    if sample.labels[target] == 1
                ]
            )
            for masking in classes
        ]
        for target in classes
    ]


def figure_of_merit(table: list[list[float]]) -> float:
    """Mean of the diagonal less mean of the rest: the right masks keep the class, the wrong ones do not."""
    size = len(table)
    diagonal = [table[i][i] for i in range(size)]
    rest = [table[i][j] for i in range(size) for j in range(size) if i != j]
    return _mean(diagonal) - _mean(rest)


def _mean(values: list[float]) -> float:
    # No image of a class, no mean: not 0, which would be a bad score on the diagonal and a good one elsewhere.
    return sum(values) / len(values) if values else math.nan
