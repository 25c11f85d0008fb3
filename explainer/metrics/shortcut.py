"""Where a map's mass lies on images with a planted shortcut: on the object, on the cue or elsewhere.

The embedded data set `shapes` plants the cue. An explanandum that learned to rely on it is explained faithfully only by
maps that show it. N maps, H×W pixels.
"""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from explainer.masking import at_least_float32

PARTS = ("object", "cue", "rest")


def mass_shares(attribution: Tensor, object_region: Tensor, cue_region: Tensor) -> dict[str, Tensor]:
    """The shares of each map's sum that lie on the object, on the cue and on the rest of the image.

    Args:
        attribution: [N,H,W], nowhere negative: masks, or maps after `to_unit_range`.
        object_region: bool [N,H,W], the objects of the class that the map explains.
        cue_region: bool [N,H,W]; where it covers an object, what is seen is the cue, so the cue counts.

    Returns:
        `object`, `cue` and `rest`, [N] each, in [0, 1], that sum to 1; NaN for a map that is zero everywhere.

    Raises:
        ValueError: for a negative or non-finite map, and for shapes that differ.

    Examples:
        >>> maps, places = torch.tensor([[[0.5, 0.25, 0.25]]]), torch.eye(3, dtype=torch.bool)
        >>> mass_shares(maps, places[0][None, None], places[1][None, None])
        {'object': tensor([0.5000]), 'cue': tensor([0.2500]), 'rest': tensor([0.2500])}
    """
    if attribution.ndim != 3 or not attribution.shape == object_region.shape == cue_region.shape:
        shapes = ", ".join(str(tuple(part.shape)) for part in (attribution, object_region, cue_region))
        raise ValueError(f"Maps, objects and cues don't match: {shapes}; give [N,H,W] of all three.")
    if not (attribution.isfinite() & (attribution >= 0)).all():
        raise ValueError("A map holds negative or non-finite values, which have no share; scale it by to_unit_range.")
    values, cue = at_least_float32(attribution), cue_region.bool()
    regions = torch.stack([object_region.bool() & ~cue, cue, ~object_region.bool() & ~cue])
    # Of a maximum of 1, so that no sum overflows or vanishes.
    values = values / values.amax(dim=(1, 2), keepdim=True)
    mass = (values * regions).flatten(2).sum(dim=2)
    return dict(zip(PARTS, mass / mass.sum(dim=0), strict=True))


class ShortcutShares(Metric):
    """Means over maps of `mass_shares`; additive over devices."""

    full_state_update = False
    maps: Tensor
    empty: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in (*PARTS, "maps", "empty"):
            self.add_state(name, torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, attribution: Tensor, object_region: Tensor, cue_region: Tensor) -> None:
        """Add maps; shapes as in `mass_shares`. Maps that are zero everywhere have no share and are only counted."""
        shares = mass_shares(attribution, object_region, cue_region)
        for name, values in shares.items():
            setattr(self, name, getattr(self, name) + values.double().nansum())
        empty = shares["object"].isnan().sum()
        self.empty = self.empty + empty
        self.maps = self.maps + len(attribution) - empty

    def compute(self) -> dict[str, Any]:
        """`object`, `cue` and `rest` (means in [0, 1]), `maps` (number that they are over) and `empty` (left out)."""
        means = {name: (getattr(self, name) / self.maps).item() for name in PARTS}
        return means | {"maps": int(self.maps.item()), "empty": int(self.empty.item())}
