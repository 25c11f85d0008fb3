"""I-GOS for one image, as plain loops: its objective, integrated gradient and line search (SIGCAM Eq. 6 restates them).

The mask is h×w, the image H×W; a mask of ones keeps the image, a mask of zeros leaves the baseline image.
"""

from collections.abc import Callable
from typing import NamedTuple

from reference.nn_explainer import Mask
from reference.pixels import Image, added, bilinear, bilinear_transposed, blended, filled, scaled


class Problem(NamedTuple):
    """What is minimised.

    Args:
        image: the image to explain.
        baseline: what takes the place of deleted pixels.
        score: image -> probability of the class.
        score_gradient: image -> gradient of `score`, shaped as the image.
        l1: weight of the mean of |1 - m|.
        tv: weight of the total variation.
        align_corners: how the mask is enlarged.
    """

    image: Image
    baseline: Image
    score: Callable[[Image], float]
    score_gradient: Callable[[Image], Image]
    l1: float
    tv: float
    align_corners: bool = False


def total_variation(mask: Mask) -> float:
    """Mean squared difference between vertical neighbours plus that between horizontal ones (β = 2)."""
    height, width = len(mask), len(mask[0])
    down = [(mask[i + 1][j] - mask[i][j]) ** 2 for i in range(height - 1) for j in range(width)]
    right = [(mask[i][j + 1] - mask[i][j]) ** 2 for i in range(height) for j in range(width - 1)]
    return sum(down) / len(down) + sum(right) / len(right)


def total_variation_gradient(mask: Mask) -> Mask:
    """Derivative of `total_variation` by each pixel."""
    height, width = len(mask), len(mask[0])
    gradient = filled(0.0, height, width)
    for i in range(height):
        for j in range(width):
            if i + 1 < height:
                slope = 2 * (mask[i + 1][j] - mask[i][j]) / ((height - 1) * width)
                gradient[i + 1][j] += slope
                gradient[i][j] -= slope
            if j + 1 < width:
                slope = 2 * (mask[i][j + 1] - mask[i][j]) / (height * (width - 1))
                gradient[i][j + 1] += slope
                gradient[i][j] -= slope
    return gradient


def deleted_area(mask: Mask) -> float:
    """Mean of |1 - m|."""
    return sum(abs(1 - value) for row in mask for value in row) / (len(mask) * len(mask[0]))


def deleted_area_gradient(mask: Mask) -> Mask:
    """Derivative of `deleted_area` by each pixel; 0, the middle of the subgradients, where m = 1 exactly."""
    pixels = len(mask) * len(mask[0])
    return [[0.0 if value == 1 else (-1 if value < 1 else 1) / pixels for value in row] for row in mask]


def masked(problem: Problem, mask: Mask, fraction: float = 1.0) -> Image:
    """Φ(x, fraction · up(m)): the image with what the mask deletes replaced by the baseline image."""
    large = bilinear(mask, len(problem.image[0]), len(problem.image[0][0]), problem.align_corners)
    return blended(problem.image, problem.baseline, scaled(large, fraction))


def objective(problem: Problem, mask: Mask) -> float:
    """The class's probability on Φ(x, up(m)) plus the weighted area and total variation of the small mask."""
    regulariser = problem.l1 * deleted_area(mask) + problem.tv * total_variation(mask)
    return problem.score(masked(problem, mask)) + regulariser


def integrated_gradient(problem: Problem, mask: Mask, steps: int, noise: list[Image] | None = None) -> Mask:
    """Mean over s = 1…S of the gradient by m of the score of Φ(x, s/S · up(m)) + noise_s, plus the regulariser's."""
    height, width = len(mask), len(mask[0])
    total = filled(0.0, height, width)
    for step in range(1, steps + 1):
        image = masked(problem, mask, step / steps)
        if noise is not None:
            image = [added(*channels) for channels in zip(image, noise[step - 1], strict=True)]
        by_pixel = problem.score_gradient(image)
        by_large_mask = filled(0.0, len(image[0]), len(image[0][0]))
        for channel, original, base in zip(by_pixel, problem.image, problem.baseline, strict=True):
            for i in range(len(channel)):
                for j in range(len(channel[0])):
                    by_large_mask[i][j] += channel[i][j] * (original[i][j] - base[i][j]) * step / steps
        part = bilinear_transposed(by_large_mask, height, width, problem.align_corners)
        for i in range(height):
            for j in range(width):
                total[i][j] += part[i][j] / steps
    area, variation = deleted_area_gradient(mask), total_variation_gradient(mask)
    return [
        [total[i][j] + problem.l1 * area[i][j] + problem.tv * variation[i][j] for j in range(width)]
        for i in range(height)
    ]


def line_search(
    function: Callable[[Mask], float],
    mask: Mask,
    gradient: Mask,
    *,
    first_step: float = 200.0,
    shrink: float = 0.2,
    smallest_step: float = 1e-5,
    armijo: float = 1e-4,
) -> tuple[Mask, float]:
    """The clamped mask after the longest accepted step, and that step; the mask itself and 0 if none is accepted.

    A step t is accepted if f(new) <= f(old) - armijo · t · |g|². Refused steps are multiplied with `shrink` until they
    are below `smallest_step`.
    """
    before = function(mask)
    square = sum(value**2 for row in gradient for value in row)
    step = first_step
    while step >= smallest_step:
        moved = [
            [min(max(m - step * g, 0.0), 1.0) for m, g in zip(*rows, strict=True)]
            for rows in zip(mask, gradient, strict=True)
        ]
        if function(moved) <= before - armijo * step * square:
            return moved, step
        step *= shrink
    return mask, 0.0


def optimise(problem: Problem, start: Mask, *, iterations: int, steps: int, first_step: float = 200.0) -> Mask:
    """The small mask after so many integrated gradients without noise, each followed by a line search."""
    mask = start
    for _ in range(iterations):
        gradient = integrated_gradient(problem, mask, steps)
        mask, _ = line_search(lambda m: objective(problem, m), mask, gradient, first_step=first_step)
    return mask


def heatmap(problem: Problem, mask: Mask) -> Mask:
    """1 - up(m): large where deleting lowers the score."""
    large = bilinear(mask, len(problem.image[0]), len(problem.image[0][0]), problem.align_corners)
    return [[1 - value for value in row] for row in large]
