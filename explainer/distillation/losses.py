"""How far class masks are from teacher maps.

N pairs of an image and a class present in it, T teachers, H×W pixels; masks and maps lie in [0, 1].
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from explainer.masking import MaskLogits, at_least_float32, probability

NEARLY_FLAT = 1e-6
"""Standard deviation below which a map has no pattern to correlate with."""


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy with a soft target, less the target's own entropy: 0 where they agree (KL divergence).

    The entropy is the teacher's: taking it away changes no gradient, but makes losses of soft and hard maps comparable.

    Args:
        logits: of the masks, [N,H,W].
        target: the maps, [N,H,W].

    Returns:
        Mean over pixels, [N] >= 0.
    """
    cross = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    own = torch.special.entr(target) + torch.special.entr(1 - target)
    return (cross - own).flatten(1).mean(dim=1)


def absolute_error(logits: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of masks (as logits) and maps, [N,H,W] both -> [N] in [0, 1]."""
    return (probability(logits) - target).abs().flatten(1).mean(dim=1)


def squared_error(logits: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of masks (as logits) and maps, [N,H,W] both -> [N] in [0, 1]."""
    return (probability(logits) - target).square().flatten(1).mean(dim=1)


def decorrelation(logits: Tensor, target: Tensor) -> Tensor:
    """One minus Pearson's correlation over pixels of masks (as logits) and maps: [N,H,W] both -> [N] in [0, 2].

    It leaves size and contrast of the mask to the other losses. A flat map has no pattern: its loss is 1, its gradient
    zero.
    """
    mask, other = _centred(probability(logits)), _centred(target)
    # A norm is not differentiable at zero; the floor is far below any mask that shows something.
    floor = NEARLY_FLAT * mask.shape[1] ** 0.5
    norm = mask.square().sum(dim=1).clamp(min=floor**2).sqrt() * other.norm(dim=1).clamp(min=floor)
    return 1 - (mask * other).sum(dim=1) / norm


def _centred(maps: Tensor) -> Tensor:
    flat = maps.flatten(1)
    return flat - flat.mean(dim=1, keepdim=True)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bce": soft_cross_entropy,
    "l1": absolute_error,
    "mse": squared_error,
    "correlation": decorrelation,
}


def teacher_shares(weights: Tensor) -> Tensor:
    """How much each teacher counts for each pair: weights [N,T] >= 0 -> shares that sum to 1, or all 0, [N,T]."""
    total = weights.sum(dim=1, keepdim=True)
    return weights / total.where(total > 0, 1)


def mean_over_images(values: Tensor, image_index: Tensor, images: int) -> Tensor:
    """Mean over the pairs of each image, then over all images; one without a pair contributes 0 (as Eq. 6's bound).

    Args:
        values: [N].
        image_index: of each value, long [N].
        images: B.
    """
    pairs = torch.bincount(image_index, minlength=images).clamp(min=1)
    return (values / pairs[image_index]).sum() / images


def distillation_losses(
    mask_logits: MaskLogits, labels: Tensor, teacher_maps: Tensor, weights: Tensor, loss: str
) -> tuple[Tensor, Tensor]:
    """Pull the mask of each present class to its teachers' maps.

    Args:
        mask_logits: of the class masks, [B,C,H,W].
        labels: multi-hot [B,C], with N ones.
        teacher_maps: in the order of the ones, image by image: [N,T,H,W] in [0, 1].
        weights: of the teachers for each pair, [N,T] >= 0, 0 where one has no map; a pair without any costs nothing.
        loss: key of LOSSES.

    Returns:
        The loss, a scalar; and each teacher's own, unweighted mean over the pairs that it has a map of, [T] (NaN if it
        has none), without gradient.

    Raises:
        ValueError: if there are not as many maps as classes in the images.
    """
    image_index, target = labels.bool().nonzero(as_tuple=True)
    if len(target) != len(teacher_maps):
        raise ValueError(f"{len(target)} classes are in the images, but {len(teacher_maps)} have teacher maps.")
    masks = at_least_float32(mask_logits[image_index, target])
    measure = LOSSES[loss]
    maps = at_least_float32(teacher_maps)
    each = torch.stack([measure(masks, maps[:, teacher]) for teacher in range(maps.shape[1])], dim=1)
    total = mean_over_images((each * teacher_shares(weights)).sum(dim=1), image_index, len(labels))
    there = weights > 0
    own = (each.detach() * there).sum(dim=0) / there.sum(dim=0)
    return total, own
