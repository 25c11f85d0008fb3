"""NN-Explainer's losses (Sec. 3, Eq. 1-8) and segmentation scores (Sec. 4.3, Eq. 9) for one image, as plain loops.

C classes, H×W pixels, Z = H·W. Mask logits are nested lists [C][H][W], masks [H][W], class logits [C];
`labels` holds one 0 or 1 per class. Speed and memory do not matter here; being easy to check against the paper does.
"""

import math
from collections.abc import Callable

Mask = list[list[float]]


def sigmoid(logit: float) -> float:
    """σ(t) = eᵗ / (1 + eᵗ), without overflow for large |t|."""
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    return math.exp(logit) / (1 + math.exp(logit))


def log_sigmoid(logit: float) -> float:
    """Log σ(t), exact also where σ(t) itself rounds to 0 or 1."""
    return min(logit, 0.0) - math.log1p(math.exp(-abs(logit)))


def softmax(logits: list[float]) -> list[float]:
    """Class probabilities that sum to one."""
    highest = max(logits)
    exponentials = [math.exp(logit - highest) for logit in logits]
    return [exponential / sum(exponentials) for exponential in exponentials]


def class_mask(logits: Mask) -> Mask:
    """One class mask s_c, the sigmoid of its logits (Sec. 3)."""
    return [[sigmoid(logit) for logit in row] for row in logits]


def target_mask(logits: list[Mask], labels: list[float]) -> Mask:
    """Target mask m: pixelwise maximum over the masks of the image's classes; zeros without any class (Sec. 3)."""
    return _merged(logits, [c for c, label in enumerate(labels) if label == 1])


def non_target_mask(logits: list[Mask], labels: list[float]) -> Mask:
    """Non-target mask n: pixelwise maximum over the masks of all other classes; zeros if there are none (Sec. 3)."""
    return _merged(logits, [c for c, label in enumerate(labels) if label == 0])


def _merged(logits: list[Mask], classes: list[int]) -> Mask:
    masks = [class_mask(logits[c]) for c in classes]
    height, width = len(logits[0]), len(logits[0][0])
    return [[max((mask[i][j] for mask in masks), default=0.0) for j in range(width)] for i in range(height)]


def masked_image(image: list[Mask], mask: Mask) -> list[Mask]:
    """The product x ⊙ m: every colour channel of the image times the mask (Sec. 3)."""
    return [[[x * m for x, m in zip(*rows, strict=True)] for rows in zip(ch, mask, strict=True)] for ch in image]


def classification_loss(logits: list[float], labels: list[float]) -> float:
    """Binary cross-entropy of p = σ(logits), mean over the C classes (Eq. 2)."""
    total = 0.0
    for logit, label in zip(logits, labels, strict=True):
        # 1 - σ(t) = σ(-t)
        total += log_sigmoid(logit) if label == 1 else log_sigmoid(-logit)
    return -total / len(logits)


def negative_entropy(logits: list[float]) -> float:
    """Negative entropy of the softmax of the logits, divided by C (Eq. 3).

    The paper does not say which probabilities; the authors' code takes the softmax. 0·log 0 counts as 0.
    """
    return sum(p * math.log(p) for p in softmax(logits) if p > 0) / len(logits)


def area(mask: Mask) -> float:
    """A(m), the mean of the mask (Sec. 3.1)."""
    return sum(_pixels(mask)) / len(_pixels(mask))


def area_bound(mask: Mask, min_area: float, max_area: float) -> float:
    """B(s), how far a class mask lies outside of its area bounds (Eq. 4-5)."""
    q_mask = sorted(_pixels(mask), reverse=True)
    z = len(q_mask)
    ones_min, ones_max = math.floor(z * min_area), math.floor(z * max_area)
    q_min = [1.0] * ones_min + [0.0] * (z - ones_min)
    q_max = [1.0] * ones_max + [0.0] * (z - ones_max)
    too_small = sum(max(q_min[i] - q_mask[i], 0.0) for i in range(z)) / z
    too_large = sum(max(q_mask[i] - q_max[i], 0.0) for i in range(z)) / z
    return too_small + too_large


def bound_term(class_masks: list[Mask], labels: list[float], min_area: float, max_area: float) -> float:
    """Last term of Eq. 6: mean of B over the image's classes; 0 for an image without any class.

    Takes masks in [0, 1], not logits.
    """
    bounds = [area_bound(class_masks[c], min_area, max_area) for c, label in enumerate(labels) if label == 1]
    return sum(bounds) / len(bounds) if bounds else 0.0


def total_variation(mask: Mask) -> float:
    """TV(x): sum of the differences between neighbours inside the mask, divided by Z (Eq. 7)."""
    height, width = len(mask), len(mask[0])
    total = 0.0
    for i in range(height):
        for j in range(width):
            if i + 1 < height:
                total += abs(mask[i][j] - mask[i + 1][j])
            if j + 1 < width:
                total += abs(mask[i][j] - mask[i][j + 1])
    return total / (height * width)


def loss_terms(
    image: list[Mask],
    labels: list[float],
    mask_logits: list[Mask],
    classifier: Callable[[list[Mask]], list[float]],
    area_bounds: tuple[float, float],
) -> dict[str, float]:
    """The terms of Eq. 1 for one image, unweighted, with those of Eq. 6 one by one.

    `classifier` is the explanandum: image [3][H][W] -> logits [C].
    """
    target, non_target = target_mask(mask_logits, labels), non_target_mask(mask_logits, labels)
    complement = [[1 - value for value in row] for row in target]
    return {
        "classification": classification_loss(classifier(masked_image(image, target)), labels),  # Eq. 2
        "entropy": negative_entropy(classifier(masked_image(image, complement))),  # Eq. 3
        "area_target": area(target),  # Eq. 6, from here
        "area_nontarget": area(non_target),
        "bound": bound_term([class_mask(logits) for logits in mask_logits], labels, *area_bounds),
        "tv": total_variation(target) + total_variation(non_target),  # Eq. 8
    }


def explainer_loss(terms: dict[str, float], weights: dict[str, float]) -> float:
    """Eq. 1: the classification loss plus the weighted other terms; Eq. 6's three have a weight each."""
    return (
        terms["classification"]
        + weights["entropy"] * terms["entropy"]
        + weights["area_target"] * terms["area_target"]
        + weights["area_nontarget"] * terms["area_nontarget"]
        + weights["bound"] * terms["bound"]
        + weights["tv"] * terms["tv"]
    )


def accuracy(mask: Mask, ground_truth: Mask, ignored: list[tuple[int, int]] | None = None) -> float:
    """Soft accuracy (tp + tn) / all of a continuous mask (Sec. 4.3)."""
    return _mean_over_pairs(lambda m, g: m * g + (1 - m) * (1 - g), mask, ground_truth, ignored)


def mae(mask: Mask, ground_truth: Mask, ignored: list[tuple[int, int]] | None = None) -> float:
    """Mean absolute error between mask and ground truth (Sec. 4.3)."""
    return _mean_over_pairs(lambda m, g: abs(m - g), mask, ground_truth, ignored)


def iou(mask: Mask, ground_truth: Mask, ignored: list[tuple[int, int]] | None = None) -> float:
    """Sum of pixelwise minima over sum of pixelwise maxima (Sec. 4.3).

    Two empty masks agree in every pixel, so 0/0 is 1 here; the paper leaves the case open.
    """
    pairs = _counted_pairs(mask, ground_truth, ignored)
    union = sum(max(m, g) for m, g in pairs)
    return sum(min(m, g) for m, g in pairs) / union if union > 0 else 1.0


def saliency(mask: Mask, probabilities: list[float], labels: list[float]) -> float:
    """Sal(m, p), the log area of at least 5 % less the log probability of the set of present classes (Eq. 9)."""
    present = sum(p for p, label in zip(probabilities, labels, strict=True) if label == 1)
    return math.log(max(area(mask), 0.05)) - math.log(present)


def _pixels(mask: Mask) -> list[float]:
    return [value for row in mask for value in row]


def _counted_pairs(mask: Mask, truth: Mask, ignored: list[tuple[int, int]] | None) -> list[tuple[float, float]]:
    left_out = set(ignored or [])
    height, width = len(mask), len(mask[0])
    return [(mask[i][j], truth[i][j]) for i in range(height) for j in range(width) if (i, j) not in left_out]


def _mean_over_pairs(
    score: Callable[[float, float], float], mask: Mask, truth: Mask, ignored: list[tuple[int, int]] | None
) -> float:
    pairs = _counted_pairs(mask, truth, ignored)
    return sum(score(m, g) for m, g in pairs) / len(pairs)
