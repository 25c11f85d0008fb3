"""Where a class is in the ground truth, and how much of a map lies there.

N maps or pictures, H×W pixels.
"""

import torch
from torch import Tensor

from datamodules.batch import VOID
from explainer.metrics.shortcut import mass_shares
from explainer.report.gallery import truth_shades


def shares_on_target(maps: Tensor, mask: Tensor | None, target: Tensor) -> list[float | None]:
    """The share of each map's mass on its class; None where the class is not seen, or the map is zero everywhere.

    Args:
        maps: [N,H,W] in [0, 1].
        mask: class indices [N,H,W], 0 for the background; void pixels don't count. None if there is no ground truth.
        target: class of each map, long [N].
    """
    if mask is None:
        return [None] * len(maps)
    owned = mask == target[:, None, None] + 1
    shares = mass_shares(maps.where(mask != VOID, 0.0), owned, torch.zeros_like(owned))["object"]
    known = owned.flatten(1).any(dim=1) & ~shares.isnan()
    return [share if is_known else None for share, is_known in zip(shares.tolist(), known.tolist(), strict=True)]


def truth_pictures(mask: Tensor, target: Tensor) -> Tensor:
    """The class white, other objects grey, the rest black, [N,1,H,W] in [0, 1]; arguments as for `shares_on_target`."""
    owned = mask == target[:, None, None] + 1
    others = (mask > 0) & (mask != VOID) & ~owned
    return torch.from_numpy(truth_shades(owned.cpu().numpy(), others.cpu().numpy()))[:, None]
