"""Agreement of a continuous mask with the ground-truth segmentation (NN-Explainer, Sec. 4.3 and Eq. 9).

B images, C classes, H×W pixels; masks lie in [0, 1].
"""

import torch
from torch import Tensor
from torchmetrics import Metric

SMALLEST_AREA = 0.05
"""Eq. 9 gives no credit for masks smaller than this share of the image."""


def agreement(mask: Tensor, ground_truth: Tensor, valid: Tensor | None = None) -> dict[str, Tensor]:
    """Accuracy, IoU and mean absolute error per image, none of them thresholded.

    Args:
        mask: [B,H,W] in [0, 1].
        ground_truth: [B,H,W], 1 (or True) on the objects, else 0.
        valid: bool [B,H,W], False for pixels that don't count (void); None counts all.

    Returns:
        `acc`, `iou` and `mae`, [B] each, in [0, 1]. An empty mask on an empty ground truth has IoU 1.
        NaN for an image without a valid pixel.

    Examples:
        >>> mask, truth = torch.tensor([[[1.0, 0.5], [0.0, 0.0]]]), torch.tensor([[[1, 1], [0, 0]]])
        >>> {name: round(value.item(), 3) for name, value in agreement(mask, truth).items()}
        {'acc': 0.875, 'iou': 0.75, 'mae': 0.125}
    """
    truth = ground_truth.to(mask.dtype)
    weight = torch.ones_like(mask) if valid is None else valid.to(mask.dtype)
    pixels = _sum(weight)
    intersection, union = _sum(weight * torch.minimum(mask, truth)), _sum(weight * torch.maximum(mask, truth))
    correct = _sum(weight * (mask * truth + (1 - mask) * (1 - truth)))
    return {
        "acc": correct / pixels,
        "iou": torch.where(union > 0, intersection / union.clamp(min=torch.finfo(mask.dtype).tiny), pixels / pixels),
        "mae": _sum(weight * (mask - truth).abs()) / pixels,
    }


def saliency(mask: Tensor, log_probabilities: Tensor, labels: Tensor) -> Tensor:
    """Saliency score of Eq. 9 per image: log of the mask's area minus log of what the classifier still recognises.

    Args:
        mask: [B,H,W] in [0, 1].
        log_probabilities: log-softmax of the explanandum's logits for the masked image, [B,C]; the logarithm, since a
            probability may be too small for a float.
        labels: multi-hot [B,C]; each class counts once, however many objects it has.

    Returns:
        [B]; smaller is better; inf for an image without a class.
    """
    area = mask.flatten(1).mean(dim=1).clamp(min=SMALLEST_AREA)
    return area.log() - log_probabilities.masked_fill(~labels.bool(), -torch.inf).logsumexp(dim=1)


def _sum(values: Tensor) -> Tensor:
    return values.flatten(1).sum(dim=1)


class SegmentationAgreement(Metric):
    """Means over images of accuracy, IoU, saliency score and mean absolute error; additive over devices.

    Accuracy, IoU and error are in percent, as in Table 2. An image without a valid pixel has none of the three, one
    without a class no saliency score: neither changes the mean that it is no part of.
    """

    full_state_update = False
    sal: Tensor
    images: Tensor
    agreement_images: Tensor
    saliency_images: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("acc", "iou", "sal", "mae", "images", "agreement_images", "saliency_images"):
            self.add_state(name, torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, mask: Tensor, truth: Tensor, valid: Tensor, log_probabilities: Tensor, labels: Tensor) -> None:
        """Add a batch; shapes as in `agreement` and `saliency`."""
        has_pixels, has_class = valid.flatten(1).any(dim=1), labels.bool().any(dim=1)
        scores = agreement(mask, truth, valid)
        for name in ("acc", "iou", "mae"):
            self._add(name, 100 * scores[name][has_pixels])
        self._add("sal", saliency(mask, log_probabilities, labels)[has_class])
        self.images += len(mask)
        self.agreement_images += has_pixels.sum()
        self.saliency_images += has_class.sum()

    def _add(self, name: str, values: Tensor) -> None:
        setattr(self, name, getattr(self, name) + values.double().sum())

    def compute(self) -> dict[str, float]:
        """The means and the numbers of images that they rest on.

        Returns:
            `acc`, `iou`, `sal` and `mae`, NaN without an image that has one; `images`: all that were added;
            `agreement_images`: those with a valid pixel, hence with `acc`, `iou` and `mae`; `saliency_images`: those
            with a class, hence with `sal`.
        """
        means = {name: (getattr(self, name) / self.agreement_images).item() for name in ("acc", "iou", "mae")}
        counts = {name: int(getattr(self, name).item()) for name in ("images", "agreement_images", "saliency_images")}
        return means | {"sal": (self.sal / self.saliency_images).item()} | counts
