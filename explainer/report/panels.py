"""A row of tiles for one image: photograph, target mask, masked photograph, teacher maps, strongest class masks.

H×W pixels; pictures are uint8 [h,w,3].
"""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFont

TILE = 160
CAPTION = 18
GAP = 4


@dataclass
class Panel:
    """What is drawn for one image.

    Args:
        photograph: float [H,W,3] in [0, 1].
        target_mask: float [H,W] in [0, 1].
        class_masks: float [H,W] in [0, 1] each, strongest first.
        captions: one per class mask.
        labels: names of the classes in the image.
        lesson: with teachers, the mask of one present class and each teacher's map of it, float [H,W] in [0, 1], by
            caption.
    """

    photograph: np.ndarray
    target_mask: np.ndarray
    class_masks: list[np.ndarray]
    captions: list[str]
    labels: list[str]
    lesson: dict[str, np.ndarray] = field(default_factory=dict)


def draw_panel(panel: Panel) -> np.ndarray:
    """The row of tiles with their captions."""
    photograph, mask = panel.photograph, panel.target_mask
    tiles = [
        (photograph, ", ".join(panel.labels) or "no class"),
        (_grey(mask), f"target mask, area {mask.mean():.2f}"),
        (photograph * mask[..., None], "photograph · mask"),
        *((_grey(taught), caption) for caption, taught in panel.lesson.items()),
        *((_grey(class_mask), caption) for class_mask, caption in zip(panel.class_masks, panel.captions, strict=True)),
    ]
    return np.concatenate([_tile(picture, caption) for picture, caption in tiles], axis=1)


def stack_panels(pictures: list[np.ndarray]) -> np.ndarray:
    """Panels of equal width, one below the other."""
    return np.concatenate(pictures, axis=0)


def _grey(mask: np.ndarray) -> np.ndarray:
    return np.repeat(mask[..., None], 3, axis=2)


def _tile(picture: np.ndarray, caption: str) -> np.ndarray:
    canvas = Image.new("RGB", (TILE + GAP, TILE + CAPTION + GAP), "white")
    pixels = Image.fromarray((picture * 255).round().clip(0, 255).astype(np.uint8))
    canvas.paste(pixels.resize((TILE, TILE), Image.Resampling.BILINEAR), (0, CAPTION))
    font = ImageFont.load_default(12)
    while caption and font.getlength(caption) > TILE:
        caption = caption[:-2] + "…" if not caption.endswith("…") else caption[:-2] + "…"
    ImageDraw.Draw(canvas).text((1, 2), caption, fill="black", font=font)
    return np.asarray(canvas)
