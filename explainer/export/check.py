"""How far an exported model's masks are from PyTorch's, on photographs.

B images, C classes, H×W pixels.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from explainer.explaining import open_photograph
from explainer.export.formats import SMALLEST, Run
from explainer.export.model import Precision

TOLERANCE: dict[Precision, float] = {"32": 1e-3, "16": 0.05, "bf16": 0.25}
"""Of masks, which lie in [0, 1]: beyond it the exported model is another one. bf16 has three digits at most."""


def photographs(files: Sequence[Path]) -> list[Tensor]:
    """RGB [3,H,W] in [0, 1]; without files those that come with scikit-image.

    Raises:
        ValueError: if there is no such file, or it is no image that can be used.
    """
    if files:
        pictures = [np.asarray(open_photograph(file)) for file in files]
    else:
        from skimage import data

        pictures = [load() for load in (data.astronaut, data.chelsea, data.coffee, data.rocket)]
    return [torch.from_numpy(picture.copy()).permute(2, 0, 1) / 255 for picture in pictures]


def batches(pictures: Sequence[Tensor], size: int) -> list[Tensor]:
    """The pictures as one batch of squares, and each of the first two alone in another shape, wide and high."""
    size = max(size, SMALLEST)
    shapes = [(len(pictures), size, size), (1, max(size * 3 // 4, SMALLEST), size + 9), (1, size + 14, size)]
    return [
        torch.cat([_resized(picture, (height, width)) for picture in pictures[:count]])
        for count, height, width in shapes
    ]


def _resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(picture[None], size=size, mode="bilinear", antialias=True).clamp(0, 1)


@torch.no_grad()
def differences(model: Run, run: Run, images: Sequence[Tensor]) -> dict[str, float]:
    """Largest difference of any mask at any pixel, by shape of the batch, as in `4x3x224x224`."""
    return {"x".join(map(str, image.shape)): float((model(image) - run(image)).abs().max().item()) for image in images}
