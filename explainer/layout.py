"""How a layer's output lies over the image: maps, maps with the channels last, or a grid of tokens in a row.

B images, K channels, h×w cells, T tokens, H×W pixels.
"""

from math import sqrt

from torch import Tensor

MOST_BEFORE = 16
"""Tokens at most that precede those of the image: the class token, and registers."""


def to_maps(output: Tensor, size: tuple[int, int]) -> Tensor | None:
    """A layer's output as maps [B,K,h,w], a view of it, or None where it is no picture of the image.

    What has four axes is [B,K,h,w], as convolutions give it, unless the image's shape says that it is [B,h,w,K], as in
    Swin transformers. What has three is a row of tokens [B,T,K], as in vision transformers: the image's, line by line,
    are the last h·w of them, after the class token and registers.

    Args:
        output: of the layer.
        size: H, W of the images.
    """
    if output.ndim == 4:
        _, *axes, last = output.shape
        channels_last = not _covers(axes[1], last, size) and _covers(axes[0], axes[1], size)
        return output.permute(0, 3, 1, 2) if channels_last else output
    if output.ndim == 3 and (grid := token_grid(output.shape[1], size)):
        return output[:, -grid[0] * grid[1] :].unflatten(1, grid).permute(0, 3, 1, 2)
    return None


def token_grid(tokens: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """h, w of the largest grid over images of H×W that leaves no more than `MOST_BEFORE` of the tokens, or None."""
    for cells in range(tokens, max(0, tokens - MOST_BEFORE - 1), -1):
        height, width = _cells_of(cells, size)
        if height * width == cells:
            return height, width
    return None


def _covers(height: int, width: int, size: tuple[int, int]) -> bool:
    """Whether so many cells down and across, if they are square, cover images of H×W."""
    return (height, width) == _cells_of(height * width, size)


def _cells_of(count: int, size: tuple[int, int]) -> tuple[int, int]:
    """Square cells down and across images of H×W if there were `count` of them, rounded."""
    side = sqrt(size[0] * size[1] / count)
    return round(size[0] / side), round(size[1] / side)
