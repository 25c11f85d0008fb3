"""From class masks and labels to the masks that the losses see (NN-Explainer, Sec. 3).

B images, C classes, N pairs of an image and a class, h×w cells of the network's output, H×W pixels; masks lie in
[0, 1]: 1 keeps a pixel, 0 deletes it.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

CLASSES_AT_ONCE = 16
"""Of many classes, so many are enlarged at the same time."""


@dataclass(frozen=True, eq=False)
class CoarseLogits:
    """Class mask logits of many classes as the network gives them; only masks that are looked at are enlarged.

    It stands for the logits [B,C,H,W] that bilinear enlargement makes of the cells: the same numbers and gradients, up
    to rounding. A thousand classes of sixteen images at 224 px would fill 3.2 GB, and training needs several such
    tensors; the cells fill 50 MB.

    Args:
        cells: [B,C,h,w].
        size: (H, W).
    """

    cells: Tensor
    size: tuple[int, int]

    def __getitem__(self, pairs: tuple[Tensor, Tensor]) -> Tensor:
        """Logits [N,H,W] of some pairs: indices of images [N] and of classes [N], as one indexes a tensor."""
        image_index, class_index = pairs
        return self._enlarged(self.cells[image_index, class_index][:, None])[:, 0]

    def strongest(self, chosen: Tensor) -> Tensor:
        """Pixelwise maximum over chosen classes, bool [B,C], of each image: [B,H,W]; -inf where none is chosen.

        The maximum of enlarged masks is not the enlarged maximum of the cells. So all chosen masks are enlarged, a few
        at a time, to find each pixel's strongest class; of that one class the cells around the pixel are read again,
        which is where the gradient goes.
        """
        strongest = self._at(self._winners(chosen))
        return strongest.masked_fill(~chosen.any(dim=1)[:, None, None], -torch.inf)

    def areas(self) -> Tensor:
        """Mean of each class mask, [B,C]."""
        parts = self.cells.split(CLASSES_AT_ONCE, dim=1)
        return torch.cat([probability(self._enlarged(part)).mean(dim=(2, 3)) for part in parts], dim=1)

    @torch.no_grad()
    def _winners(self, chosen: Tensor) -> Tensor:
        """Index of the strongest chosen class at each pixel, [B,H,W]; of equal ones the first, as `max` has it."""
        best = torch.full((len(chosen), *self.size), -torch.inf, device=self.cells.device)
        winners = torch.zeros_like(best, dtype=torch.long)
        asked = chosen.any(dim=0).nonzero()[:, 0]
        for start in range(0, len(asked), CLASSES_AT_ONCE):
            classes = asked[start : start + CLASSES_AT_ONCE]
            masks = self._enlarged(self.cells[:, classes])
            value, place = masks.masked_fill(~chosen[:, classes, None, None], -torch.inf).max(dim=1)
            better = (value > best) | value.isnan()  # a class that is not a number must show in the loss
            best, winners = torch.where(better, value, best), torch.where(better, classes[place], winners)
        return winners

    def _at(self, classes: Tensor) -> Tensor:
        """The logit of one class a pixel, [B,H,W] -> [B,H,W], interpolated between the four cells around it."""
        height, width = self.cells.shape[-2:]
        exact = at_least_float32(self.cells[:0])  # of the type and on the device that positions are to have
        (top, bottom, down), (left, right, across) = (
            _between(large, small, exact) for large, small in zip(self.size, (height, width), strict=True)
        )
        corners = torch.stack([row[:, None] * width + column for row in (top, bottom) for column in (left, right)])
        place = classes[:, None] * (height * width) + corners
        values = at_least_float32(self.cells.flatten(1).gather(1, place.flatten(1)).view(place.shape))
        upper = torch.lerp(values[:, 0], values[:, 1], across)
        lower = torch.lerp(values[:, 2], values[:, 3], across)
        return torch.lerp(upper, lower, down[:, None])

    def _enlarged(self, cells: Tensor) -> Tensor:
        return enlarge(at_least_float32(cells), self.size)


MaskLogits = Tensor | CoarseLogits
"""Class mask logits [B,C,H,W], or what stands for them; both take `logits[image_index, class_index]`."""


def enlarge(cells: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Bilinear [B,C,h,w] -> [B,C,H,W]."""
    return F.interpolate(cells, size=size, mode="bilinear", align_corners=False)


def _between(large: int, small: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each pixel of a line the two cells that it lies between, and the second one's share, as `enlarge` has it."""
    place = ((torch.arange(large, device=like.device, dtype=like.dtype) + 0.5) * (small / large) - 0.5).clamp(min=0)
    first = place.long()
    return first, (first + 1).clamp(max=small - 1), place - first


def merge_masks(logits: MaskLogits, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Pixelwise maximum of the class masks of an image's classes (target mask) and of all others (non-target mask).

    Args:
        logits: class mask logits [B,C,H,W]; the class masks are S = sigmoid(logits).
        labels: multi-hot [B,C].

    Returns:
        Target mask m [B,H,W] and non-target mask n [B,H,W], float32 (float64 for float64 logits).
        A mask over no class (an image without a positive class, or with nothing but) is zero.
    """
    return target_mask(logits, labels), _merged(logits, ~labels.bool())


def target_mask(logits: MaskLogits, labels: Tensor) -> Tensor:
    """The first of the two masks of `merge_masks` alone."""
    return _merged(logits, labels.bool())


def _merged(logits: MaskLogits, chosen: Tensor) -> Tensor:
    # The sigmoid is monotonic: taking the maximum of the logits first saves a sigmoid over all C maps.
    # sigmoid(-inf) = 0 with zero gradient, which is just what a mask over no class should be.
    if isinstance(logits, CoarseLogits):
        return probability(logits.strongest(chosen))
    return probability(logits.masked_fill(~chosen[:, :, None, None], -torch.inf).max(dim=1).values)


def class_areas(logits: MaskLogits) -> Tensor:
    """Mean of each class mask, [B,C] in [0, 1]."""
    return logits.areas() if isinstance(logits, CoarseLogits) else probability(logits).mean(dim=(2, 3))


def probability(logits: Tensor) -> Tensor:
    """Sigmoid in at least float32: half-precision masks would round the sums of the losses."""
    return torch.sigmoid(at_least_float32(logits))


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor itself if it is float32 or float64, else as float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def apply_mask(image: Tensor, mask: Tensor) -> Tensor:
    """Multiply normalised images [B,3,H,W] by masks [B,H,W]: a deleted pixel takes the data set's mean colour."""
    return image * mask.unsqueeze(1).to(image.dtype)
