"""Group-CAM (Algorithm 1, Eq. 1-7) for one image, as plain loops.

K channels of h×w activations, images of H×W pixels. Where the paper leaves the order open (filter, resize, scale), it
is that of the authors' first code: filter at the activations' resolution, resize, scale.
"""

import math
from collections.abc import Callable

from reference.nn_explainer import Mask
from reference.pixels import Image, added, bilinear, blended, filled, gaussian_blur, min_max, scaled


def weights(gradients: list[Mask]) -> list[float]:
    """w_k, the mean over a channel's pixels of the gradient of the class's logit (Eq. 1)."""
    return [sum(sum(row) for row in channel) / (len(channel) * len(channel[0])) for channel in gradients]


def consecutive_groups(channels: int, groups: int) -> list[list[int]]:
    """Channel numbers, split in order into `groups` lists as even as can be, the longer ones first."""
    split, start = [], 0
    for index in range(groups):
        length = channels // groups + (1 if index < channels % groups else 0)
        split.append(list(range(start, start + length)))
        start += length
    return split


def percentile(values: list[float], theta: float) -> float:
    """The θ-th percentile, linear between the two nearest values."""
    ordered = sorted(values)
    position = theta / 100 * (len(ordered) - 1)
    lower = math.floor(position)
    upper = min(lower + 1, len(ordered) - 1)
    return ordered[lower] + (position - lower) * (ordered[upper] - ordered[lower])


def denoised(mask: Mask, theta: float) -> Mask:
    """Zero all that isn't above the θ-th percentile (Eq. 3)."""
    threshold = percentile([value for row in mask for value in row], theta)
    return [[value if value > threshold else 0.0 for value in row] for row in mask]


def group_mask(activations: list[Mask], channel_weights: list[float], group: list[int]) -> Mask:
    """M_ℓ = ReLU of the group's weighted sum of activations (Eq. 2)."""
    total = filled(0.0, len(activations[0]), len(activations[0][0]))
    for k in group:
        total = added(total, scaled(activations[k], channel_weights[k]))
    return [[max(value, 0.0) for value in row] for row in total]


def group_cam(
    image: Image,
    activations: list[Mask],
    gradients: list[Mask],
    score: Callable[[Image], float],
    *,
    groups: int,
    theta: float | None,
    blur_size: int,
    blur_sigma: float,
) -> Mask:
    """Algorithm 1: ReLU of the sum of α_ℓ M'_ℓ; a flat group has no M'_ℓ and adds nothing.

    θ None leaves out the de-noising.
    """
    height, width = len(image[0]), len(image[0][0])
    baseline = gaussian_blur(image, blur_size, blur_sigma)
    lowest = score(baseline)
    channel_weights = weights(gradients)
    total = filled(0.0, height, width)
    for group in consecutive_groups(len(activations), groups):
        mask = group_mask(activations, channel_weights, group)
        if theta is not None:
            mask = denoised(mask, theta)
        mask = min_max(bilinear(mask, height, width))  # Eq. 4
        if mask is not None:
            gain = score(blended(image, baseline, mask)) - lowest  # Eq. 5-6
            total = added(total, scaled(mask, gain))
    return [[max(value, 0.0) for value in row] for row in total]  # Eq. 7
