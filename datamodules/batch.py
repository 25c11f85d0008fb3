"""The one batch type that every data set yields and every consumer takes.

B images, C classes, H×W pixels.
"""

from typing import NamedTuple

from torch import Tensor

VOID = 255
"""Mask value of pixels that belong to no class and not to the background either (PASCAL VOC's convention)."""


class Batch(NamedTuple):
    """A batch of images with their labels and, where the data set has them, masks.

    Attributes:
        image: float32 [B,3,H,W], normalised with the explanandum's mean and standard deviation.
        labels: float32 [B,C], 1 where the class is present, else 0 (multi-hot).
        image_id: B names, unique within the data set.
        mask: uint8 [B,H,W]: 0 background, i + 1 for class i, 255 void; None where no image of the split has a mask.
            An image without a mask in a split that has some is all void.
        cue_mask: bool [B,H,W], True where a planted shortcut lies (`shapes` only), else None.
        skipped: names of the broken files that were left out of this batch (`--on_bad_image skip`).
    """

    image: Tensor
    labels: Tensor
    image_id: tuple[str, ...]
    mask: Tensor | None = None
    cue_mask: Tensor | None = None
    skipped: tuple[str, ...] = ()
