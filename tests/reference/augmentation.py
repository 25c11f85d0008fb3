"""The image that Group-CAM hands to a classifier in training (Group-CAM, Sec. 5), for one image, as plain loops.

K channels of h×w activations, images of H×W pixels, C classes.
"""

from collections.abc import Callable

from reference.group_cam import group_cam
from reference.nn_explainer import Mask
from reference.pixels import Image, blended, filled, gaussian_blur


def binarised(mask: Mask) -> Mask:
    """1 where the mask is greater than the mean of its pixels, else 0 (step 2)."""
    pixels = [value for row in mask for value in row]
    mean = sum(pixels) / len(pixels)
    return [[1.0 if value > mean else 0.0 for value in row] for row in mask]


def fine_tuning_image(
    image: Image,
    labels: list[float],
    activations: list[Mask],
    probabilities: Callable[[Image], list[float]],
    *,
    groups: int,
    blur_size: int,
    blur_sigma: float,
) -> Image:
    """Steps 1-3 for every class of the image; whatever is kept for one of them is kept, all else blurred.

    The importance weights are removed, which is a gradient of 1 everywhere, and so is the de-noising.
    """
    height, width = len(image[0]), len(image[0][0])
    ones = [filled(1.0, len(channel), len(channel[0])) for channel in activations]
    kept = filled(0.0, height, width)
    for c, present in enumerate(labels):
        if not present:
            continue

        def score(picture: Image, c: int = c) -> float:
            return probabilities(picture)[c]

        settings = {"groups": groups, "theta": None, "blur_size": blur_size, "blur_sigma": blur_sigma}
        binary = binarised(group_cam(image, activations, ones, score, **settings))
        kept = [[max(pair) for pair in zip(*rows, strict=True)] for rows in zip(kept, binary, strict=True)]
    if not any(value for row in kept for value in row):
        return image
    return blended(image, gaussian_blur(image, blur_size, blur_sigma), kept)
