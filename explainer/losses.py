"""The Explainer's loss, term by term (NN-Explainer, Eq. 1-8).

B images, C classes, N masks, H×W = Z pixels; masks lie in [0, 1]. Sums run in float32 whatever comes in.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from explainer.explanandum import OutputKind
from explainer.masking import MaskLogits, at_least_float32, probability


@dataclass
class LossWeights:
    """Weights of the terms of Eq. 1 and the bounds of Eq. 4; the defaults are the authors' for VOC and VGG-16.

    The paper's single area weight is three in the authors' code, one per term of Eq. 6.

    Args:
        entropy: Weight of the negative entropy of the complement (Eq. 3).
        area_target: Weight of the mean of the target mask, A(m).
        area_nontarget: Weight of the mean of the non-target mask, A(n).
        bound: Weight of the area bound B of the present classes' masks (Eq. 5).
        tv: Weight of the total variation of m and of n (Eq. 8).
        min_area: Share of the image that a present class covers at least (a in Eq. 4).
        max_area: Share of the image that a present class covers at most (b in Eq. 4).
    """

    entropy: float = 1.0
    area_target: float = 0.1
    area_nontarget: float = 0.3
    bound: float = 1.0
    tv: float = 1.0
    min_area: float = 0.05
    max_area: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.min_area <= self.max_area <= 1:
            raise ValueError(
                f"Area bounds must satisfy 0 <= min_area <= max_area <= 1, got {self.min_area} and {self.max_area}."
            )


def classification_loss(logits: Tensor, labels: Tensor, output: OutputKind = "multi_label") -> Tensor:
    """How badly the classifier recognises the (masked) image, mean over images (Eq. 2).

    The paper has multi-label classifiers only, whose loss is the binary cross-entropy, mean over the C classes. In its
    place a single-label classifier has what it was trained with: -log of the true class's softmax. That is one term an
    image, not a mean over classes, so that it outweighs the entropy (Eq. 3 divides by C) the more, the larger C is.

    Args:
        logits: [B,C].
        labels: [B,C], multi-hot; with exactly one 1 an image for a single-label classifier.
        output: what the logits mean.
    """
    logits = at_least_float32(logits)
    loss = F.cross_entropy if output == "single_label" else F.binary_cross_entropy_with_logits
    return loss(logits, labels.to(logits.dtype))


def negative_entropy(logits: Tensor) -> Tensor:
    """Negative entropy of the softmax over classes, divided by C (Eq. 3), mean over images; logits [B,C].

    Softmax even where the explanandum is multi-label, as in the authors' code: "uniform" is over the classes.
    """
    log_probability = F.log_softmax(at_least_float32(logits), dim=1)
    return (log_probability.exp() * log_probability).mean()


def mask_area(mask: Tensor) -> Tensor:
    """Mean of each mask, A(m) of Eq. 6: [B,H,W] -> [B] in [0, 1]."""
    return mask.flatten(1).mean(dim=1)


def area_bound(class_mask: Tensor, min_area: float = 0.05, max_area: float = 0.3) -> Tensor:
    """How far each mask is from covering between `min_area` and `max_area` of the image (Eq. 4 and 5).

    With values in [0, 1], Eq. 5 is [sum over the largest ⌊Za⌋ of (1 - s) + sum over all but the largest ⌊Zb⌋ of s] / Z,
    so the ⌊Zb⌋ largest values are all that has to be sorted.

    Args:
        class_mask: [N,H,W] in [0, 1].
        min_area: a, share of the pixels.
        max_area: b >= a, share of the pixels.

    Returns:
        The measure B per mask, [N] in [0, 1].

    Examples:
        >>> masks = torch.tensor([[[0.0, 0.0, 0.0, 0.0]], [[1.0, 0.0, 0.0, 0.0]], [[1.0, 1.0, 1.0, 1.0]]])
        >>> area_bound(masks, min_area=0.25, max_area=0.5)
        tensor([0.2500, 0.0000, 0.5000])
    """
    values = class_mask.flatten(1)
    pixels = values.shape[1]
    smallest, largest = int(pixels * min_area), int(pixels * max_area)
    top = values.topk(largest, dim=1).values
    shortfall = smallest - top[:, :smallest].sum(dim=1)
    excess = values.sum(dim=1) - top.sum(dim=1)
    return (shortfall + excess) / pixels


def bound_loss(logits: MaskLogits, labels: Tensor, min_area: float = 0.05, max_area: float = 0.3) -> Tensor:
    """Area bound averaged over the classes of each image (last term of Eq. 6), then over the B images.

    Args:
        logits: class mask logits [B,C,H,W].
        labels: multi-hot [B,C]; an image without a class contributes 0.
        min_area: a of Eq. 4.
        max_area: b of Eq. 4.
    """
    present = labels.bool()
    image_index, class_index = present.nonzero(as_tuple=True)
    measure = area_bound(probability(logits[image_index, class_index]), min_area, max_area)
    weight = 1 / present.sum(dim=1).clamp(min=1).to(measure.dtype)
    return (measure * weight[image_index]).sum() / len(labels)


def total_variation(mask: Tensor, measure: Callable[[Tensor], Tensor] = torch.abs) -> Tensor:
    """Anisotropic total variation of each mask, per pixel (Eq. 7): [B,H,W] -> [B].

    Args:
        mask: [B,H,W].
        measure: of the differences of neighbouring pixels.
    """
    vertical = measure(mask.diff(dim=1)).flatten(1).sum(dim=1)
    horizontal = measure(mask.diff(dim=2)).flatten(1).sum(dim=1)
    return (vertical + horizontal) / mask[0].numel()
