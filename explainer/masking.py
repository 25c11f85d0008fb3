"""From class masks and labels to the masks that the losses see (NN-Explainer, Sec. 3).

B images, C classes, H×W pixels; masks lie in [0, 1]: 1 keeps a pixel, 0 deletes it.
"""

import torch
from torch import Tensor


def merge_masks(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Pixelwise maximum of the class masks of an image's classes (target mask) and of all others (non-target mask).

    Args:
        logits: class mask logits [B,C,H,W]; the class masks are S = sigmoid(logits).
        labels: multi-hot [B,C].

    Returns:
        Target mask m [B,H,W] and non-target mask n [B,H,W], float32 (float64 for float64 logits).
        A mask over no class (an image without a positive class, or with nothing but) is zero.
    """
    present = labels.bool()[:, :, None, None]
    return _merged(logits, present), _merged(logits, ~present)


def _merged(logits: Tensor, chosen: Tensor) -> Tensor:
    # The sigmoid is monotonic: taking the maximum of the logits first saves a sigmoid over all C maps.
    # sigmoid(-inf) = 0 with zero gradient, which is just what a mask over no class should be.
    strongest = logits.masked_fill(~chosen, -torch.inf).max(dim=1).values
    return probability(strongest)


def probability(logits: Tensor) -> Tensor:
    """Sigmoid in at least float32: half-precision masks would round the sums of the losses."""
    return torch.sigmoid(at_least_float32(logits))


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor itself if it is float32 or float64, else as float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def apply_mask(image: Tensor, mask: Tensor) -> Tensor:
    """Multiply normalised images [B,3,H,W] by masks [B,H,W]: a deleted pixel takes the data set's mean colour."""
    return image * mask.unsqueeze(1).to(image.dtype)
