"""What several references share: resizing, blurring, blending and scaling of masks and images, as plain loops.

An image is nested lists [channels][H][W], a mask [H][W].
"""

import math

from reference.nn_explainer import Mask

Image = list[Mask]


def filled(value: float, height: int, width: int) -> Mask:
    """A constant mask."""
    return [[value] * width for _ in range(height)]


def scaled(mask: Mask, factor: float) -> Mask:
    """Every pixel times a number."""
    return [[factor * value for value in row] for row in mask]


def added(first: Mask, second: Mask) -> Mask:
    """Pixelwise sum."""
    return [[a + b for a, b in zip(*rows, strict=True)] for rows in zip(first, second, strict=True)]


def min_max(mask: Mask) -> Mask | None:
    """Scale to [0, 1]; None for a flat mask, which has no scale."""
    values = [value for row in mask for value in row]
    low, high = min(values), max(values)
    return None if high == low else [[(value - low) / (high - low) for value in row] for row in mask]


def neighbours(source: int, target: int, align_corners: bool = False) -> list[list[tuple[int, float]]]:
    """For each of `target` points, the (index, weight) pairs of linear interpolation between `source` points.

    Without `align_corners` a point is the middle of its cell and what lies beyond the outermost middles is constant;
    with it the first and the last points of both scales coincide.
    """
    pairs = []
    for index in range(target):
        if align_corners:
            position = index * (source - 1) / (target - 1) if target > 1 else 0.0
        else:
            position = min(max((index + 0.5) * source / target - 0.5, 0.0), source - 1.0)
        lower = min(math.floor(position), source - 1)
        upper = min(lower + 1, source - 1)
        pairs.append([(lower, 1 - (position - lower)), (upper, position - lower)])
    return pairs


def bilinear(mask: Mask, height: int, width: int, align_corners: bool = False) -> Mask:
    """The mask at height × width pixels."""
    rows = neighbours(len(mask), height, align_corners)
    columns = neighbours(len(mask[0]), width, align_corners)
    return [[sum(v * h * mask[y][x] for y, v in row for x, h in column) for column in columns] for row in rows]


def bilinear_transposed(gradient: Mask, height: int, width: int, align_corners: bool = False) -> Mask:
    """Gradient for a height × width mask, given the gradient for what `bilinear` made of it."""
    total = filled(0.0, height, width)
    rows = neighbours(height, len(gradient), align_corners)
    columns = neighbours(width, len(gradient[0]), align_corners)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            for y, v in row:
                for x, h in column:
                    total[y][x] += v * h * gradient[i][j]
    return total


def gaussian_weights(size: int, sigma: float) -> list[float]:
    """A Gaussian at `size` (odd) whole numbers around 0, summing to one."""
    raw = [math.exp(-((i - size // 2) ** 2) / (2 * sigma**2)) for i in range(size)]
    return [weight / sum(raw) for weight in raw]


def gaussian_blur(image: Image, size: int, sigma: float) -> Image:
    """Each channel blurred with a size × size Gaussian; beyond the border pixels lies their mirror image.

    A Gaussian in two dimensions is a product of two in one: first every column is blurred, then every row.
    """
    weights = gaussian_weights(size, sigma)
    offsets = range(-(size // 2), size // 2 + 1)
    height, width = len(image[0]), len(image[0][0])
    assert size // 2 < min(height, width), "a mirror image reaches no further than the image itself"
    blurred = []
    for channel in image:
        columns, both = filled(0.0, height, width), filled(0.0, height, width)
        for i in range(height):
            for j in range(width):
                pairs = zip(weights, offsets, strict=True)
                columns[i][j] = sum(weight * channel[_mirrored(i + offset, height)][j] for weight, offset in pairs)
        for i in range(height):
            for j in range(width):
                pairs = zip(weights, offsets, strict=True)
                both[i][j] = sum(weight * columns[i][_mirrored(j + offset, width)] for weight, offset in pairs)
        blurred.append(both)
    return blurred


def _mirrored(index: int, length: int) -> int:
    if index < 0:
        return -index
    return 2 * (length - 1) - index if index >= length else index


def blended(image: Image, baseline: Image, mask: Mask) -> Image:
    """The image where the mask is 1, the baseline image where it is 0: x ⊙ m + x̃ ⊙ (1 - m)."""
    return [
        [[x * m + b * (1 - m) for x, b, m in zip(*rows, strict=True)] for rows in zip(channel, base, mask, strict=True)]
        for channel, base in zip(image, baseline, strict=True)
    ]
