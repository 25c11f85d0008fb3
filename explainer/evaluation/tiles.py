"""Pictures small enough for a record and a cell of a CSV file, for the tables that figures are drawn from.

B images, K channels, H×W pixels.
"""

import base64
import io

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from explainer.evaluation.images import Images
from explainer.report.gallery import TILE

THUMBNAIL = 160
QUALITY = 80
"""Of a WebP; a PNG loses nothing anyway."""
PHOTOGRAPH = "photograph"
"""The row of a table that holds the photographs."""


def photographs(images: Images) -> Tensor:
    """As they were before they were normalised, [B,3,H,W] in [0, 1]."""
    card = images.explanandum.card
    mean, std = (images.image.new_tensor(values)[:, None, None] for values in (card.mean, card.std))
    return (images.image * std + mean).clamp(0, 1)


def tile(picture: Tensor) -> str:
    """A picture [K,H,W] in [0, 1], grey (K = 1) or RGB, as a PNG in base64, at most `TILE` pixels a side.

    Each pixel of the tile is the mean of an area, so that nothing thin falls through. Its text stays well below the
    131072 letters that Python reads from a cell of a CSV file.
    """
    return _written(picture, TILE, "PNG")


def thumbnail(picture: Tensor) -> str:
    """The same as a WebP, at most `THUMBNAIL` pixels a side: a tenth of the bytes, and nothing that the eye misses."""
    return _written(picture, THUMBNAIL, "WebP")


def _written(picture: Tensor, side: int, kind: str) -> str:
    height, width = picture.shape[1:]
    shrink = min(1.0, side / max(height, width))
    size = [max(1, round(shrink * pixels)) for pixels in (height, width)]
    small = F.interpolate(picture[None].float(), size, mode="area")[0]
    pixels = (255 * small).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().cpu()
    written = io.BytesIO()
    Image.fromarray(pixels.squeeze(2).numpy()).save(written, kind, quality=QUALITY)
    return base64.b64encode(written.getvalue()).decode()
