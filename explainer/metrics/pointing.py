"""Pointing game: does a map's maximum lie on the object? (PAMI, Table 2; Group-CAM, Sec. 4.4; SIGCAM, Table 3).

N maps, K boxes, C classes, H×W pixels.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

FEW = 200
"""Maxima of a map up to which looking around each of them is cheaper than widening the region."""


def pointing_hit(attribution: Tensor, region: Tensor, tolerance: int = 0) -> Tensor:
    """Whether each map's maximum lies within the region, or closer to it than `tolerance` pixels.

    Where several pixels share the maximum, each has an equal say (TorchRay asks the first alone): no map wins or loses
    by the order of its pixels, and a flat map scores what a blind guess would, the share of the image that is a hit.

    Args:
        attribution: maps [N,H,W], raw or scaled.
        region: bool [N,H,W], True on the objects of the class that the map explains.
        tolerance: a maximum also hits if the centre of some pixel of the region is less than this many pixels from its
            own, in a straight line; 15 in TorchRay, whose process PAMI follows, there of the image's original size;
            0 (and 1): only within, as in Group-CAM and SIGCAM.

    Returns:
        [N] in [0, 1], the share of a map's maxima that hit, which for a single maximum is 0 or 1. NaN for an empty
        region, which nothing could hit.

    Raises:
        ValueError: for a map that is not finite, for shapes that differ, and for a negative tolerance.

    Examples:
        >>> attribution, region = torch.zeros(1, 1, 5), torch.tensor([[[True, False, False, False, False]]])
        >>> attribution[0, 0, 2] = 1
        >>> pointing_hit(attribution, region), pointing_hit(attribution, region, tolerance=3)
        (tensor([0.]), tensor([1.]))
    """
    if attribution.ndim != 3 or attribution.shape != region.shape:
        raise ValueError(
            f"Maps {tuple(attribution.shape)} and regions {tuple(region.shape)} don't match; give [N,H,W] of both."
        )
    unusable = int((~attribution.isfinite()).flatten(1).any(dim=1).sum())
    if unusable:
        raise ValueError(f"{unusable} of {len(attribution)} maps hold NaN or infinity and have no maximum.")
    if tolerance < 0:
        raise ValueError(f"The pointing game's tolerance is {tolerance}; give 0 or more pixels.")
    region, reach = region.bool(), max(1, tolerance)
    peaks = attribution == attribution.amax(dim=(1, 2), keepdim=True)
    total = peaks.flatten(1).sum(dim=1)
    few = total <= FEW
    hits = torch.zeros_like(total)
    hits[few] = _look_around(peaks[few], region[few], reach)
    if not few.all():
        hits[~few] = (peaks[~few] & _widened(region[~few], reach)).flatten(1).sum(dim=1)
    return (hits / total).masked_fill(~region.flatten(1).any(dim=1), torch.nan)


def _look_around(peaks: Tensor, region: Tensor, reach: int) -> Tensor:
    """How many of each map's maxima have a pixel of the region closer than `reach`, long [N]; `peaks` is bool [N,H,W].

    Neither this nor `_widened` adds up floats, so that autocast to 16 bits changes no hit.
    """
    index, row, column = (place[:, None] for place in peaks.nonzero(as_tuple=True))
    offset = torch.arange(1 - reach, reach, device=region.device)
    down, across = (offset[:, None] ** 2 + offset**2 < reach**2).nonzero(as_tuple=True)  # counted from 0
    around = F.pad(region, (reach - 1,) * 4)[index, row + down, column + across]
    return torch.bincount(index[around.any(dim=1), 0], minlength=len(peaks))


def _widened(region: Tensor, reach: int) -> Tensor:
    """The pixels [N,H,W] that are closer than `reach` to one of the region, found row by row."""
    height, width = region.shape[1:]
    column = torch.arange(width, device=region.device)
    count = F.pad(region.cumsum(dim=2, dtype=torch.int32), (1, 0))  # the region's pixels left of each column's edge
    widened = torch.zeros_like(region)
    for down in range(min(reach, height)):
        across = math.isqrt(reach**2 - down**2 - 1)
        left, right = (column - across).clamp(min=0), (column + across + 1).clamp(max=width)
        near = count.index_select(2, right) > count.index_select(2, left)
        widened[:, down:] |= near[:, : height - down]
        widened[:, : height - down] |= near[:, down:]
    return widened


def boxes_to_region(boxes: Tensor, height: int, width: int) -> Tensor:
    """The union of boxes, the region where a data set has no segmentation (Group-CAM, Sec. 4.4; TorchRay for VOC).

    Args:
        boxes: [K,4], left, top, right and bottom edge, in pixels from the image's left and top edge. (VOC's `xmin` and
            `ymin` count from 1: subtract 1 from these two. COCO's last two are sizes: add the first two.)
        height: H.
        width: W.

    Returns:
        Bool [H,W], True where a pixel's centre lies in a box; empty for no box.
    """
    left, top, right, bottom = boxes.reshape(-1, 4, 1).unbind(dim=1)
    row, column = (torch.arange(size, device=boxes.device) + 0.5 for size in (height, width))
    inside_rows, inside_columns = (row >= top) & (row < bottom), (column >= left) & (column < right)
    return (inside_rows[:, :, None] & inside_columns[:, None]).any(dim=0)


class PointingGame(Metric):
    """Hit rates of the pointing game, additive over devices.

    Which classes of an image to ask about is the caller's choice: SIGCAM takes those with a score above 0.5, TorchRay
    leaves out those of which VOC calls every object difficult.

    Args:
        classes: C.
        tolerance: as in `pointing_hit`.
    """

    full_state_update = False
    hits: Tensor
    maps: Tensor

    def __init__(self, classes: int, tolerance: int = 0) -> None:
        super().__init__()
        self.tolerance = tolerance
        for name in ("hits", "maps"):
            self.add_state(name, torch.zeros(classes, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, attribution: Tensor, region: Tensor, target: Tensor) -> None:
        """Add maps [N,H,W] with the regions [N,H,W] of their classes [N]; those with an empty region don't count."""
        hits = pointing_hit(attribution, region, self.tolerance).double()
        scored = ~hits.isnan()
        self.hits = self.hits.index_add(0, target, hits.nan_to_num(0.0))
        self.maps = self.maps.index_add(0, target, scored.double())

    def compute(self) -> dict[str, Any]:
        """The hit rates and the number of maps that were scored.

        Returns:
            `per_class`: [C] in [0, 1], NaN for a class without a scored map. `mean`: over the other classes, as in the
            papers (TorchRay's own code counts classes that don't occur as 0). `overall`: over maps. `maps`: their
            number. Without a scored map, both means are NaN.
        """
        per_class = self.hits / self.maps
        return {
            "per_class": per_class,
            "mean": per_class.nanmean().item(),
            "overall": (self.hits.sum() / self.maps.sum()).item(),
            "maps": int(self.maps.sum().item()),
        }
