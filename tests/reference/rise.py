"""RISE for one image, as plain loops: random masks from given draws, and their mean weighted with the scores.

H×W pixels; masks in [0, 1].
"""

import math
from collections.abc import Callable

from reference.nn_explainer import Mask, masked_image
from reference.pixels import Image, added, bilinear, filled, scaled


def cell_size(length: int, cells: int) -> int:
    """Pixels of a grid cell along one side; rounded up, so that a shifted grid still covers the image."""
    return math.ceil(length / cells)


def mask(draws: list[list[float]], probability: float, height: int, width: int, shift: tuple[int, int]) -> Mask:
    """One mask: a grid cell is on where its uniform draw lies below `probability`; enlarged, shifted, cropped.

    The h×w grid is enlarged to (h+1)·(cell height) × (w+1)·(cell width) pixels; `shift` is where the crop begins.
    """
    rows, columns = len(draws), len(draws[0])
    cell_height, cell_width = cell_size(height, rows), cell_size(width, columns)
    grid = [[1.0 if draw < probability else 0.0 for draw in row] for row in draws]
    large = bilinear(grid, (rows + 1) * cell_height, (columns + 1) * cell_width)
    top, left = shift
    return [row[left : left + width] for row in large[top : top + height]]


def saliency(image: Image, masks: list[Mask], score: Callable[[Image], float], probability: float) -> Mask:
    """Sum over the N masks of score(image ⊙ mask) · mask, divided by N p."""
    total = filled(0.0, len(masks[0]), len(masks[0][0]))
    for one in masks:
        total = added(total, scaled(one, score(masked_image(image, one))))
    return scaled(total, 1 / (len(masks) * probability))
