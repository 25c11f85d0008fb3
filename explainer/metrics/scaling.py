"""The one place where raw attribution maps become saliency maps in [0, 1].

B images, N maps, H×W pixels.
"""

import torch
from torch import Tensor


def to_unit_range(attribution: Tensor) -> Tensor:
    """Min-max scale each map [N,H,W] to [0, 1]; a flat map says nothing and becomes zero.

    Examples:
        >>> to_unit_range(torch.tensor([[[-1.0, 0.0, 3.0]], [[2.0, 2.0, 2.0]]]))
        tensor([[[0.0000, 0.2500, 1.0000]],
        <BLANKLINE>
                [[0.0000, 0.0000, 0.0000]]])
    """
    low = attribution.amin(dim=(1, 2), keepdim=True)
    span = attribution.amax(dim=(1, 2), keepdim=True) - low
    return torch.where(span > 0, (attribution - low) / span.where(span > 0, torch.ones_like(span)), 0.0)


def merged_saliency(attribution: Tensor, image_index: Tensor, images: int, unit_range: bool) -> Tensor:
    """Merge an image's class maps by their pixelwise maximum (NN-Explainer, Sec. 4.3), scaling each first.

    Args:
        attribution: raw maps [N,H,W].
        image_index: the image that each map belongs to, long [N].
        images: B.
        unit_range: True for maps that are masks in [0, 1] already; they are taken as they are.

    Returns:
        [B,H,W] in [0, 1]; zero for an image without a map.
    """
    scaled = attribution if unit_range else to_unit_range(attribution)
    merged = scaled.new_zeros(images, *scaled.shape[1:])
    return merged.scatter_reduce_(0, image_index[:, None, None].expand_as(scaled), scaled, "amax")
