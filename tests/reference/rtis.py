"""The loss of Real-Time Image Saliency (Dabkowski and Gal, 2017) for one image, as plain loops.

C classes, H×W pixels. Images are nested lists [3][H][W], mask logits [C][H][W], masks [H][W]; `labels` holds one 0 or 1
per class. NN-Explainer (Sec. 4.1) has this loss for its target mask; of several classes the mean is taken.
"""

import math
from collections.abc import Callable

from reference.nn_explainer import Mask, area, log_sigmoid, softmax, target_mask
from reference.pixels import Image, blended


def squared_variation(mask: Mask) -> float:
    """TV(M): squared differences of neighbours, here per pixel."""
    height, width = len(mask), len(mask[0])
    total = 0.0
    for i in range(height):
        for j in range(width):
            if i + 1 < height:
                total += (mask[i][j] - mask[i + 1][j]) ** 2
            if j + 1 < width:
                total += (mask[i][j] - mask[i][j + 1]) ** 2
    return total / (height * width)


def probability(logits: list[float], c: int, single_label: bool) -> float:
    """f_c."""
    return softmax(logits)[c] if single_label else math.exp(log_sigmoid(logits[c]))


def mean(values: list[float]) -> float:
    """0 of no values."""
    return sum(values) / len(values) if values else 0.0


def loss_terms(
    image: Image,
    alternative: Image,
    labels: list[float],
    mask_logits: list[Mask],
    classifier: Callable[[Image], list[float]],
    power: float,
    single_label: bool = False,
) -> dict[str, float]:
    """The four terms, unweighted."""
    mask = target_mask(mask_logits, labels)
    rest = [[1 - value for value in row] for row in mask]
    classes = [c for c, label in enumerate(labels) if label == 1]
    kept, cut = (classifier(blended(image, alternative, part)) for part in (mask, rest))
    return {
        "preserver": mean([-math.log(probability(kept, c, single_label)) for c in classes]),
        "destroyer": mean([probability(cut, c, single_label) ** power for c in classes]),
        "area": area(mask),
        "tv": squared_variation(mask),
    }


def loss(terms: dict[str, float], tv: float, area: float, destroyer: float) -> float:
    """L(M) with λ₁, λ₂ and λ₃."""
    return tv * terms["tv"] + area * terms["area"] + terms["preserver"] + destroyer * terms["destroyer"]
