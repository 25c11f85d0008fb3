"""How alike two attribution maps are, for sanity checks (Adebayo et al., 2018; Group-CAM, Sec. 4.5).

N pairs of maps, H×W pixels.
"""

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from explainer.metrics.scaling import to_unit_range


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's correlation of each pair of maps, equal values sharing their mean rank.

    A flat map orders no pixels, so it is unlike any other map (0), and like another flat one (1): a method whose map is
    flat whatever the classifier does must not pass for one that depends on it.

    Args:
        first: finite raw maps [N,H,W]; signed ones as they are, or their absolute values (Adebayo et al. show both).
        second: likewise.

    Returns:
        float32 [N] in [-1, 1].

    Examples:
        >>> one, other = torch.tensor([[[1.0, 2.0, 4.0]]]), torch.tensor([[[1.0, 8.0, 9.0]]])
        >>> rank_correlation(one, other), rank_correlation(one, -other)
        (tensor([1.]), tensor([-1.]))
    """
    _check(first, second)
    one, other = _centred_ranks(first), _centred_ranks(second)
    both_flat = ~(one.any(dim=1) | other.any(dim=1))
    lengths = one.norm(dim=1) * other.norm(dim=1)
    correlation = (one * other).sum(dim=1) / lengths.where(lengths > 0, 1.0)
    return correlation.clamp(-1, 1).masked_fill(both_flat, 1.0).float()


def structural_similarity(first: Tensor, second: Tensor) -> Tensor:
    """SSIM of each pair of maps, scaled to [0, 1] first; 11×11 Gaussian window of sigma 1.5 (Wang et al., 2004).

    Two maps that are nearly empty are alike wherever both are, so compare values between methods with care.

    Args:
        first: finite raw maps [N,H,W], at least 11 pixels high and wide.
        second: likewise.

    Returns:
        float32 [N] in [-1, 1], 1 for equal maps.

    Raises:
        ValueError: If the maps are smaller than the window, or the two shapes differ.
    """
    _check(first, second)
    if min(first.shape[1:]) < 11:
        raise ValueError(
            f"SSIM needs maps of at least 11x11 pixels, got {first.shape[1]}x{first.shape[2]}; resize them."
        )
    if not len(first):
        return torch.zeros(0, device=first.device)
    one, other = (to_unit_range(maps.detach().float())[:, None] for maps in (first, second))
    with torch.autocast(one.device.type, enabled=False):  # it subtracts squares: bfloat16 would leave noise
        similarity = structural_similarity_index_measure(one, other, data_range=1.0, reduction="none")
    assert isinstance(similarity, Tensor)  # and not also the full image, which was not asked for
    return similarity


def _centred_ranks(maps: Tensor) -> Tensor:
    """Ranks of each map's pixels, minus their mean: [N,H,W] -> float64 [N,H·W].

    A value's mean rank lies halfway between the number of smaller values and the number of values not greater.
    """
    values = maps.detach().flatten(1).contiguous()
    ordered = values.sort(dim=1).values
    smaller = torch.searchsorted(ordered, values)
    not_greater = torch.searchsorted(ordered, values, right=True)
    return (smaller + not_greater).double() / 2 - values.shape[1] / 2


def _check(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape or first.ndim != 3:
        raise ValueError(f"Expected two stacks of maps [N,H,W] of one shape, got {first.shape} and {second.shape}.")
